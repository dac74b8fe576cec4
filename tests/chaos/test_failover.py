"""Sentinels make a replica the master while a job runs and others are submitted: real servers, kill -9."""

import json
import re
import signal
import time

import pytest

from tests.redis_servers import Watched
from tests.unit.workers.stack import Stack, kill, read_trace
from workers.errors import QueueUnavailableError

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
failover = pytest.mark.failover  # the others take seconds

FAILOVER_S = 20.0


@pytest.fixture
def watched(tmp_path):
    running = Watched(tmp_path)
    yield running
    running.close()


@pytest.fixture
def queue(watched, home):
    stack = Stack(home, redis_url=watched.url)
    yield stack
    stack.close()


def accepted(queue, seconds=FAILOVER_S):
    """The id of a job that was submitted as soon as the queue takes one, and how long that took."""
    started = time.monotonic()
    while True:
        try:
            return queue.submit("steps", parameters={"steps": 2}).id, time.monotonic() - started
        except QueueUnavailableError:
            assert time.monotonic() - started < seconds, queue.logs()
            time.sleep(0.1)


def succeeded(queue, job, runs=1):
    record = queue.wait(job, 60)
    assert (record.status, record.attempts <= runs) == ("succeeded", True), f"{record}\n{queue.logs()}"


def steps(queue, job):
    """The steps that the job's events tell of."""
    events = [fields for _, fields in queue.redis.xrange(f"dn:events:{job}") if fields["event"] == "metric"]
    return [json.loads(fields["data"])["step"] for fields in events]


@failover
def test_a_killed_master_loses_no_job_that_was_replicated(watched, queue, home, record_property):
    queue.start_worker()
    queue.wait_for_workers(1)
    long = queue.submit("steps", parameters={"steps": 100, "pause": 0.1, "trace": str(home / "trace")}).id
    waiting = [queue.submit("steps", owner=f"owner-{n}", parameters={"steps": 1}).id for n in range(4)]
    queue.wait_for_trace(home / "trace", "step", 10)
    watched.in_step()
    old = watched.master()
    watched.servers[old].kill()
    later, took = accepted(queue)
    assert watched.master() != old
    record_property("seconds_without_a_master", round(took, 1))
    assert {queue.get(job).id for job in waiting} == set(waiting)
    succeeded(queue, long)
    assert steps(queue, long) == list(range(100)), "what was reported meanwhile came after, once"
    for job in (*waiting, later):
        succeeded(queue, job)
    watched.servers[old].start()
    watched.in_step()
    assert queue.redis.zcard("dn:open") == 0


@failover
def test_a_master_that_becomes_a_replica_is_left_for_the_new_one(watched, queue, home):
    """The old master took writes for a moment after the other one was promoted; those are lost, the job is not."""
    worker = queue.start_worker()
    queue.wait_for_workers(1)
    watched.in_step()
    long = queue.submit("steps", parameters={"steps": 80, "pause": 0.1, "trace": str(home / "trace")}).id
    queue.wait_for_trace(home / "trace", "step", 10)
    watched.fail_over()
    later, _ = accepted(queue)
    succeeded(queue, long, runs=2)
    assert {number for _, number in read_trace(home / "trace", "step")} == set(range(80))
    succeeded(queue, later)
    cancelled = queue.submit("steps", parameters={"steps": 1000, "pause": 0.1, "trace": str(home / "other")}).id
    queue.wait_for_trace(home / "other", "step", 2)
    queue.run(queue.client.cancel(cancelled))
    assert queue.wait(cancelled, 10).status == "cancelled"
    assert worker.poll() is None


@failover
def test_a_master_without_its_replica_accepts_nothing_where_it_is_told_so(tmp_path, home):
    watched = Watched(tmp_path, "min-replicas-to-write 1", "min-replicas-max-lag 2")
    queue = Stack(home, redis_url=watched.url)
    try:
        queue.start_worker()
        queue.wait_for_workers(1)
        long = queue.submit("steps", parameters={"steps": 100, "pause": 0.1, "trace": str(home / "trace")}).id
        queue.wait_for_trace(home / "trace", "step", 5)
        replica = watched.servers[watched.replica()]
        replica.process.send_signal(signal.SIGSTOP)

        def refused():
            try:
                queue.submit("steps", owner=f"owner-{time.monotonic()}", parameters={"steps": 1})
            except QueueUnavailableError:
                return True
            return False

        queue.until(lambda: refused() or time.sleep(0.5), 15, "refusal")
        time.sleep(4)
        replica.process.send_signal(signal.SIGCONT)
        later, _ = accepted(queue)
        succeeded(queue, long)
        assert steps(queue, long) == list(range(100))
        succeeded(queue, later)
    finally:
        queue.close()
        watched.close()


def test_a_resume_point_whose_name_was_lost_is_found(stack, home):
    """What a failover leaves: the record names the file before the last one, which is no longer there."""
    worker = stack.start_worker()
    job = stack.submit("steps", parameters={"steps": 20, "pause": 0.1, "trace": str(home / "trace")}).id
    stack.wait_for_trace(home / "trace", "step", 8)
    kill(worker)
    named = stack.redis.hget(f"dn:job:{job}", "state_key")
    number = int(re.search(r"state-(\d+)", named)[1])
    stack.redis.hset(f"dn:job:{job}", "state_key", named.replace(f"state-{number}", f"state-{number - 3}"))
    stack.start_worker()
    succeeded(stack, job, runs=2)
    assert read_trace(home / "trace", "start")[1][1] >= number
