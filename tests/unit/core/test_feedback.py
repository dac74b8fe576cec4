"""Preferences in the blob store."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.core.feedback import Comparison, FeedbackStore, RepeatedKeyError, read_comparisons
from models.core.inputs import InputError
from models.core.run import LocalRun
from models.core.store import BlobStore


def preference(owner="ada", **changes):
    return Comparison(**{"input": "a text", "candidates": ("one", "two"), "preferred": 1, "owner": owner} | changes)


@pytest.fixture
def feedback(tmp_path):
    return FeedbackStore(BlobStore(str(tmp_path)))


def test_what_is_kept_outlives_the_store_object(feedback, tmp_path):
    kept, created = feedback.add(preference(annotator="grace", confidence=9))
    assert created
    assert kept.id.startswith("cmp_")
    assert FeedbackStore(BlobStore(str(tmp_path))).list("ada") == [kept]


def test_owners_are_apart_and_everybody_is_all(feedback):
    mine, theirs = feedback.add(preference())[0], feedback.add(preference("bob"))[0]
    assert feedback.list("ada") == [mine]
    assert {item.id for item in feedback.list(None)} == {mine.id, theirs.id}
    assert feedback.list("nobody") == []


def test_a_key_keeps_one_and_refuses_another(feedback):
    first, _ = feedback.add(preference(), idempotency_key="k")
    assert feedback.add(preference(), idempotency_key="k") == (first, False)
    with pytest.raises(RepeatedKeyError):
        feedback.add(preference(preferred=0), idempotency_key="k")
    assert feedback.add(preference("bob"), idempotency_key="k")[1], "another owner's key is another key"
    assert len(feedback.list(None)) == 2


def test_many_writers_lose_nothing(feedback):
    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda i: feedback.add(preference(input=str(i)))[0].id, range(200)))
    assert len(set(kept)) == 200
    assert {item.id for item in feedback.list("ada")} == set(kept)


def test_an_export_is_what_a_local_run_reads(feedback, tmp_path):
    kept = [feedback.add(preference(input=f"line\n{i} \u2028 é"))[0] for i in range(3)]
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in feedback.export("ada")))
    assert LocalRun(tmp_path / "run", comparisons=path).comparisons() == kept
    assert LocalRun(tmp_path / "other").comparisons() == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2"),
        ('{"input": "x"}', "candidates"),
        (json.dumps(preference().model_dump() | {"preferred": 2}), "preferred"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{preference().model_dump_json()}\n{line}\n")
    with pytest.raises(InputError, match=reason):
        read_comparisons(path)
