"""The blob store: whole or not at all, and never outside its root."""

import errno

import pytest

from models.core.store import BlobStore, StoreFullError


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
