"""Ray's folders: each gateway removes its own, and what a killed one left."""

import tempfile
from pathlib import Path

import pytest

from service.rayruntime import NOTE, PREFIX, remove_left_behind, remove_own


@pytest.fixture
def folders():
    made = [Path(tempfile.mkdtemp(prefix=PREFIX)) for _ in range(2)]
    yield made
    for folder in made:
        if folder.exists():
            folder.rmdir()


def test_a_gateway_that_ends_late_leaves_its_successors_folder(tmp_path, folders):
    own, successor = folders
    (tmp_path / NOTE).write_text(str(successor))
    remove_own(tmp_path, own)
    assert not own.exists()
    assert successor.exists()
    assert (tmp_path / NOTE).read_text() == str(successor)


def test_its_own_note_goes_with_its_folder(tmp_path, folders):
    (tmp_path / NOTE).write_text(str(folders[0]))
    remove_own(tmp_path, folders[0])
    assert not folders[0].exists()
    assert not (tmp_path / NOTE).exists()


def test_what_a_killed_gateway_left_is_removed_and_nothing_else(tmp_path, folders):
    (tmp_path / NOTE).write_text(str(folders[0]))
    remove_left_behind(tmp_path)
    assert not folders[0].exists()
    keep = tmp_path / "precious"
    keep.mkdir()
    (tmp_path / NOTE).write_text(str(keep))
    remove_left_behind(tmp_path)
    assert keep.exists()
