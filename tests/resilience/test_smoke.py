"""The suite of ``make chaos`` itself: one kill under load, and a report that tells right from wrong."""

from dataclasses import replace

import pytest

from tests.resilience import kills
from tests.resilience.__main__ import one_stack
from tests.resilience.faults import Fault, explanation
from tests.resilience.load import Sample
from tests.resilience.parts import Victim


@pytest.mark.chaos
@pytest.mark.stack
@pytest.mark.timeout(240)
def test_a_killed_job_process_breaks_no_promise():
    with one_stack() as (stack, asked):
        outcome = kills.kill_one_role(stack, asked, "job process", 1)
    assert outcome.broken() == []
    assert outcome.right > 50
    assert outcome.audit.jobs > 0
    assert outcome.audit.uploads > 0
    (row,) = kills.report([outcome]).rows
    assert row[:2] == ["job process", "1"]
    wrong = replace(outcome.samples[0], outcome="wrong")
    assert len(replace(outcome, samples=[*outcome.samples, wrong]).broken()) == 1


@pytest.mark.parametrize(
    ("role", "sample", "expected"),
    [
        ("gateway", Sample("embeddings", 9, 10.5, "failed", "ReadError"), "in flight"),
        ("gateway", Sample("embeddings", 11, 11, "failed", "ConnectError"), "refused"),
        ("gateway", Sample("embeddings", 11, 12, "failed", "500"), "none"),
        ("gateway", Sample("embeddings", 31, 32, "failed", "ConnectError"), "none"),
        ("gateway", Sample("embeddings", 8, 9, "failed", "ReadError"), "none"),
        ("replica", Sample("embeddings", 9, 11, "failed", "503", True), "none"),
        ("Redis", Sample("job look", 11, 12, "failed", "503", True), "refused"),
        ("Redis", Sample("job look", 11, 12, "failed", "503", False), "none"),
        ("Redis", Sample("embeddings", 11, 12, "failed", "503", True), "none"),
    ],
)
def test_only_what_a_kill_explains_is_explained(role, sample, expected):
    fault = Fault(Victim(role, 1, at=10.0, gone_at=10.1, job=None), back_at=20.0)
    assert explanation(sample, [fault]) == expected
