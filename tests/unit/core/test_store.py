"""The blob store: whole or not at all, and never outside its root."""

import errno

import pytest

from models.core.store import BlobStore, StoreFullError, StoreUnavailableError


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return BlobStore(str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}")


def test_round_trip(store, tmp_path):
    store.put("a/b/c.bin", b"one")
    store.put("a/b/c.bin", b"two")
    assert store.get("a/b/c.bin") == b"two"
    assert store.size("a/b/c.bin") == 3
    assert store.exists("a/b/c.bin")
    assert store.keys("a") == ["a/b/c.bin"]
    assert store.folders("a") == ["b"]
    store.get_file("a/b/c.bin", tmp_path / "out" / "c.bin")
    assert (tmp_path / "out" / "c.bin").read_bytes() == b"two"
    store.delete("a")
    assert not store.exists("a/b/c.bin")
    store.delete("a")


def test_nothing_appears_when_the_writer_fails(store):
    with pytest.raises(RuntimeError), store.write("x/y") as file:
        file.write(b"half")
        raise RuntimeError("client gone")
    assert not store.exists("x/y")
    assert store.keys(".partial") == []


def test_a_full_disk_has_a_name_and_leaves_nothing(tmp_path):
    store = BlobStore(str(tmp_path))
    with pytest.raises(StoreFullError), store.write("x") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert store.keys(".partial") == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../b", "a//b", "a/./b", "a\0b", "a/"])
def test_keys_stay_inside(store, key):
    for call in (store.get, store.exists, store.size, store.delete, store.keys):
        with pytest.raises(ValueError, match="not a key"):
            call(key)


def test_absent_keys(store):
    with pytest.raises(FileNotFoundError):
        store.get("none")
    assert store.keys("none") == []
    assert store.folders("none") == []


def test_a_store_that_could_not_be_asked_is_not_empty(store, monkeypatch):
    store.put("keys/a.json", b"one")

    def refuse(*args, **options):
        raise OSError(errno.EIO, "Input/output error")

    for name in ("info", "ls"):
        monkeypatch.setattr(store._fs, name, refuse)
    for call in (store.exists, store.keys, store.folders):
        with pytest.raises(StoreUnavailableError, match="Input/output error"):
            call("keys")


def test_whoever_has_patience_asks_again(tmp_path, monkeypatch):
    store, asked = BlobStore(str(tmp_path), patience_s=10), []
    store.put("a", b"one")
    monkeypatch.setattr("models.core.store.AGAIN_S", 0.01)
    read = store._fs.cat_file

    def flaky(path):
        asked.append(path)
        if len(asked) < 3:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(store._fs, "cat_file", flaky)
    assert store.get("a") == b"one"
    assert len(asked) == 3
