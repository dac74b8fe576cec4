"""Pairs from package lists as Debian writes them."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from models.core.sources import DataUnavailableError, load

_spec = spec_from_file_location(
    "package_descriptions", Path(__file__).parents[3] / "scripts" / "package_descriptions.py"
)
script = module_from_spec(_spec)
_spec.loader.exec_module(script)

LONG = " ".join(["word"] * 12)
PACKAGES = """Package: joe
Source: joe-editor (4.6-1)
Section: editors

Package: joe-doc
Source: joe-editor
Section: doc

Package: tiny
Section: misc
"""
TRANSLATION = f"""Package: joe
Description-md5: 1
Description-en: small and fast editor
 {LONG}
 {LONG}
 .
  * a list
  * of two

Package: joe-doc
Description-md5: 1
Description-en: the same description again
 {LONG}
 {LONG}
 .
  * a list
  * of two

Package: tiny
Description-en: too short
 One line.

Package: unknown
Description-en: not in the package list
 {LONG} {LONG}
"""


@pytest.fixture
def lists(tmp_path):
    for name, text in (("packages", PACKAGES), ("translation", TRANSLATION)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "packages", tmp_path / "translation"


def test_one_row_for_each_long_description(lists):
    (row,) = script.pairs(*lists)
    assert row["package"] == "joe"
    assert row["source"] == "joe-editor"
    assert row["synopsis"] == "small and fast editor"
    assert row["description"] == f"{LONG} {LONG}\n\n * a list\n * of two"
    assert row["split"] == script.split_of("joe-editor")


def test_splits_are_by_source_and_of_the_stated_sizes():
    found = [script.split_of(f"package-{i}") for i in range(20_000)]
    assert found.count("train") / 20_000 == pytest.approx(0.9, abs=0.01)
    assert found.count("test") / 20_000 == pytest.approx(0.05, abs=0.01)


def test_the_written_file_loads_and_a_missing_one_says_how_to_make_it(lists, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPNIGHT_HOME", str(tmp_path / "home"))
    with pytest.raises(DataUnavailableError, match=r"scripts/package_descriptions\.py"):
        load("package-descriptions", "train")
    folder = tmp_path / "home" / "data" / "package-descriptions"
    folder.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["x", *map(str, lists), str(folder / "package-descriptions.parquet")])
    script.main()
    sizes = {split: len(load("package-descriptions", split)) for split in ("train", "validation", "test")}
    assert sum(sizes.values()) == 1
    assert load("package-descriptions", script.split_of("joe-editor")).inputs[0][1] == "small and fast editor"
    sections = load("package-sections", script.split_of("joe-editor"))
    assert sections.texts() == [f"{LONG} {LONG}\n\n * a list\n * of two"]
    assert sections.class_names == ["editors"] and sections.require_labels().tolist() == [0]
