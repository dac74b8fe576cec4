"""No space while the service runs: a limit on the size of files stands for a full disk, in the real processes."""

import resource

import pytest

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
