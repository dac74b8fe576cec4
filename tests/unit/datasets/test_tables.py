"""Parquet, CSV and JSON Lines: columns found by name and type, and the row that is wrong."""

import base64
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.core.datasets import DatasetError, Limits
from tests.unit.datasets.conftest import png


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        return tmp_path / "a.csv"

    return write


@pytest.fixture
def jsonl(tmp_path):
    def write(*rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path / "a.jsonl"

    return write


@pytest.fixture
def parquet(tmp_path):
    def write(columns, **options):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write


def refused(read, path, **options):
    with pytest.raises(DatasetError) as caught:
        read(path, **options)
    return caught.value


def test_csv_labels_stay_as_written(csv, read):
    dataset = read(csv("label,a,b\n007,1,2\nNA,3,4\nnull,5,6\n")).dataset
    assert dataset.class_names == ["007", "NA", "null"]
    assert dataset.inputs.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_csv_other_names_of_labels_are_features_beside_the_label(csv, read):
    for options in ({}, {"label": "label"}):
        dataset = read(csv("x,y,label\n1,2,a\n3,4,b\n"), **options).dataset
        assert dataset.inputs.tolist() == [[1, 2], [3, 4]]
        assert dataset.class_names == ["a", "b"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_delimiters_and_byte_order_mark(csv, read, delimiter, mark):
    dataset = read(csv(mark + "a|y|b\n1|u|2.5\n3|v|-4e1\n".replace("|", delimiter))).dataset
    assert dataset.inputs.tolist() == [[1, 2.5], [3, -40]]
    assert dataset.class_names == ["u", "v"]


def test_csv_quoted_line_breaks_and_quotes(csv, read):
    dataset = read(csv('text,label\n"a\nb, c",x\n"say ""hi""",y\n5" disk,x\n')).dataset
    assert dataset.inputs == ["a\nb, c", 'say "hi"', '5" disk']
    assert dataset.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "row", "reason"),
    [
        ("a,b\n1,2\n3,4\n5\n", 2, "Expected 2 columns, got 1"),
        ("a,b\n1,2\n3,4,5\n", 1, "Expected 2 columns, got 3"),
        ("a,b\n1,2\nx,4\n5,6\n", 1, "'x' is not a number"),
        ("a,b\n1,2\n,4\n", 1, "column 'a': the number is missing"),
        ("a,b\n1,2\ninf,4\n", 1, "column 'a': NaN"),
        ("a,label\n1,u\n2,\n3,v\n4,\n", 1, r"the label is missing \(2 of 4 rows have none\)"),
        ("a,b\n", None, "no rows"),
        ("a,a\n1,2\n", None, "'a' is there twice"),
        ("\n1,2\n", None, "not a header"),
    ],
)
def test_csv_mistakes_are_named_with_their_row(csv, read, text, row, reason):
    error = refused(read, csv(text))
    assert error.row == row
    assert re.search(reason, str(error)), str(error)


def test_csv_that_is_not_utf8(csv, read):
    assert "UTF-8" in str(refused(read, csv("text,label\ncafé,x\nthé,y\n", "latin-1"), text="text"))
    assert "UTF-8" in str(refused(read, csv("té,label\na,x\n", "latin-1")))


def test_named_columns_must_exist_and_fit(csv, read):
    path = csv("a,b,c,words\n1,2,u,hello\n3,4,v,you\n")
    assert read(path, label="c", features=["b"]).dataset.inputs.tolist() == [[2], [4]]
    assert refused(read, path, label="d").field == "/options/label"
    assert refused(read, path, features=["a", "d"]).field == "/options/features"
    assert refused(read, path, features=["words"]).row == 0
    assert refused(read, path, label="a", features=["a"]).field == "/options"


def test_what_is_not_used_is_said(csv, read):
    assert "columns not used: 'note'" in read(csv("a,note,y\n1,hello,u\n2,you,v\n")).warnings


def test_texts_must_be_named_where_several_columns_could_be_meant(csv, read):
    path = csv("question,answer,y\nhow,so,u\nwhy,thus,v\n")
    error = refused(read, path)
    assert error.field == "/options/text"
    assert "'question', 'answer'" in str(error)
    assert read(path, text="answer").dataset.inputs == ["so", "thus"]
    pairs = read(path, text="question", text_pair="answer").dataset
    assert pairs.kind == "pairs"
    assert pairs.inputs == [("how", "so"), ("why", "thus")]


def test_jsonl_vectors_pairs_and_pictures(jsonl, read):
    rows = [{"features": [i, i + 0.5], "label": i % 2, "id": f"s{i}"} for i in range(4)]
    dataset = read(jsonl(*rows)).dataset
    assert dataset.inputs.tolist() == [row["features"] for row in rows]
    assert dataset.sample_ids == ["s0", "s1", "s2", "s3"]
    pairs = read(jsonl({"document": "a b", "summary": "a"}, {"document": "c", "summary": "c"})).dataset
    assert pairs.kind == "pairs"
    raw = png((4, 5, 3))
    encoded = base64.b64encode(raw).decode()
    forms = [encoded, f"data:image/png;base64,{encoded}"]
    for form in forms:
        assert read(jsonl({"image": form})).dataset.inputs.shape == (1, 4, 5, 3)
    pictures = read(jsonl({"image": {"data": encoded}}, {"image": {"data": encoded}})).dataset
    assert np.array_equal(pictures.inputs[0], pictures.inputs[1])
    nested = read(jsonl({"image": [[0, 255], [7, 8]]})).dataset
    assert nested.inputs[0, :, :, 0].tolist() == [[0, 255], [7, 8]]


