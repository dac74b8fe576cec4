"""The janitor repairs what a crash left between two writes. Real Valkey, no worker unless a test starts one."""

import os
import time

import pytest

from workers.connect import prompt
from workers.janitor import LOCK, Janitor
from workers.records import Records


@pytest.fixture
def records(stack):
    return Records(stack.redis)


@pytest.fixture
def janitor(stack, records):
    return Janitor(stack.settings, records, prompt(stack.settings.redis_url), stack.store)


@pytest.fixture
def hurry(monkeypatch):
    """Let time pass for the janitor, not for the test."""
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr("workers.janitor.time.monotonic", lambda: real() + ahead[0])

    def pass_time(seconds):
        ahead[0] += seconds

    return pass_time


def begin(stack, records, job_id, attempt="first"):
    stack.redis.lrem("rq:queue:jobs", 0, job_id)
    stack.redis.hset(f"rq:job:{job_id}", "status", "started")
    stack.redis.zadd("rq:wip:jobs", {f"{job_id}:{attempt}": time.time() + 60})
    assert records.begin(job_id, attempt, "worker") == 1


def test_a_job_recorded_but_never_queued_is_queued(stack, janitor, hurry):
    job = stack.submit("steps", priority="high")
    stack.redis.delete(f"rq:job:{job.id}", "rq:queue:jobs")
    janitor.once()
    assert stack.redis.llen("rq:queue:jobs") == 0, "not at first sight"
    hurry(100)
    janitor.once()
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [job.id]
    hurry(100)
    janitor.once()
    assert stack.redis.llen("rq:queue:jobs") == 1


def test_a_job_that_the_queue_lost_is_put_back(stack, records, janitor, hurry):
    waiting, running = stack.submit("steps"), stack.submit("steps")
    begin(stack, records, running.id)
    stack.redis.delete("rq:queue:jobs", "rq:wip:jobs")
    janitor.once()
    hurry(100)
    janitor.once()
    assert sorted(stack.redis.lrange("rq:queue:jobs", 0, -1)) == sorted([waiting.id, running.id])
    assert stack.get(running.id).status == "queued"
    assert records.write(running.id, "first", {}, []) == 0, "the lost run may not write any more"


def test_a_healthy_job_is_left_alone(stack, records, janitor, hurry):
    waiting, taken, running = (stack.submit("steps") for _ in range(3))
    stack.redis.lmove("rq:queue:jobs", "rq:queue:jobs:intermediate", "LEFT", "RIGHT")
    begin(stack, records, running.id)
    before = [stack.get(job.id) for job in (waiting, taken, running)]
    for _ in range(3):
        janitor.once()
        hurry(1000)
    assert [stack.get(job.id) for job in (waiting, taken, running)] == before
    assert stack.redis.llen("rq:queue:jobs") == 1


def test_a_job_lost_for_the_third_time_fails(stack, records, janitor, hurry):
    job = stack.submit("steps")
    for attempt in ("one", "two", "three"):
        begin(stack, records, job.id, attempt)
    stack.redis.delete("rq:wip:jobs")
    janitor.once()
    hurry(100)
    janitor.once()
    record = stack.get(job.id)
    assert (record.status, record.attempts) == ("failed", 3)
    assert "3 runs" in record.error["detail"]


@pytest.mark.parametrize(
    ("verdict", "status"), [("failed", "failed"), ("stopped", "cancelled"), ("canceled", "cancelled")]
)
def test_the_queues_verdict_is_copied(stack, records, janitor, verdict, status):
    job = stack.submit("steps")
    begin(stack, records, job.id)
    stack.redis.hset(f"rq:job:{job.id}", "status", verdict)
    janitor.once()
    assert stack.get(job.id).status == status


def test_a_run_that_died_shows_as_waiting(stack, records, janitor):
    job = stack.submit("steps")
    begin(stack, records, job.id)
    stack.redis.hset(f"rq:job:{job.id}", "status", "queued")
    janitor.once()
    record = stack.get(job.id)
    assert (record.status, record.attempts) == ("queued", 1)


def test_a_cancelled_job_without_a_worker_is_closed(stack, records, janitor, monkeypatch):
    job = stack.submit("steps")
    begin(stack, records, job.id)
    stack.run(stack.client.cancel(job.id))
    janitor.once()
    assert stack.get(job.id).status == "running", "its worker has three seconds"
    monkeypatch.setattr("workers.janitor.CANCEL_S", 0.0)
    janitor.once()
    assert stack.get(job.id).status == "cancelled"


def test_retention_removes_record_events_log_and_blobs(stack, records, janitor):
    kept, old = stack.submit("steps", "anna"), stack.submit("steps", "anna")
    for job in (kept, old):
        begin(stack, records, job.id)
        records.write(job.id, "first", {}, [("log", {"message": "hello"})])
        stack.store.put(f"jobs/{job.id}/first/result.json", b"{}")
        records.close(job.id, "first", "succeeded", {"result_key": f"jobs/{job.id}/first/result.json"})
    stack.redis.zadd("dn:closed", {old.id: time.time() - stack.settings.job_retention_s - 1})
    janitor.once()
    assert stack.get(old.id) is None
    assert not stack.store.keys(f"jobs/{old.id}")
    assert not [key for key in stack.redis.keys("dn:*") if old.id in key]
    assert stack.get(kept.id).status == "succeeded"
    assert [record.id for record in stack.run(stack.client.list("anna"))[0]] == [kept.id]
    assert stack.run(stack.client.stats()).jobs == {("steps", "succeeded"): 1}


def test_folders_of_dead_runs_are_removed(stack, records, janitor):
    job = stack.submit("steps")
    begin(stack, records, job.id, "alive")
    scratch = stack.home / "scratch"
    for name in (f"{job.id}.alive", f"{job.id}.dead", f"{job.id}.fresh"):
        (scratch / name).mkdir(parents=True)
        if not name.endswith("fresh"):
            os.utime(scratch / name, (1, 1))
    janitor.once()
    assert sorted(path.suffix for path in scratch.iterdir()) == [".alive", ".fresh"]


def test_two_janitors_do_not_work_at_once(stack, janitor, hurry):
    job = stack.submit("steps")
    stack.redis.delete(f"rq:job:{job.id}", "rq:queue:jobs")
    stack.redis.set(LOCK, "another", ex=15)
    janitor.once()
    hurry(100)
    janitor.once()
    assert stack.redis.llen("rq:queue:jobs") == 0
    assert stack.redis.get(LOCK) == "another"


def test_a_run_that_begins_while_the_janitor_looks_is_left_alone(stack, records, janitor, monkeypatch):
    job = stack.submit("steps")
    begin(stack, records, job.id, "first")
    stack.redis.hset(f"rq:job:{job.id}", "status", "queued")  # the first run has died
    real = records.get_many

    def then_the_second_begins(ids):
        found = real(ids)
        begin(stack, records, job.id, "second")
        return found

    monkeypatch.setattr(records, "get_many", then_the_second_begins)
    janitor.once()
    monkeypatch.undo()
    record = stack.get(job.id)
    assert (record.status, record.attempt) == ("running", "second")
    assert records.write(job.id, "second", {}, []) == 1


def test_a_pass_reads_the_queue_once_however_many_jobs_wait(stack, janitor):
    for number in range(30):
        stack.submit("steps", owner=f"owner-{number}")
    stack.redis.config_resetstat()
    janitor.once()
    calls = {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stack.redis.info("commandstats").items()}
    assert calls["lrange"] == 2
    assert "lpos" not in calls
    assert "zscan" not in calls
