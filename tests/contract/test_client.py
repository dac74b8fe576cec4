"""Our own client against the real gateway: every call, synchronous and asynchronous."""

import io

import numpy as np
import pytest
from PIL import Image

from deepnight.client import ApiError, AsyncClient, Client, JobFailedError
from tests.contract.conftest import KEY

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def deepnight(gateway):
    with Client(gateway.url, api_key=KEY) as client:
        yield client


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


def test_embeddings_of_every_way_to_give_a_picture(deepnight, pictures, tmp_path):
    expected = deepnight.embed("align-uniform", pictures)
    assert expected.shape == (5, 128)
    assert expected.dtype == np.float32
    buffer = io.BytesIO()
    Image.fromarray(pictures[0]).save(buffer, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(buffer.getvalue())
    for picture in (pictures[0], Image.fromarray(pictures[0]), buffer.getvalue(), path):
        assert np.allclose(deepnight.embed("align-uniform", picture), expected[0], atol=1e-5)
    assert np.allclose(deepnight.embed("align-uniform", pictures[..., None]), expected, atol=1e-5)
    assert np.allclose(deepnight.embed("align-uniform", list(pictures)), expected, atol=1e-5)


def test_classifications(deepnight, pictures):
    ranked = deepnight.classify("aum", pictures, top_k=3)
    assert len(ranked) == 5
    for one in ranked:
        assert len(one.labels) == 3
        assert list(one.scores) == sorted(one.scores, reverse=True)


def test_distances_inline_with_coupling_and_of_data_sets(deepnight):
    points = np.random.default_rng(0).normal(size=(20, 3))
    found = deepnight.distance("robust-ot", points, {"points": points + 1}, return_coupling=True)
    assert found.distance > 0
    assert found.coupling.mass.sum() == pytest.approx(1)
    rows = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    a, b = deepnight.upload(rows, name="a"), deepnight.upload(rows + 1, name="b")
    assert deepnight.distance("robust-ot", a, b.id).distance > 0


def test_a_distance_too_large_to_answer_at_once_is_waited_for(deepnight):
    rng = np.random.default_rng(2)
    a, b = (deepnight.upload(rng.normal(size=(1100, 2)).astype(np.float32), name=name) for name in "ab")
    assert deepnight.distance("robust-ot", a, b).distance >= 0


def test_data_sets_of_arrays_texts_pairs_and_files(deepnight, pictures, tmp_path):
    images = deepnight.upload(pictures, labels=[0, 1, 0, 1, 1], class_names=["no", "yes"], name="made")
    assert (images.kind, images.samples, images.class_names) == ("images", 5, ["no", "yes"])
    again = deepnight.upload(pictures, labels=[0, 1, 0, 1, 1], class_names=["no", "yes"], name="made")
    assert again.id == images.id
    texts = deepnight.upload(["one text", "another text"], labels=["a", "b"])
    assert (texts.kind, texts.class_names) == ("text", ["a", "b"])
    pairs = deepnight.upload([("a long text", "short"), ("one more text", "brief")])
    assert pairs.kind == "pairs"
    path = tmp_path / "rows.csv"
    path.write_text("x,y,label\n1,2,a\n3,4,b\n")
    file = deepnight.upload(path, options={"label": "label"}, progress=True)
    assert (file.name, file.kind) == ("rows", "vectors")
    assert {images.id, texts.id, pairs.id, file.id} <= {row.id for row in deepnight.datasets()}
    deepnight.delete_dataset(file)
    with pytest.raises(ApiError) as gone:
        deepnight.dataset(file.id)
    assert gone.value.status == 404
    assert gone.value.request_id


@pytest.fixture(scope="module")
def job(deepnight):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 300)
    vectors = (rng.normal(size=(300, 4)) + 4 * labels[:, None]).astype(np.float32)
    dataset = deepnight.upload(vectors, labels=labels, class_names=["low", "high"], name="blobs")
    parameters = {"epochs": 2, "retrain": False}
    return deepnight.submit("mislabeled-detection", dataset=dataset, parameters=parameters, labels={"from": "test"})


def test_a_job_from_its_events_to_its_data_frame(deepnight, job, tmp_path):
    kinds = [event.kind for event in deepnight.events(job)]
    assert kinds[-1] == "status"
    assert "progress" in kinds
    done = deepnight.wait(job, progress=True)
    assert done.status == "succeeded"
    assert done.id in {row.id for row in deepnight.jobs(kind="mislabeled-detection", status="succeeded")}
    ranking = deepnight.frame(done)
    assert len(ranking) == 300
    assert ranking["rank"].is_monotonic_increasing
    suspects = deepnight.frame(done, suspect=True) if deepnight.result(done)["flagged"]["count"] else ranking[:0]
    assert len(suspects) == deepnight.result(done)["flagged"]["count"]
    report = deepnight.download(done, "report.html", tmp_path)
    assert "</html>" in report.read_text()
    assert deepnight.download(done, "ranking.csv", tmp_path / "table.csv").stat().st_size > 0
    with pytest.raises(ApiError):
        deepnight.download(done, "no-such-file", tmp_path)
    assert not (tmp_path / "no-such-file").exists()


def test_a_cancelled_job_and_one_that_is_not_awaited_to_its_end(deepnight, pictures):
    dataset = deepnight.upload(np.repeat(pictures, 100, axis=0), labels=np.arange(500) % 5)
    parameters = {"epochs": 300, "retrain": False}
    job = deepnight.submit("mislabeled-detection", dataset=dataset, parameters=parameters, idempotency_key="long-one")
    same = deepnight.submit("mislabeled-detection", dataset=dataset, parameters=parameters, idempotency_key="long-one")
    assert same.id == job.id
    with pytest.raises(TimeoutError):
        deepnight.wait(job, timeout=0.2)
    deepnight.cancel(job)
    with pytest.raises(JobFailedError) as ended:
        deepnight.wait(job)
    assert ended.value.job.status == "cancelled"


def test_refusals_name_the_fields(deepnight, pictures):
    with pytest.raises(ApiError) as refused:
        deepnight.embed("align-uniform", [pictures[0], "nonsense"])
    assert refused.value.status == 422
    assert refused.value.errors[0].field == "/input/1"
    with pytest.raises(ApiError, match="404"):
        deepnight.embed("no-such-model", pictures)
    with pytest.raises(TypeError):
        deepnight.embed("align-uniform", [object()])


def test_models(deepnight):
    models = {model.slug: model for model in deepnight.models()}
    assert models["aum"].capability == "classify"
    assert deepnight.model("aum").version == models["aum"].version
    assert deepnight.set_default(models["aum"]).default


def test_a_wrong_key_is_refused(gateway):
    with Client(gateway.url, api_key="dn_wrong") as stranger, pytest.raises(ApiError, match="401"):
        stranger.models()


@pytest.mark.anyio
async def test_the_asynchronous_client_does_the_same(gateway, pictures, job):
    async with AsyncClient(gateway.url, api_key=KEY) as deepnight:
        assert (await deepnight.embed("align-uniform", pictures)).shape == (5, 128)
        dataset = await deepnight.upload(pictures, labels=[0, 1, 0, 1, 1], name="async")
        assert dataset.samples == 5
        done = await deepnight.wait(job)
        assert [event.kind async for event in deepnight.events(done)][-1] == "status"
        assert len(await deepnight.frame(done)) == 300
        with pytest.raises(ApiError):
            await deepnight.job("job_none")


@pytest.fixture
def anyio_backend():
    return "asyncio"
