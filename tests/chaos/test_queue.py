"""What the queue promises while processes are killed: real Valkey, real workers, kill -9."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter

import pytest

from models.core.versions import Versions
from tests.unit.workers.stack import RECOVERY_S, Stack, children, gone, kill, read_trace
from workers.client import JobSpec
from workers.records import TERMINAL

pytestmark = pytest.mark.chaos


@pytest.fixture
def trace(home):
    return home / "trace"


def kill_server(stack):
    os.kill(stack.valkey.pid, signal.SIGKILL)
    while stack.valkey.running():
        time.sleep(0.01)


def only_child(worker):
    (horse,) = children(worker.pid)
    return horse


def test_a_worker_killed_three_times_means_three_runs_and_then_failed(stack, trace):
    workers = [stack.start_worker() for _ in range(2)]
    stack.wait_for_workers(2)
    job = stack.submit("steps", parameters={"steps": 10_000, "pause": 0.1, "trace": str(trace)})
    for run in (1, 2, 3):
        stack.wait_for_trace(trace, "start", run, RECOVERY_S + 15)
        first = read_trace(trace, "start")[-1][1]
        stack.until(
            lambda first=first: (first + 3) in (n for _, n in read_trace(trace, "step")), 10, "three steps more"
        )
        assert _running(stack, job.id).attempts == run
        (busy,) = [worker for worker in workers if children(worker.pid)]
        horse = only_child(busy)
        killed = time.monotonic()
        kill(busy)
        stack.until(lambda horse=horse: gone(horse), 1, "end of the job's process")
        workers.remove(busy)
        workers.append(stack.start_worker())
        if run < 3:
            stack.wait_for_trace(trace, "start", run + 1, RECOVERY_S)
            assert time.monotonic() - killed < RECOVERY_S
    record = stack.wait(job.id, RECOVERY_S)
    assert time.monotonic() - killed < RECOVERY_S
    assert (record.status, record.attempts) == ("failed", 3)
    assert record.error["type"] == "urn:deepnight:problem:job-lost"
    starts = read_trace(trace, "start")
    assert len(starts) == 3
    steps = [number for _, number in read_trace(trace, "step")]
    for (_, resumed), (_, before) in zip(starts[1:], starts, strict=False):
        assert resumed > before + 1, "each run went on from the last checkpoint"
    assert steps == sorted(steps)
    assert len(steps) - len(set(steps)) <= 2, "at most the step that was cut off is done again"


def test_a_stopped_worker_comes_back_to_a_job_that_is_another_workers(stack, trace):
    first = stack.start_worker()
    stack.wait_for_workers(1)
    job = stack.submit("steps", parameters={"steps": 40, "pause": 0.15, "trace": str(trace)})
    stack.wait_for_trace(trace, "step", 3)
    old = only_child(first)
    first.send_signal(signal.SIGSTOP)  # its job process goes on: two processes believe in the job
    stack.start_worker()
    stack.wait_for_trace(trace, "start", 2, RECOVERY_S + 5)
    stack.until(lambda: gone(old), 3, "end of the process that lost the job")
    first.send_signal(signal.SIGCONT)
    record = stack.wait(job.id, 60)
    assert (record.status, record.attempts) == ("succeeded", 2)
    assert len(read_trace(trace, "start")) == 2
    assert len(read_trace(trace, "end")) == 1
    time.sleep(2)
    assert first.poll() is None
    assert stack.get(job.id) == record, "the worker that was stopped touched nothing"


def test_an_accepted_job_is_on_disk(stack):
    accepted = [stack.submit("outcome", parameters={"how": "user-error"}).id for _ in range(10)]
    kill_server(stack)
    stack.valkey.start()
    assert [record.id for record in stack.run(stack.client.list(None))[0]] == accepted[::-1]
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == accepted
    stack.start_worker()
    assert stack.wait(accepted[0]).status == "failed"


def test_cancel_ends_native_code_within_a_second(stack, trace):
    worker = stack.start_worker()
    job = stack.submit("native", parameters={"rounds": 400_000_000, "trace": str(trace)})
    stack.wait_for_trace(trace, "start", 1)
    horse = only_child(worker)
    asked = time.monotonic()
    stack.run(stack.client.cancel(job.id))
    stack.until(lambda: gone(horse), 3, "end of the process")
    assert time.monotonic() - asked < 1.0
    record = stack.wait(job.id, 5)
    assert time.monotonic() - asked < 5.0
    assert (record.status, record.attempts) == ("cancelled", 1)
    assert stack.redis.llen("rq:queue:jobs") == 0


def test_cancel_works_when_the_workers_message_is_lost(stack, trace):
    worker = stack.start_worker()
    job = stack.submit("native", parameters={"rounds": 400_000_000, "trace": str(trace)})
    stack.wait_for_trace(trace, "start", 1)
    horse = only_child(worker)
    stack.redis.hset(f"dn:job:{job.id}", "cancel", time.time())
    stack.until(lambda: gone(horse), 3, "end of the process")
    assert stack.wait(job.id, 2).status == "cancelled"


def test_time_out_ends_native_code(home, trace):
    stack = Stack(home, job_timeout_s=3)
    try:
        worker = stack.start_worker()
        job = stack.submit("native", parameters={"rounds": 400_000_000, "trace": str(trace)})
        stack.wait_for_trace(trace, "start", 1)
        horse = only_child(worker)
        started = time.monotonic()
        stack.until(lambda: gone(horse), 9, "end of the process")
        assert time.monotonic() - started < 9
        record = stack.wait(job.id, 3)
        assert (record.status, record.attempts) == ("failed", 1)
        assert record.error["type"] == "urn:deepnight:problem:job-timeout"
        slow = stack.submit("steps", parameters={"steps": 1000, "pause": 0.1})
        record = stack.wait(slow.id, 20)
        assert record.error["type"] == "urn:deepnight:problem:job-timeout"
        assert record.finished_at - record.started_at < 5, "Python code ends on time"
    finally:
        stack.close()


def test_redis_away_loses_nothing_while_busy_and_while_idle(stack, trace):
    worker = stack.start_worker()
    stack.wait_for_workers(1)
    job = stack.submit("talk", parameters={"lines": 45, "pause": 0.2})
    stack.until(lambda: _running(stack, job.id), 20, "running record")
    time.sleep(1)
    kill_server(stack)
    time.sleep(5)
    stack.valkey.start()
    record = stack.wait(job.id, 40)
    assert (record.status, record.attempts) == ("succeeded", 1)
    assert record.log_tail == [f"line {number}" for number in range(45)]
    kill_server(stack)
    time.sleep(3)
    stack.valkey.start()
    after = stack.wait(stack.submit("steps", parameters={"steps": 2}).id, 20)
    assert (after.status, after.attempts) == ("succeeded", 1)
    assert worker.poll() is None


def test_fifty_submissions_with_one_key_run_once(stack, trace):
    stack.start_worker()
    spec = JobSpec(kind="steps", parameters={"steps": 2, "trace": str(trace)})

    async def all_at_once():
        return await asyncio.gather(*(stack.client.submit(spec, "", idempotency_key="key") for _ in range(50)))

    (job_id,) = {record.id for record, _ in stack.run(all_at_once())}
    stack.wait(job_id)
    time.sleep(2)
    assert len(read_trace(trace, "start")) == 1
    assert stack.redis.zcard("dn:jobs") == 1


def test_training_resumes_with_the_weights_of_an_undisturbed_run(stack, home):
    versions = Versions(stack.registry, stack.store, home / "cache" / "versions")
    dataset = stack.vectors()
    workers = [stack.start_worker()]

    def train(name, trace):
        parameters = {"epochs": 6, "pause": 0.3, "version": name, "trace": str(trace)}
        return stack.submit("train", model="test-steps", dataset=dataset.id, parameters=parameters, seed=3)

    calm = stack.wait(train("calm", home / "calm").id)
    disturbed = train("disturbed", home / "disturbed")
    stack.wait_for_trace(home / "disturbed", "step", 4)
    kill(workers[0])
    stack.start_worker()
    record = stack.wait(disturbed.id, 60)
    assert (calm.attempts, record.attempts, record.status) == (1, 2, "succeeded")
    starts = read_trace(home / "disturbed", "start")
    assert starts[1][1] >= 3, "the second run began at the last checkpoint"
    names = ("test-steps@calm", "test-steps@disturbed")
    hashes = {versions.checkpoint(versions.resolve(name)).config.weights_sha256 for name in names}
    assert len(hashes) == 1
    curves = [json.loads(stack.store.get(job.result_key))["curves"] for job in (calm, record)]
    assert curves[0] == curves[1]


def test_a_lock_left_by_a_worker_that_died_while_cleaning_only_delays(stack, trace):
    stack.redis.set("rq:clean_registries:jobs", 1, ex=30)
    assert stack.redis.ttl("rq:clean_registries:jobs") <= 30
    worker = stack.start_worker()
    job = stack.submit("steps", parameters={"steps": 40, "pause": 0.1, "trace": str(trace)})
    stack.wait_for_trace(trace, "step", 2)
    kill(worker)
    stack.start_worker()
    stack.redis.expire("rq:clean_registries:jobs", 5)
    record = stack.wait(job.id, 45)
    assert (record.status, record.attempts) == ("succeeded", 2)


def test_sigterm_waits_for_a_short_job_and_hands_over_a_long_one(stack, trace):
    patient, hasty = stack.start_worker(drain_s=20.0), None
    short = stack.submit("steps", parameters={"steps": 20, "pause": 0.1, "trace": str(trace)})
    stack.wait_for_trace(trace, "start", 1)
    patient.terminate()
    assert patient.wait(15) == 0
    assert stack.get(short.id).status == "succeeded"
    hasty = stack.start_worker(drain_s=0.0)
    long = stack.submit("steps", parameters={"steps": 30, "pause": 0.1, "trace": str(trace)})
    stack.wait_for_trace(trace, "start", 2)
    horse = only_child(hasty)
    hasty.terminate()
    assert hasty.wait(5) == 0
    assert gone(horse)
    assert not list((stack.home / "scratch").iterdir())
    stack.start_worker()
    record = stack.wait(long.id, 40)
    assert (record.status, record.attempts) == ("succeeded", 2)


def test_a_job_taken_by_a_worker_that_died_before_it_began_is_run(stack, trace):
    job = stack.submit("steps", parameters={"steps": 2, "trace": str(trace)})
    stack.redis.lmove("rq:queue:jobs", "rq:queue:jobs:intermediate", "LEFT", "RIGHT")
    stack.start_worker()
    record = stack.wait(job.id, 25)
    assert (record.status, record.attempts) == ("succeeded", 1)


def test_random_kills_lose_nothing_and_repeat_nothing(stack, home):
    """Two workers, a kill -9 of one of them every few seconds for 24 s, ten jobs with a checkpoint each step."""
    rng = random.Random(5)
    jobs = {}
    for number in range(10):
        trace = home / f"trace-{number}"
        job = stack.submit("steps", parameters={"steps": 12, "pause": 0.12, "trace": str(trace)})
        jobs[job.id] = trace
    workers = [stack.start_worker() for _ in range(2)]
    kills, end = 0, time.monotonic() + 24
    while time.monotonic() < end:
        time.sleep(rng.uniform(3.5, 6.5))
        victim = rng.choice(workers)
        kill(victim)
        kills += 1
        workers.remove(victim)
        workers.append(stack.start_worker())
    records = [stack.wait(job_id, 90) for job_id in jobs]
    assert kills >= 4
    assert Counter(record.status for record in records) == {"succeeded": 10}
    assert max(record.attempts for record in records) <= 3
    for record in records:
        trace = jobs[record.id]
        # A run that is killed after its last step and before its result is stored ends a second time, from there.
        assert 1 <= len(read_trace(trace, "end")) <= record.attempts
        events = [(e["event"], json.loads(e["data"])) for _, e in stack.redis.xrange(f"dn:events:{record.id}")]
        final = [data["status"] for name, data in events if name == "status" and data["status"] in TERMINAL]
        assert final == ["succeeded"], "one end for all who follow"
        steps = [data["step"] for name, data in events if name == "metric"]
        assert sorted(set(steps)) == list(range(12)), "no step is missing"
        done = Counter(number for _, number in read_trace(trace, "step"))
        repeated = sum(count - 1 for count in done.values())
        assert repeated <= record.attempts - 1, "at most the step that was cut off is done again"
    stats = stack.run(stack.client.stats())
    assert stats.jobs == {("steps", "succeeded"): 10}
    assert stack.redis.zcard("dn:open") == stack.redis.zcard("dn:queued") == 0


def _running(stack, job_id):
    record = stack.get(job_id)
    return record if record.status == "running" else None
