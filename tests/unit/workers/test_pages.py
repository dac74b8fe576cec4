"""The long list of a result, by pages."""

import json

import numpy as np
import pytest

from models.core.card import JobKind
from models.core.store import BlobStore
from workers.pages import INDEX, ROWS, read_page, split_pages

KIND = JobKind(
    kind="listing", title="", parameters="P", run="m:f", page="rows", filters={"class": "label", "odd": "odd"}
)
NAMES = ("Coat", "Ünïcode 靴", "a\nb", "")


@pytest.fixture(scope="module", params=["file", "memory"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return BlobStore(str(folder) if request.param == "file" else f"memory://{folder.name}")


def stored(store, items):
    rest, pages = split_pages({"total": len(items), "rows": items, "after": 1}, KIND)
    assert json.dumps(rest) == json.dumps({"total": len(items), "rows": None, "after": 1})
    store.put(f"jobs/x/{ROWS}", pages.rows)
    store.put(f"jobs/x/{INDEX}", pages.index)


def test_every_page_is_the_slice_of_the_filtered_list(store):
    rng = np.random.default_rng(0)
    items = [
        {"index": n, "label": NAMES[rng.integers(4)], "odd": bool(n % 2), "text": "x" * int(rng.integers(50))}
        for n in range(300)
    ]
    stored(store, items)
    for wanted in ({}, {"class": "coat"}, {"class": NAMES[1]}, {"class": NAMES[2], "odd": "TRUE"}, {"class": "none"}):
        kept = [
            item
            for item in items
            if wanted.get("class", item["label"]).lower() == item["label"].lower()
            and wanted.get("odd", str(item["odd"])).lower() == str(item["odd"]).lower()
        ]
        for offset, limit in ((0, 1), (0, 1000), (7, 5), (len(kept) - 1, 2), (len(kept), 3), (10_000, 1)):
            if offset < 0:
                continue
            expected = kept[offset : offset + limit], offset + limit < len(kept)
            assert read_page(store, "jobs/x", wanted, offset, limit) == expected


def test_a_page_reads_its_own_rows_only(store):
    stored(store, [{"label": "a", "odd": False, "n": n} for n in range(1000)])
    whole = store.get(f"jobs/x/{ROWS}")
    begin = whole.index(b'"n": 500}')
    line = whole.rindex(b"\n", 0, begin) + 1
    store.put(f"jobs/x/{ROWS}", b"\0" * line + whole[line : begin + 10] + b"\0" * (len(whole) - begin - 10))
    assert read_page(store, "jobs/x", {}, 500, 1) == ([{"label": "a", "odd": False, "n": 500}], True)


def test_an_empty_list_and_results_without_one(store):
    stored(store, [])
    assert read_page(store, "jobs/x", {"class": "a"}, 0, 10) == ([], False)
    for result, kind in (({"rows": "none"}, KIND), ({"total": 0}, KIND), ({"rows": [1]}, None)):
        assert split_pages(result, kind) == (result, None)


def test_what_is_not_json_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        split_pages({"rows": [{"n": float("nan")}]}, KIND)
