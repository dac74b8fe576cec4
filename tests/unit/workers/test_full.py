"""No space while the service runs: a limit on the size of files stands for a full disk, in the real processes."""

import resource
import time

import pytest

from tests.unit.workers.stack import LEASE_S
from workers.client import QueueUnavailableError

LIMIT = 300_000


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("derive", {"note": "n" * 2 * LIMIT}), ("outcome", {"how": "large-result"})],
    ids=["while it runs", "when its result is stored"],
)
def test_a_job_without_space_fails_and_its_worker_lives(stack, kind, parameters):
    worker = stack.start_worker()
    stack.wait_for_workers(1)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    dataset = stack.vectors().id
    fields = {"dataset": dataset} if kind == "derive" else {}
    record = stack.wait(stack.submit(kind, parameters=parameters, **fields).id)
    assert (record.status, record.attempts, record.result_key) == ("failed", 1, None)
    assert (record.error["type"], record.error["status"]) == ("urn:deepnight:problem:store-full", 507)
    assert stack.store.keys(".partial") == []
    after = stack.wait(stack.submit("derive", dataset=dataset, parameters={"note": "small"}).id)
    assert (after.status, worker.poll()) == ("succeeded", None)


def test_a_queue_without_space_refuses_loses_nothing_and_recovers(stack):
    accepted = [stack.submit("steps", parameters={"steps": 1}).id for _ in range(3)]
    size = sum(path.stat().st_size for path in (stack.home / "redis").rglob("*.aof"))
    resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE, (size + 5000, resource.RLIM_INFINITY))
    with pytest.raises(QueueUnavailableError):
        while len(accepted) < 20:
            accepted += [stack.submit("steps", parameters={"steps": 1}).id]
    stack.until(lambda: not stack.valkey.running(), 5, "end of the server, which cannot keep its promise")
    stack.valkey.start()
    stack.start_worker()
    for job in accepted:
        assert stack.wait(job).status == "succeeded"


def test_a_queue_without_memory_refuses_and_loses_nothing(stack):
    worker = stack.start_worker()
    stack.wait_for_workers(1)
    running = stack.submit("talk", parameters={"lines": 40, "pause": 0.2})
    waiting = stack.submit("steps", parameters={"steps": 1})
    stack.until(lambda: stack.get(running.id).status == "running", 20, "running record")
    stack.redis.config_set("maxmemory", stack.redis.info("memory")["used_memory"] - (64 << 10))
    with pytest.raises(QueueUnavailableError):
        stack.submit("steps", parameters={"steps": 1})
    time.sleep(LEASE_S + 3)
    stack.redis.config_set("maxmemory", 0)
    for job in (running, waiting):
        record = stack.wait(job.id)
        assert (record.status, record.attempts) == ("succeeded", 1), stack.logs()
    assert stack.get(running.id).log_tail == [f"line {number}" for number in range(40)]
    assert worker.poll() is None
