"""What every method must keep, whatever it does. A new folder under models/ is tested by this without a change."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.inputs import ClassSpec, SidesSpec, TextSpec
from models.core.registry import SHIPPED, Registry
from service.catalog import Served
from service.operations import OPERATIONS
from service.signatures import describe_outputs
from tests.contract.examples import ROUTES, example_item, example_request

METHODS = list(Registry())
pytestmark = pytest.mark.parametrize("slug", METHODS)


@pytest.fixture
def entry(slug, registry):
    return registry[slug]


@pytest.fixture
def checkpoint(entry):
    shipped = entry.shipped()
    assert shipped is not None, "every method ships a checkpoint"
    return shipped


def test_the_folder_follows_the_slug(entry):
    assert entry.folder.name == entry.slug.replace("-", "_")


def test_schema_never_imports_torch(entry):
    code = f"import sys; import {entry.package}.schema; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SHIPPED.parent, check=False).returncode == 0


def test_no_neighbour_is_imported(entry):
    for path in entry.folder.rglob("*.py"):
        for imported in re.findall(r"^\s*(?:from|import) models\.(\w+)", path.read_text(), re.MULTILINE):
            assert imported in ("core", entry.folder.name), f"{path} imports models.{imported}"


def test_parameters_are_documented_and_strict(entry):
    schema = entry.params.model_json_schema()
    assert schema["additionalProperties"] is False
    for name, field in schema["properties"].items():
        assert field.get("description"), f"parameter {name} has no description"
        assert "default" in field, f"parameter {name} has no default"


def test_presets(entry):
    if entry.card.trainable:
        assert {"cpu", "paper"} <= entry.presets.keys()
    for preset in entry.presets.values():
        assert type(preset).model_validate(preset.model_dump()) == preset


def test_card_shows_measured_figures(checkpoint):
    figures = checkpoint.figures
    assert figures is not None
    assert figures.command, "how the figures were made"
    headline = [figure for figure in figures.figures if figure.headline]
    assert headline
    baselines = {figure.subject for figure in figures.figures} - {"method"}
    assert baselines, "a proof stands beside a baseline"
    assert figures.claims
    assert figures.data_sha256


def test_checkpoint_is_small_and_loads(entry, checkpoint):
    size = sum(path.stat().st_size for path in entry.folder.rglob("*") if path.suffix != ".py" and path.is_file())
    assert size < 8 << 20
    assert checkpoint.config.method == entry.slug
    entry.method.load(checkpoint, torch.device("cpu"))


def test_a_batch_gives_what_single_requests_give(entry, checkpoint, client):
    route, body = example_request(entry, checkpoint, count=5)
    if route == ROUTES["distance"]:
        pytest.skip("a distance request has one pair of sides")
    many = client.post(route, json=body).json()["data"]
    if route == ROUTES["generate"]:
        alone = [client.post(route, json={**body, "n": 1, "parameters": {"seed": seed}}).json() for seed in range(5)]
        assert many == [answer["data"][0] for answer in alone]
        return
    single = [client.post(route, json={**body, "input": [item]}).json()["data"][0] for item in body["input"]]
    for together, alone in zip(many, single, strict=True):
        if entry.card.capability == "summarise":
            pairs = zip(together["candidates"], alone["candidates"], strict=True)
            assert all(one["text"] == other["text"] for one, other in pairs)
        elif entry.card.capability == "embed":
            assert np.allclose(together["embedding"], alone["embedding"], atol=1e-5)
        else:
            scores = [{label["label"]: label["score"] for label in item["labels"]} for item in (together, alone)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_the_route_answers_for_every_shipped_version(entry, client):
    for name, checkpoint in entry.all_shipped().items():
        route, body = example_request(entry, checkpoint)
        answer = client.post(route, json={**body, "model": f"{entry.slug}@{name}"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == f"{entry.slug}@{name}"


def test_the_bare_slug_means_the_default_version(entry, checkpoint, client):
    route, body = example_request(entry, checkpoint)
    answer = client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == f"{entry.slug}@{checkpoint.config.version}"


def test_unknown_parameters_are_named(entry, checkpoint, client):
    route, body = example_request(entry, checkpoint)
    answer = client.post(route, json={**body, "parameters": {"no_such_parameter": 1}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "/parameters/no_such_parameter"


BAD_ITEMS = [None, 5, True, {"type": "image"}, {"type": "array", "data": [["x"]]}, {"type": "nonsense"}, {}]


@pytest.mark.parametrize("item", BAD_ITEMS, ids=repr)
def test_bad_items_fail_with_their_position(entry, checkpoint, client, item):
    if isinstance(checkpoint.config.input, SidesSpec | ClassSpec):
        pytest.skip("takes no items")
    good = example_item(checkpoint.config.input)
    answer = client.post(ROUTES[entry.card.capability], json={"model": entry.slug, "input": [good, item, good]})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["/input/1"]


BAD_SIDES = [
    ({}, "/b"),
    ({"points": []}, "/b/points"),
    ({"points": [[1, 2], [3]]}, "/b/points"),
    ({"points": [[1, 2]]}, "/b/points"),  # other dimension
    ({"points": [["x", "y", "z"]]}, "/b/points"),
    ({"points": [[1, 2, 3]], "weights": [1, 2]}, "/b/weights"),
    ({"points": [[1, 2, 3]], "weights": [-1]}, "/b/weights"),
    ({"points": [[1, 2, 3]], "labels": [1, 2]}, "/b/labels"),
    ({"points": [[1, 2, 3]], "dataset": "ds_x"}, "/b"),
    ({"dataset": "ds_x"}, "/b/dataset"),
    ({"points": [[1, 2, 3]], "colour": "red"}, "/b/colour"),
]


@pytest.mark.parametrize(("side", "field"), BAD_SIDES, ids=[repr(side) for side, _ in BAD_SIDES])
def test_bad_sides_are_named(entry, checkpoint, client, side, field):
    if not isinstance(checkpoint.config.input, SidesSpec):
        pytest.skip("takes no sides")
    good = example_item(checkpoint.config.input)
    answer = client.post(ROUTES["distance"], json={"model": entry.slug, "a": good, "b": side})
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["field"] == field


def test_the_card_is_served(entry, checkpoint, client):
    card = client.get(f"/v1/models/{entry.slug}").json()
    assert card["capability"] == entry.card.capability
    assert card["parameters"]["type"] == "object"
    assert card["figures"]
    assert card["state"] in ("ready", "cold", "loading")
    figures = client.get(f"/v1/models/{entry.slug}/figures").json()
    assert len(figures["figures"]) == len(checkpoint.figures.figures)


def test_openapi_holds_the_parameters(entry, client):
    document = client.get("/openapi.json").json()
    body = document["components"]["schemas"][OPERATIONS[entry.card.capability].request.__name__]
    references = [option["$ref"] for option in body["properties"]["parameters"]["anyOf"]]
    assert f"#/components/schemas/{entry.slug}-parameters" in references


def test_open_inference_protocol_agrees_with_the_route(entry, checkpoint, client, gateway):
    metadata = client.get(f"/v2/models/{entry.slug}").json()
    served = Served(gateway.app.state.services.versions.resolve(entry.slug), checkpoint.config)
    assert metadata["outputs"] == describe_outputs(served)
    route, body = example_request(entry, checkpoint)
    if entry.card.capability == "distance":
        inputs = [_tensor(side, "FP64", np.asarray(body[side]["points"])) for side in ("a", "b")]
        inputs += [_tensor(f"{side}_labels", "INT64", np.asarray(body[side]["labels"])) for side in ("a", "b")]
    elif entry.card.capability == "generate":
        inputs = [_tensor(name, "INT64", np.asarray([value])) for name, value in (("class_index", 0), ("seed", 7))]
        body["parameters"] = {"class_label": 0, "seed": 7}
    elif isinstance(checkpoint.config.input, TextSpec):
        inputs = [_tensor("text", "BYTES", np.asarray(body["input"], dtype=object))]
    else:
        name = metadata["inputs"][0]["name"]
        if metadata["inputs"][0]["datatype"] == "FP32":
            inputs = [_tensor(name, "FP32", np.asarray(body["input"]))]
        else:
            array = [item["data"] for item in [_pixels(checkpoint.config.input)]]
            inputs = [_tensor(name, "UINT8", np.asarray(array))]
            body["input"] = [{"type": "array", "data": array[0]}]
    answer = client.post(f"/v2/models/{entry.slug}/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    rest = client.post(route, json=body).json()
    if entry.card.capability == "distance":
        assert outputs["distance"][0] == pytest.approx(rest["distance"])
    elif entry.card.capability == "generate":
        image = Image.open(io.BytesIO(base64.b64decode(rest["data"][0]["b64_json"])))
        assert outputs["image"] == np.asarray(image).ravel().tolist()
    elif entry.card.capability == "summarise":
        assert outputs["text"] == [rest["data"][0]["candidates"][0]["text"]]
    elif entry.card.capability == "embed":
        assert np.allclose(outputs["embedding"], rest["data"][0]["embedding"], atol=1e-6)
    else:
        assert max(outputs["probabilities"]) == pytest.approx(rest["data"][0]["labels"][0]["score"], abs=1e-6)


def _pixels(spec):
    return {"data": np.random.default_rng(3).integers(0, 256, spec.shape).tolist()}


def _tensor(name, datatype, array):
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def test_metrics_name_the_model(entry, checkpoint, client):
    route, body = example_request(entry, checkpoint)
    client.post(route, json=body)
    metrics = client.get("/metrics").text
    model = re.escape(f"{entry.slug}@{checkpoint.config.version}")
    assert re.search(rf'deepnight_inference_requests_total{{model="{model}",outcome="ok"}} \d', metrics)
    assert re.search(rf'deepnight_model_state{{model="{model}",state="ready"}} 1', metrics)