@pytest.mark.parametrize(
    ("rows", "row", "reason"),
    [
        (['{"a": 1}', '{"a": 1'], 1, "not JSON"),
        (['{"a": 1}', "", '{"a": NaN}'], 1, "not JSON"),
        (['{"a": 1}', "[1]"], 1, "a JSON object is expected"),
        ([{"a": 1}, {"a": 2}, {"a": "three"}], 2, "column 'a'"),
        ([{"a": 1}, {"b": 2}], 1, "column 'a': the number is missing"),
        ([{"x": [1, 2]}, {"x": [1, 2]}, {"x": [1]}], 2, "1 numbers, row 0 has 2"),
        ([{"x": [1, 2]}, {"x": [1, None]}], 1, "a number is missing"),
        ([{"text": "a"}, {"text": None}], 1, "the text is missing"),
        ([{"image": "AAAA"}], 0, "none of PNG, JPEG and WebP"),
        ([{"image": "***"}], 0, "not valid base64"),
        ([{"image": [[1, 2], [3]]}], 0, "different lengths"),
        ([{"image": [[1, 300]]}], 0, "outside 0..255"),
        ([{"a": 10**400}], 0, "."),
    ],
)
def test_jsonl_mistakes_are_named_with_their_row(jsonl, read, rows, row, reason):
    error = refused(read, jsonl(*rows))
    assert error.row == row
    assert re.search(reason, str(error)), str(error)


def test_jsonl_rows_beyond_one_batch_keep_their_numbers(jsonl, read):
    rows = [{"a": i} for i in range(10_000)]
    assert read(jsonl(*rows)).dataset.inputs[:, 0].tolist() == list(range(10_000))
    rows[9_000] = {"a": "x"}
    assert refused(read, jsonl(*rows)).row == 9_000


def test_parquet_types(parquet, read):
    dataset = read(
        parquet({"v": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)), "y": ["b", "a"]})
    ).dataset
    assert dataset.inputs.tolist() == [[1, 2], [3, 4]]
    assert dataset.class_names == ["a", "b"]
    coded = pa.array(["u", "v", "u"]).dictionary_encode()
    dataset = read(parquet({"y": coded, "p": pa.array([1, 2, 3], pa.int8()), "q": [True, False, True]})).dataset
    assert dataset.inputs.tolist() == [[1, 1], [2, 0], [3, 1]]
    assert dataset.labels.tolist() == [0, 1, 0]
    dataset = read(parquet({"image": [png(), png(seed=1)], "label": [3, 5]}, row_group_size=1)).dataset
    assert dataset.inputs.shape == (2, 4, 5, 3)
    assert dataset.class_names == ["3", "5"]


def test_parquet_mistakes(parquet, read, tmp_path):
    assert refused(read, parquet({"image": [png(), b"GIF89a", png()]})).row == 1
    assert refused(read, parquet({"image": [png(), png()[:60]]})).row == 1
    assert refused(read, parquet({"a": [1.0, float("nan")], "y": [0, 1]})).row == 1
    (tmp_path / "b.parquet").write_bytes(b"PAR1 this is not")
    assert "cannot be read" in str(refused(read, tmp_path / "b.parquet"))
    (tmp_path / "empty.parquet").write_bytes(b"")
    assert "empty" in str(refused(read, tmp_path / "empty.parquet"))


@pytest.mark.parametrize("store_schema", [False, True])
def test_one_long_value_that_a_dictionary_repeats_is_stopped(parquet, read, store_schema):
    """Half a terabyte from less than a megabyte, whether or not the column is read as a dictionary."""
    repeated = pa.DictionaryArray.from_arrays(np.zeros(500_000, np.int32), ["x" * 1_000_000])
    path = parquet({"text": repeated}, store_schema=store_schema)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(DatasetError, match="decompressed"):
        read(path, Limits(decompressed_bytes=64 << 20))


def test_text_and_pixel_limits_name_the_row(parquet, jsonl, read):
    with pytest.raises(DatasetError, match="more than 10 characters") as caught:
        read(jsonl({"text": "short"}, {"text": "x" * 11}), Limits(text_characters=10))
    assert caught.value.row == 1
    with pytest.raises(DatasetError, match="5 x 4 pixels") as caught:
        read(parquet({"image": [png((2, 2, 3)), png()]}), Limits(pixels=10))
    assert caught.value.row == 1


def test_class_names_fix_the_order(csv, read):
    dataset = read(csv("a,y\n1,0\n2,2\n"), class_names=["cat", "dog", "eel"]).dataset
    assert dataset.labels.tolist() == [0, 2]
    assert dataset.class_names == ["cat", "dog", "eel"]
    dataset = read(csv("a,y\n1,dog\n2,cat\n"), class_names=["dog", "cat"]).dataset
    assert dataset.labels.tolist() == [0, 1]
    assert refused(read, csv("a,y\n1,dog\n2,eel\n"), class_names=["dog", "cat"]).row == 1


def test_no_labels_at_all_is_a_warning(csv, read):
    parsed = read(csv("a,label\n1,\n2,\n"))
    assert parsed.dataset.labels is None
    assert any("no labels" in warning for warning in parsed.warnings)
