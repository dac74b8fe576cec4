"""Chosen samples written in the format that came in: nothing of what stays is lost."""

import csv
import io
import json
import tarfile
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.core.datasets import DatasetOptions, DatasetStore, write_dataset
from models.core.datasets.options import Limits
from models.core.datasets.reading import format_of, read_dataset
from models.core.store import BlobStore

SLICES = [
    "fashion-mnist-600.npz",
    "fashion-mnist-600.zip",
    "fashion-mnist-600.parquet",
    "fashion-mnist-120.tar.gz",
    "digits-8x8-600.csv",
    "docstrings-300.jsonl",
]


@pytest.mark.parametrize("name", SLICES)
def test_the_subset_reads_as_the_selection(data, tmp_path, read, name):
    whole = read(data / name).dataset
    keep = np.sort(np.random.default_rng(0).choice(len(whole), len(whole) * 2 // 3, replace=False))
    write_dataset(data / name, format_of(name), keep, tmp_path / name)
    subset, expected = read(tmp_path / name).dataset, whole.select(keep)
    assert np.array_equal(subset.inputs, expected.inputs)
    assert np.array_equal(subset.labels, expected.labels)
    assert subset.class_names == expected.class_names
    assert subset.sample_ids == expected.sample_ids


@pytest.mark.parametrize("name", SLICES)
def test_all_samples_give_the_same_data_and_wrong_indices_no_file(data, tmp_path, read, name):
    count = len(read(data / name).dataset)
    write_dataset(data / name, format_of(name), range(count), tmp_path / name)
    assert read(tmp_path / name).dataset.sha256 == read(data / name).dataset.sha256
    for wrong in ([], [0, 0], [-1], [0, count]):
        with pytest.raises(ValueError, match="keep_indices"):
            write_dataset(data / name, format_of(name), wrong, tmp_path / f"wrong-{name}")
        assert not (tmp_path / f"wrong-{name}").exists()


@pytest.mark.parametrize("name", SLICES)
def test_the_same_samples_written_later_are_the_same_data_set(data, tmp_path, monkeypatch, name):
    store, real = DatasetStore(BlobStore(str(tmp_path / "store")), tmp_path / "cache"), time.time
    added = []
    for late in (0, 100_000):
        monkeypatch.setattr(time, "time", lambda late=late: real() + late)
        out = tmp_path / f"{late}-{name}"
        write_dataset(data / name, format_of(name), range(50), out)
        added.append(store.add("ann", out, filename=name))
    (first, new), (again, new_again) = added
    assert (new, new_again) == (True, False)
    assert again == first


def test_parquet_keeps_all_columns_types_and_metadata(tmp_path):
    columns = {
        "note": pa.array(["a", None, "c"]),
        "when": pa.array([1, 2, 3], pa.timestamp("us", "UTC")),
        "x": pa.array([1.5, 2.5, 3.5], pa.float32()),
        "nested": [{"u": [1, 2]}, {"u": []}, {"u": None}],
        "label": pa.array(["p", "q", "p"]).dictionary_encode(),
    }
    table = pa.table(columns).replace_schema_metadata({"origin": "here"})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, compression="zstd")
    write_dataset(tmp_path / "a.parquet", "parquet", [0, 2], tmp_path / "b.parquet")
    written = pq.read_table(tmp_path / "b.parquet")
    assert written.equals(pq.read_table(tmp_path / "a.parquet").take([0, 2]), check_metadata=True)
    assert written["nested"].to_pylist() == [{"u": [1, 2]}, {"u": None}]
    assert pq.ParquetFile(tmp_path / "b.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_csv_records_are_copied_as_they_are(tmp_path):
    lines = [
        '\ufeffid;text;label\r\n',
        '1;"a\r\nb; c";x\r\n',
        "\r\n",
        '2;"say ""hi""";y\r\n',
        '3;5" disk;"x"\r\n',
        "4;café  ;y",
    ]  # fmt: skip
    (tmp_path / "a.csv").write_bytes("".join(lines).encode())
    write_dataset(tmp_path / "a.csv", "csv", [0, 2, 3], tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes().decode() == "".join(lines[i] for i in (0, 1, 4, 5))
    write_dataset(tmp_path / "a.csv", "csv", [1, 3], tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_bytes().decode() == "".join(lines[i] for i in (0, 3, 5))


def test_jsonl_lines_are_copied_as_they_are(tmp_path):
    lines = ['{"a":1,  "extra":[1,2]}\n', "\n", '{"a":2.50}\r\n', '  {"a":3}\n', '{"a":4}']
    (tmp_path / "a.jsonl").write_text("".join(lines), newline="")
    write_dataset(tmp_path / "a.jsonl", "jsonl", [0, 1, 3], tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes().decode() == lines[0] + lines[2] + lines[4]


def test_npz_keeps_other_arrays_types_and_compression(tmp_path):
    arrays = {
        "x": np.arange(24, dtype=np.float32).reshape(6, 2, 2) / 24,
        "y": np.array(list("abcabc")),
        "weights": np.arange(6.0),
        "class_names": np.array(["a", "b", "c", "d", "e", "f"]),
        "mean": np.float64(3.5),
        "palette": np.zeros((3, 3), np.uint8),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    write_dataset(tmp_path / "a.npz", "npz", [1, 4], tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz", allow_pickle=False) as written:
        for name, array in arrays.items():
            expected = array[[1, 4]] if name in ("x", "y", "weights") else array
            assert np.array_equal(written[name], expected)
            assert written[name].dtype == np.asarray(array).dtype
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_npz_counts_the_array_that_the_options_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), mine=np.arange(10.0).reshape(5, 2), y=np.arange(5))
    write_dataset(tmp_path / "a.npz", "npz", [0, 4], tmp_path / "b.npz", options=DatasetOptions(features=["mine"]))
    with np.load(tmp_path / "b.npz") as written:
        assert written["mine"].tolist() == [[0, 1], [8, 9]]
        assert written["y"].tolist() == [0, 4]
        assert written["x"].shape == (3, 2)


def test_zip_keeps_names_dates_and_what_is_no_picture(data, tmp_path):
    write_dataset(data / SLICES[1], "zip", range(1, 600), tmp_path / "b.zip")
    with zipfile.ZipFile(data / SLICES[1]) as before, zipfile.ZipFile(tmp_path / "b.zip") as after:
        gone = [info.filename for info in before.infolist() if info.filename not in after.namelist()]
        assert gone == ["Ankle boot/0000.png"]
        assert after.read("LICENCE.txt") == before.read("LICENCE.txt")
        assert {info.date_time for info in after.infolist()} == {(2026, 1, 1, 0, 0, 0)}


def test_tar_keeps_what_is_no_picture(write_tar, data, tmp_path):
    with tarfile.open(data / SLICES[3]) as archive:
        pictures = [(info.name, archive.extractfile(info).read()) for info in archive][:4]
    path = write_tar([("readme.txt", b"hello"), *pictures])
    write_dataset(path, "tar.gz", [0, 3], tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        assert archive.getnames() == ["readme.txt", pictures[0][0], pictures[3][0]]
        assert archive.extractfile("readme.txt").read() == b"hello"


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    terminator=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_records_are_counted_as_the_parser_counts_them(tmp_path_factory, rows, seed, terminator):
    """Any quoted text: cutting by raw records and selecting parsed rows are the same."""
    folder = tmp_path_factory.mktemp("csv")
    if seed % 2 == 0:  # Python's writer does not quote a lone carriage return
        rows = [tuple(cell.replace("\r", "\n") for cell in row) for row in rows]
    raw = io.StringIO()
    writer = csv.writer(raw, lineterminator=terminator, quoting=csv.QUOTE_ALL if seed % 2 else csv.QUOTE_MINIMAL)
    writer.writerow(["text", "text_pair"])
    writer.writerows(rows)
    (folder / "a.csv").write_bytes(raw.getvalue().encode())
    keep = np.flatnonzero(np.random.default_rng(seed).random(len(rows)) < 0.6)
    keep = keep if len(keep) else np.array([0])
    write_dataset(folder / "a.csv", "csv", keep, folder / "b.csv")
    whole, part = (read_dataset(folder / n, "csv", DatasetOptions(), Limits()).dataset for n in ("a.csv", "b.csv"))
    assert whole.inputs == rows
    assert part.inputs == whole.select(keep).inputs


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6), st.lists, max_leaves=4
)


@settings(max_examples=60, deadline=None)
@given(extra=st.lists(JSON, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_jsonl_rows_keep_fields_that_nobody_reads(tmp_path_factory, extra, seed):
    folder = tmp_path_factory.mktemp("jsonl")
    rows = [{"text": f"t{i}", "extra": json.dumps(value)} for i, value in enumerate(extra)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    keep = np.flatnonzero(np.random.default_rng(seed).random(len(rows)) < 0.6)
    keep = keep if len(keep) else np.array([0])
    write_dataset(folder / "a.jsonl", "jsonl", keep, folder / "b.jsonl")
    assert [json.loads(line) for line in (folder / "b.jsonl").read_text().splitlines()] == [rows[i] for i in keep]
