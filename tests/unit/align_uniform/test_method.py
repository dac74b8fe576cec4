import json
import shutil

import numpy as np
import pytest
import torch

from models.align_uniform.evaluate import measure_proof
from models.align_uniform.network import open_network
from models.align_uniform.recipes import RECIPES
from models.align_uniform.schema import Config
from models.align_uniform.shipping import open_encoder, read_index
from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.run import LocalRun


@pytest.fixture(scope="module")
def shipped():
    from models.core.registry import Registry

    return Registry()["align-uniform"].shipped()


@pytest.fixture(scope="module")
def model(shipped):
    from models.core.registry import Registry

    return Registry()["align-uniform"].method.load(shipped, torch.device("cpu"))


def test_the_card_and_the_checkpoint_agree(entry, shipped):
    assert entry.card.capability == "embed"
    assert shipped.config.input.shape == (28, 28, 1)
    sizes = shipped.config.outputs["dimensions_by_space"]
    assert sizes["penultimate"] == shipped.config.outputs["dimensions"]
    assert f"{sizes['penultimate']} penultimate, {sizes['projection']} projection" in entry.card.limits
    assert entry.presets["cpu"] == entry.config.model_validate(shipped.config.config)


@pytest.mark.parametrize("space", ["penultimate", "projection"])
def test_embeddings_are_unit_rows(entry, model, shipped, fashion, space):
    vectors = np.asarray(model.predict(fashion.inputs[:300], entry.params(space=space)))
    assert vectors.dtype == np.float32
    assert vectors.shape == (300, shipped.config.outputs["dimensions_by_space"][space])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("space", ["penultimate", "projection"])
def test_folding_and_axes_change_no_inner_product(entry, model, shipped, fashion, space):
    pictures = fashion.inputs[:64]
    network, _ = open_network(shipped)
    with torch.inference_mode():
        outputs = network.features(torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255)
    rows = torch.nn.functional.normalize(outputs[space == "projection"], dim=1).numpy()
    vectors = np.asarray(model.predict(pictures, entry.params(space=space)))
    assert vectors @ vectors.T == pytest.approx(rows @ rows.T, abs=1e-4)


def test_a_batch_gives_what_single_pictures_give(entry, model, fashion):
    together = np.asarray(model.predict(fashion.inputs[:5], entry.params()))
    alone = np.concatenate([model.predict(fashion.inputs[i : i + 1], entry.params()) for i in range(5)])
    assert together == pytest.approx(alone, abs=1e-5)


def test_dimensions_are_the_first_principal_axes(entry, model, fashion):
    pictures = fashion.inputs[:50]
    full = np.asarray(model.predict(pictures, entry.params()))
    short = np.asarray(model.predict(pictures, entry.params(dimensions=16)))
    expected = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    assert short == pytest.approx(expected, abs=1e-5)
    raw = np.asarray(model.predict(pictures, entry.params(normalize=False)))
    assert raw / np.linalg.norm(raw, axis=1, keepdims=True) == pytest.approx(full, abs=1e-5)


def test_too_many_dimensions_are_refused(entry, model, fashion):
    with pytest.raises(MethodError, match="dimensions: projection has 64"):
        model.predict(fashion.inputs[:1], entry.params(space="projection", dimensions=65))


def test_read_only_inputs_are_fine(entry, model, fashion, recwarn):
    pictures = fashion.inputs[:2].copy()
    pictures.setflags(write=False)
    model.predict(pictures, entry.params())
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_neighbours_share_their_class(entry, model, fashion):
    vectors = np.asarray(model.predict(fashion.inputs, entry.params()))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    accuracy = np.mean(fashion.labels[similarity.argmax(1)] == fashion.labels)
    assert accuracy > 0.65


def test_damaged_checkpoints_are_named(entry, shipped, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("config.json", "weights.safetensors"):
        shutil.copy(shipped.folder / name, folder / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "input": {"kind": "vector", "size": 4}}))
    with pytest.raises(CheckpointError, match="is a checkpoint for vector"):
        entry.method.load(Checkpoint(folder), torch.device("cpu"))
    (folder / "config.json").write_text(json.dumps({**config, "config": {"width": -1}}))
    with pytest.raises(CheckpointError, match="width"):
        entry.method.load(Checkpoint(folder), torch.device("cpu"))
    (folder / "config.json").write_text(json.dumps({**config, "config": {**config["config"], "width": 8}}))
    with pytest.raises(CheckpointError, match="the network expects"):
        entry.method.load(Checkpoint(folder), torch.device("cpu"))


def test_evaluate_on_a_users_data(entry, shipped, fashion, tmp_path):
    found = entry.method.evaluate(shipped, LocalRun(tmp_path), fashion)
    values = {(figure.name, figure.setting.rpartition(", ")[2]): figure.value for figure in found.figures}
    assert 0 < values["L_align", "projection"] < 1.5
    assert -4.2 < values["L_uniform", "projection"] < -2
    assert 0.6 < values["k-NN accuracy (k=20, leave one out)", "penultimate"] < 1
    assert 0.6 < values["linear probe accuracy", "penultimate"] < 1
    assert found.data_sha256 == {"slice": fashion.sha256}
    again = entry.method.evaluate(shipped, LocalRun(tmp_path), fashion)
    assert [figure.value for figure in again.figures] == [figure.value for figure in found.figures]


def test_evaluate_without_labels_and_on_wrong_data(entry, shipped, fashion, tmp_path):
    unlabelled = Dataset("images", fashion.inputs[:40])
    names = {figure.name for figure in entry.method.evaluate(shipped, LocalRun(tmp_path), unlabelled).figures}
    assert names == {"L_align", "L_uniform", "effective rank"}
    with pytest.raises(MethodError, match="40 text"):
        entry.method.evaluate(shipped, LocalRun(tmp_path), Dataset("text", ["word"] * 40))


def test_the_proof_on_a_slice(shipped, fashion, tmp_path):
    order = np.random.default_rng(0).permutation(len(fashion))
    names = ["align-uniform-s0", "simclr-tau-0.2-s0", "supervised-s0", "align-only-s0", "uniform-only-s0"]
    run = LocalRun(tmp_path)
    figures = measure_proof(shipped, run, fashion.select(order[:400]), fashion.select(order[400:]), names)
    rows = {row["name"]: row for row in figures.tables["encoders"]}
    assert {*names, *(f"random-s{seed}" for seed in range(2)), "raw pixels", "pca-64", "align-uniform@1"} == rows.keys()
    assert rows["align-uniform-s0"]["linear"] > rows["align-only-s0"]["linear"] + 0.1
    assert rows["align-only-s0"]["uniform"] > -0.1
    assert rows["supervised-s0"]["align"] is None
    assert len(figures.claims) >= 5
    assert (tmp_path / "align-uniform.png").read_bytes().startswith(b"\x89PNG")


def test_the_shipped_encoders_are_what_their_recipes_say():
    index = read_index()
    assert index.keys() == RECIPES.keys()
    for name, entry in index.items():
        assert Config.model_validate(entry.config) == RECIPES[name].config
        open_encoder(name, entry)
