"""Data sets in the store: the same upload is the same data set, owners are apart, half a write is no data set."""

import io
import os
import threading

import numpy as np
import pytest

from models.core.datasets import DatasetError, DatasetOptions, DatasetStore, Limits, UnknownDatasetError
from models.core.store import BlobStore, StoreFullError


@pytest.fixture
def store(tmp_path):
    return DatasetStore(BlobStore(str(tmp_path / "store")), tmp_path / "cache")


@pytest.fixture
def upload(store, data):
    def add(owner="ann", name="fashion-mnist-600.npz", **options):
        return store.add(owner, data / name, filename=name, options=DatasetOptions(**options))

    return add


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_record_says_what_the_file_holds(store, upload, data):
    record, created = upload()
    raw = (data / "fashion-mnist-600.npz").read_bytes()
    assert created
    assert record.id.startswith("ds_")
    assert (record.kind, record.samples, record.shape, record.classes) == ("images", 600, [28, 28, 1], 10)
    assert record.bytes == len(raw)
    assert store.get("ann", record.id) == record
    path, format_ = store.file("ann", record.id)
    assert path.read_bytes() == raw
    assert format_ == "npz"


def test_the_same_upload_is_the_same_data_set(upload):
    first, created = upload()
    second, again = upload()
    assert (created, again) == (True, False)
    assert second == first


def test_owner_content_and_options_make_another_one(upload):
    names = [str(i) for i in range(10)]
    records = [upload()[0], upload("bob")[0], upload(class_names=names)[0], upload(name="digits-8x8-600.csv")[0]]
    assert len({record.id for record in records}) == 4
    assert records[2].class_names == names


def test_owners_do_not_see_each_other(store, upload):
    record, _ = upload()
    for call in (store.get, store.load, store.file, store.delete):
        with pytest.raises(UnknownDatasetError):
            call("bob", record.id)
    assert store.list("bob") == []
    assert store.get(None, record.id) == record
    assert [found.id for found in store.list(None)] == [record.id]


@pytest.mark.parametrize(
    "name", ["../../etc", "ds_x", "", "ds_" + "0" * 32, "ds_" + "A" * 32, "ds_" + "0" * 32 + "/.."]
)
def test_ids_that_are_none(store, name):
    with pytest.raises(UnknownDatasetError):
        store.get("ann", name)


@pytest.mark.parametrize("name", ["fashion-mnist-600.npz", "digits-8x8-600.csv", "docstrings-300.jsonl"])
def test_loading_gives_the_parsed_data_with_and_without_the_cache(store, upload, read, data, name, tmp_path):
    record, _ = upload(name=name)
    expected = read(data / name).dataset
    for _ in range(2):
        for dataset in (store.load("ann", record.id), store.load("ann", record.id, mapped=True)):
            assert np.array_equal(dataset.inputs, expected.inputs)
            assert np.array_equal(dataset.labels, expected.labels)
            assert dataset.class_names == expected.class_names
            assert dataset.sample_ids == expected.sample_ids
            assert dataset.name == name
        for path in (tmp_path / "cache" / "parsed").rglob("facts.json"):
            path.unlink()


def test_pictures_of_different_sizes_survive_the_cache(store, tmp_path, write_zip):
    from tests.unit.datasets.conftest import png

    shapes = [(4, 5, 3), (6, 2, 3), (3, 3)]
    path = write_zip([(f"a/{i}.png", png(shape, seed=i)) for i, shape in enumerate(shapes)])
    record, _ = store.add("ann", path, filename="a.zip")
    assert record.shape is None
    cached = store.cached(record)
    fresh = DatasetStore(BlobStore(str(tmp_path / "store")), tmp_path / "other").load("ann", record.id)
    for mine, theirs in zip(cached.inputs, fresh.inputs, strict=True):
        assert np.array_equal(mine, theirs)


def test_the_cache_forgets_the_least_recently_used(store, upload):
    first, second = upload()[0], upload(name="digits-8x8-600.csv")[0]
    store._parsed = type(store._parsed)(store._parsed.root, most_bytes=700_000)
    os.utime(store._parsed._folder(first.id), (1, 1))
    third, _ = upload(name="fashion-mnist-120.tar.gz")
    assert store.cached(first) is None
    assert store.cached(second) is not None
    assert store.cached(third) is not None
    assert len(store.load("ann", first.id)) == 600


