"""Public clients, unchanged: OpenAI's and Triton's."""

import gevent
import numpy as np
import openai
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from models.core.inputs import ImageSpec
from tests.contract.conftest import KEY
from tests.contract.examples import example_item

MODEL = "align-uniform"


@pytest.fixture(scope="module")
def spec(registry):
    found = registry[MODEL].shipped().config.input
    assert isinstance(found, ImageSpec)
    return found


@pytest.fixture(scope="module")
def client_openai(gateway):
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)


def test_openai_embeddings_by_its_own_default_and_as_floats(client_openai, spec):
    items = [example_item(spec, seed) for seed in range(3)]
    default = client_openai.embeddings.create(model=MODEL, input=items)  # asks for base64, decodes it
    floats = client_openai.embeddings.create(model=MODEL, input=items, encoding_format="float")
    assert [item.index for item in default.data] == [0, 1, 2]
    for one, other in zip(default.data, floats.data, strict=True):
        assert np.allclose(one.embedding, other.embedding, atol=1e-6)
    assert np.linalg.norm(default.data[0].embedding) == pytest.approx(1, abs=1e-5)
    assert default.usage.total_tokens == 3


def test_openai_models(client_openai):
    assert MODEL in {model.id.partition("@")[0] for model in client_openai.models.list()}
    assert client_openai.models.retrieve(MODEL).object == "model"


def test_openai_errors_have_their_types(client_openai, spec, gateway):
    with pytest.raises(openai.NotFoundError) as caught:
        client_openai.embeddings.create(model="no-such-model", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError) as invalid:
        client_openai.embeddings.create(model=MODEL, input=[example_item(spec), "nonsense"])
    assert invalid.value.param == "input.1"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="dn_wrong", max_retries=0).models.list()


def test_openai_dimensions_are_honoured_or_refused(client_openai, spec):
    width = len(client_openai.embeddings.create(model=MODEL, input=example_item(spec)).data[0].embedding)
    same = client_openai.embeddings.create(model=MODEL, input=example_item(spec), dimensions=width)
    assert len(same.data[0].embedding) == width
    try:
        shorter = client_openai.embeddings.create(model=MODEL, input=example_item(spec), dimensions=width // 2)
    except openai.BadRequestError as refused:
        assert refused.param == "dimensions"
    else:
        assert len(shorter.data[0].embedding) == width // 2
        assert np.linalg.norm(shorter.data[0].embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(openai.APIStatusError) as refused:
        client_openai.embeddings.create(model=MODEL, input=[example_item(spec)] * 2, dimensions=width * 64)
    assert refused.value.param == "dimensions"


@pytest.fixture(scope="module")
def triton(gateway):
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{gateway.settings.port}")
    yield client
    client.close()
    gevent.get_hub().destroy()


def headers():
    """A dictionary for each call: the client writes its own headers into it."""
    return {"Authorization": f"Bearer {KEY}"}


def test_triton_health_and_metadata(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(MODEL, headers=headers())
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert triton.get_model_metadata(MODEL, headers=headers())["inputs"][0]["datatype"] == "UINT8"


@pytest.mark.parametrize("binary", [True, False])
def test_triton_infer_binary_and_json(triton, spec, binary):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    image = tritonclient.http.InferInput("image", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels, binary_data=binary)
    wanted = tritonclient.http.InferRequestedOutput("embedding", binary_data=binary)
    result = triton.infer(MODEL, [image], outputs=[wanted], request_id="r1", headers=headers())
    embedding = result.as_numpy("embedding")
    assert embedding.dtype == np.float32
    assert embedding.shape[0] == 2
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert result.get_response()["id"] == "r1"


def test_triton_several_outputs_as_bytes(triton, registry):
    shape = registry["aum"].shipped().config.input.shape
    image = tritonclient.http.InferInput("image", [1, *shape], "UINT8")
    image.set_data_from_numpy(np.zeros((1, *shape), dtype=np.uint8))
    outputs = [tritonclient.http.InferRequestedOutput(name) for name in ("label", "probabilities")]
    result = triton.infer("aum", [image], outputs=outputs, headers=headers())
    names = registry["aum"].shipped().config.class_names
    assert result.as_numpy("label")[0].decode() == names[result.as_numpy("probabilities")[0].argmax()]


def test_triton_errors_carry_the_reason(triton, spec):
    image = tritonclient.http.InferInput("picture", [1, *spec.shape], "UINT8")
    image.set_data_from_numpy(np.zeros((1, *spec.shape), dtype=np.uint8))
    with pytest.raises(InferenceServerException, match="picture"):
        triton.infer(MODEL, [image], headers=headers())
    with pytest.raises(InferenceServerException, match="no model"):
        triton.infer("no-such-model", [image], headers=headers())
