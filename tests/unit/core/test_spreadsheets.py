import csv

import pyarrow as pa
import pytest

from models.core.spreadsheets import neutralise, write_csv


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\t=1", "  =1", "\n=1", "\r=1", "-inf", "+nan"]
)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert neutralise(text) == "'" + text


@pytest.mark.parametrize("text", ["", "shirt", "-3.5", "+4", "1e-3", "'=1", "a=b"])
def test_other_texts_and_numbers_stay(text):
    assert neutralise(text) == text


def test_a_table_keeps_its_numbers_and_gaps(tmp_path):
    table = pa.table({"label": ["=1", None, "coat"], "margin": [-1.5, 2.0, None]})
    write_csv(table, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert rows == [
        {"label": "'=1", "margin": "-1.5"},
        {"label": "", "margin": "2"},
        {"label": "coat", "margin": ""},
    ]