def test_deleting_leaves_no_file(store, upload, tmp_path):
    record, _ = upload()
    store.delete("ann", record.id)
    assert files(tmp_path) == []
    with pytest.raises(UnknownDatasetError):
        store.load("ann", record.id)


def test_a_refused_file_leaves_nothing(store, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DatasetError):
        store.add("ann", tmp_path / "bad.csv", filename="bad.csv")
    with pytest.raises(DatasetError, match="must end in"):
        store.add("ann", tmp_path / "bad.csv", filename="bad.xlsx")
    assert files(tmp_path) == ["bad.csv"]


def test_half_a_write_is_no_data_set_and_the_next_upload_mends_it(store, upload, tmp_path):
    record, _ = upload()
    folder = next((tmp_path / "store" / "datasets").glob("*/ds_*"))
    (folder / "record.json").unlink()
    assert store.list("ann") == []
    again, created = upload()
    assert created
    assert again.id == record.id
    assert len(store.load("ann", again.id)) == 600


@pytest.mark.parametrize("victim", ["file", "record"])
def test_a_full_disk_leaves_nothing(store, upload, tmp_path, monkeypatch, victim):
    """A link to /dev/full gives the kernel's own error at the first write."""
    names = iter(f"{i:032x}" for i in range(100))
    monkeypatch.setattr("models.core.store.uuid.uuid4", lambda: type("Name", (), {"hex": next(names)}))
    partial = tmp_path / "store" / ".partial"
    partial.mkdir(parents=True)
    (partial / f"{0 if victim == 'file' else 1:032x}").symlink_to("/dev/full")
    with pytest.raises(StoreFullError):
        upload()
    assert files(tmp_path / "store") == []
    assert store.list("ann") == []
    assert upload()[1]


def test_concurrent_uploads_of_one_file_make_one_data_set(store, upload):
    found = []
    threads = [threading.Thread(target=lambda: found.append(upload()[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.id for record in found}) == 1
    assert len(store.list("ann")) == 1
    assert len(store.load("ann", found[0].id)) == 600


def test_a_store_that_is_not_local_is_read_through_a_copy(data, tmp_path):
    store = DatasetStore(BlobStore("memory://datasets-test"), tmp_path / "cache")
    record, _ = store.add("ann", data / "digits-8x8-600.csv", filename="digits.csv", name="digits")
    path, _ = store.file("ann", record.id)
    assert path.read_bytes() == (data / "digits-8x8-600.csv").read_bytes()
    store.delete("ann", record.id)
    assert files(tmp_path) == []


def test_limits_hold(data, tmp_path):
    store = DatasetStore(BlobStore(str(tmp_path / "store")), tmp_path / "cache", Limits(samples=10))
    with pytest.raises(DatasetError, match="more than 10"):
        store.add("ann", data / "digits-8x8-600.csv", filename="a.csv")


def test_warnings_tell_of_twins_conflicts_and_small_classes(store, tmp_path):
    images = np.arange(30, dtype=np.uint8).repeat(4).reshape(30, 2, 2)
    images[7], images[8] = images[2], images[3]
    labels = np.array([0] * 20 + [1] * 10)
    labels[8] = 1
    raw = io.BytesIO()
    np.savez(raw, x=images, y=labels, class_names=np.array(["cat", "dog", "eel"]))
    (tmp_path / "a.npz").write_bytes(raw.getvalue())
    record, _ = store.add("ann", tmp_path / "a.npz", filename="a.npz")
    assert record.warnings == [
        "1 classes have fewer than 10 samples: 'eel' (0)",
        "2 samples repeat an earlier one (the first: rows 2 and 7)",
        "1 samples occur with different labels (the first: row 3 is 'cat', row 8 is 'dog')",
    ]


def test_warnings_tell_of_a_single_label_and_of_none(store, tmp_path):
    (tmp_path / "one.csv").write_text("a,y\n" + "".join(f"{i},u\n" for i in range(20)))
    assert store.add("ann", tmp_path / "one.csv", filename="one.csv")[0].warnings == ["all samples have one label: 'u'"]
    (tmp_path / "none.csv").write_text("a\n1\n2\n")
    assert "no labels" in store.add("ann", tmp_path / "none.csv", filename="none.csv")[0].warnings[0]
