"""The client and the records, on a real Valkey without any worker."""

import asyncio
import hashlib
import json
import random
import time

import pytest

from workers.client import IdempotencyConflictError, JobSpec, QueueUnavailableError, TooManyJobsError, UnknownJobError
from workers.connect import prompt
from workers.queue import job_queue
from workers.records import Records
from workers.stats import DURATION_BOUNDS, WAIT_BOUNDS


@pytest.fixture
def records(stack):
    return Records(stack.redis)


def lease(stack, job_id, attempt):
    """What the queue library writes when a worker takes a job."""
    stack.redis.zadd("rq:wip:jobs", {f"{job_id}:{attempt}": time.time() + 60})
    stack.redis.lrem("rq:queue:jobs", 0, job_id)
    stack.redis.hset(f"rq:job:{job_id}", "status", "started")


def begin(stack, records, job_id, attempt="first"):
    lease(stack, job_id, attempt)
    assert records.begin(job_id, attempt, "worker") == 1


def statuses(stack, job_id):
    entries = stack.redis.xrange(f"dn:events:{job_id}")
    return [json.loads(data["data"])["status"] for _, data in entries if data["event"] == "status"]


def test_a_submitted_job_is_recorded_and_queued(stack):
    spec = JobSpec(kind="steps", parameters={"steps": 2}, seed=7, labels={"team": "vision"})
    record, created = stack.run(stack.client.submit(spec, "anna", request_id="r-1"))
    assert created
    assert record.id.startswith("job_")
    assert (record.owner, record.status, record.attempts, record.seed) == ("anna", "queued", 0, 7)
    assert (record.parameters, record.labels, record.request_id) == ({"steps": 2}, {"team": "vision"}, "r-1")
    assert abs(record.created_at - time.time()) < 5
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [record.id]
    assert stack.redis.ttl(f"rq:job:{record.id}") == -1
    assert record.spec == spec


def test_jobs_wait_by_priority_then_by_age(stack):
    came = random.Random(3).choices(("low", "normal", "high"), k=40)
    ids = [stack.submit("steps", owner=f"owner-{n}", priority=priority).id for n, priority in enumerate(came)]
    order = sorted(range(len(came)), key=lambda n: ("high", "normal", "low").index(came[n]))
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [ids[n] for n in order]


def test_a_retry_and_a_repair_keep_the_priority(stack, records):
    low, normal, high = (stack.submit("steps", priority=priority).id for priority in ("low", "normal", "high"))
    begin(stack, records, normal)
    queue = job_queue(prompt(stack.settings.redis_url))
    queue._enqueue_job(queue.fetch_job(normal))
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [high, normal, low]
    stack.redis.lrem("rq:queue:jobs", 0, high)
    assert records.push_missing(high)
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [high, normal, low]


def test_a_job_that_lost_its_run_waits_before_those_of_its_priority_that_have_not_begun(stack, records):
    lost, later, high = (stack.submit("steps", priority=priority).id for priority in ("normal", "normal", "high"))
    stack.redis.lrem("rq:queue:jobs", 0, lost)
    begin(stack, records, lost)
    queue = job_queue(prompt(stack.settings.redis_url))
    queue._enqueue_job(queue.fetch_job(lost))
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [high, lost, later]


def test_fifty_submissions_with_one_key_make_one_job(stack):
    spec = JobSpec(kind="steps")

    async def all_at_once():
        calls = [stack.client.submit(spec, "anna", idempotency_key="once") for _ in range(50)]
        return await asyncio.gather(*calls)

    answers = stack.run(all_at_once())
    assert len({record.id for record, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert stack.redis.llen("rq:queue:jobs") == 1
    assert stack.redis.zcard("dn:jobs") == 1


def test_a_key_belongs_to_its_owner_and_to_its_request(stack):
    first = stack.submit("steps", "anna", idempotency_key="k")
    other = stack.submit("steps", "ben", idempotency_key="k")
    assert first.id != other.id
    with pytest.raises(IdempotencyConflictError):
        stack.submit("steps", "anna", idempotency_key="k", seed=1)


def test_large_parameters_go_to_the_store(stack):
    spec = JobSpec(kind="steps", parameters={"points": [[0.5] * 100] * 300})
    record, _ = stack.run(stack.client.submit(spec, "anna"))
    assert record.parameters == {}
    assert json.loads(stack.store.get(record.parameters_key)) == spec.parameters
    assert stack.redis.memory_usage(f"dn:job:{record.id}") < 8192


def test_open_jobs_are_limited_for_each_owner(stack):
    ids = [stack.submit("steps", "anna").id for _ in range(stack.settings.concurrent_jobs)]
    with pytest.raises(TooManyJobsError):
        stack.submit("steps", "anna")
    stack.submit("steps", "ben")
    stack.run(stack.client.cancel(ids[0]))
    stack.submit("steps", "anna")


def test_lists_are_newest_first_filtered_and_paged(stack):
    ids = [stack.submit(kind, owner).id for owner in ("anna", "ben") for kind in ("steps", "talk", "native")]
    stack.run(stack.client.cancel(ids[0]))

    def listed(*args, **kwargs):
        records, more = stack.run(stack.client.list(*args, **kwargs))
        return [record.id for record in records], more

    assert listed("anna") == (ids[2::-1], False)
    assert listed(None, limit=4) == (ids[:1:-1], True)
    assert listed(None, limit=4, after=ids[2]) == ([ids[1], ids[0]], False)
    assert listed(None, kind="talk") == ([ids[4], ids[1]], False)
    assert listed("anna", status="cancelled") == ([ids[0]], False)
    assert listed("nobody") == ([], False)
    with pytest.raises(UnknownJobError):
        listed("anna", after=ids[5])


def test_cancelling_a_waiting_job_is_immediate(stack):
    job = stack.submit("steps", "anna")
    record = stack.run(stack.client.cancel(job.id))
    assert record.status == "cancelled"
    assert record.finished_at >= record.created_at
    assert stack.redis.llen("rq:queue:jobs") == 0
    assert stack.run(stack.client.cancel(job.id)) == record, "already final: the job as it is"
    assert statuses(stack, job.id) == ["queued", "cancelled"]
    with pytest.raises(UnknownJobError):
        stack.run(stack.client.cancel("job_" + "0" * 32))


def test_only_the_latest_attempt_can_write(stack, records):
    job = stack.submit("steps")
    begin(stack, records, job.id, "first")
    assert records.write(job.id, "first", {"progress": {"fraction": 0.5}}, [("log", {"message": "hello"})]) == 1
    begin(stack, records, job.id, "second")
    assert records.write(job.id, "first", {"progress": {"fraction": 0.9}}, [("log", {"message": "late"})]) == 0
    assert not records.close(job.id, "first", "succeeded", {"result_key": "wrong"})
    assert not records.requeue(job.id, "first")
    record = stack.get(job.id)
    assert (record.progress.fraction, record.log_tail, record.status) == (0.5, ["hello"], "running")
    assert (record.attempts, record.result_key) == (2, None)
    assert records.close(job.id, "second", "succeeded", {"result_key": "right"})
    assert not records.close(job.id, "second", "failed", {})
    assert records.write(job.id, "second", {}, []) == 0
    assert stack.get(job.id).result_key == "right"


def test_a_run_without_a_lease_does_not_begin(stack, records):
    job = stack.submit("steps")
    assert records.begin(job.id, "expired", "worker") == -1
    assert stack.get(job.id).attempts == 0


def test_a_fourth_run_does_not_begin(stack, records):
    job = stack.submit("steps")
    for attempt in ("one", "two", "three"):
        begin(stack, records, job.id, attempt)
    lease(stack, job.id, "four")
    assert records.begin(job.id, "four", "worker") == 3
    assert stack.get(job.id).attempts == 3


def test_a_flagged_job_is_told_and_does_not_begin_again(stack, records):
    job = stack.submit("steps")
    begin(stack, records, job.id)
    assert stack.run(stack.client.cancel(job.id)).status == "running"
    assert records.write(job.id, "first", {}, []) == 2
    lease(stack, job.id, "second")
    assert records.begin(job.id, "second", "worker") == 2


def test_counts_and_histograms_follow_every_change(stack, records):
    started = time.time()
    first, second, third = (stack.submit("steps") for _ in range(3))
    assert stack.run(stack.client.stats()).jobs == {("steps", "queued"): 3}
    begin(stack, records, first.id)
    begin(stack, records, second.id)
    records.requeue(second.id, "first")
    stack.run(stack.client.cancel(third.id))
    time.sleep(1.1)
    records.close(first.id, "first", "succeeded", {})
    stats = stack.run(stack.client.stats())
    assert stats.jobs == {("steps", "succeeded"): 1, ("steps", "queued"): 1, ("steps", "cancelled"): 1}
    assert 1.0 < stats.oldest_queued_seconds <= time.time() - started
    assert [bound for bound, _ in stats.wait["steps"].buckets] == [*WAIT_BOUNDS, "+Inf"]
    assert stats.wait["steps"].count == 2
    duration = stats.duration["steps", "succeeded"]
    assert [bound for bound, _ in duration.buckets] == [*DURATION_BOUNDS, "+Inf"]
    assert dict(duration.buckets)["1"] == 0
    assert dict(duration.buckets)["5"] == duration.count == 1
    assert duration.sum == pytest.approx(1.1, abs=0.9)
    assert stats.workers == {"busy": 0, "idle": 0}


def test_events_resume_with_nothing_lost_and_nothing_twice(stack, records):
    job = stack.submit("talk")
    begin(stack, records, job.id)
    for line in range(400):
        records.write(job.id, "first", {}, [("log", {"message": str(line)})])

    async def read(last_id, stop_after):
        found = []
        async for event in stack.client.events(job.id, last_id):
            found.append(event)
            if len(found) == stop_after:
                break
        return found

    part = stack.run(read("0-0", 102))
    records.close(job.id, "first", "succeeded", {})
    rest = stack.run(read(part[-1].id, None))
    lines = [event.data["message"] for event in part + rest if event.event == "log"]
    assert lines == [str(line) for line in range(400)]
    assert rest[-1].data == {"status": "succeeded"}
    assert stack.run(read(rest[-1].id, None)) == []
    with pytest.raises(ValueError, match="not the id"):
        stack.run(read("yesterday", None))


def test_dropped_events_are_announced_by_a_snapshot(stack, records):
    job = stack.submit("talk")
    begin(stack, records, job.id)
    for _ in range(30):
        records.write(job.id, "first", {}, [("log", {"message": "x" * 50})] * 100)
    records.write(job.id, "first", {"progress": {"fraction": 0.25}}, [])
    records.close(job.id, "first", "cancelled", {})

    async def first_event(last_id):
        return await anext(stack.client.events(job.id, last_id))

    for last_id in ("0-0", "5-0"):
        event = stack.run(first_event(last_id))
        assert (event.event, event.id) == ("snapshot", last_id)
        assert event.data["status"] == "cancelled"
        assert event.data["progress"]["fraction"] == 0.25
    assert stack.redis.xlen(f"dn:events:{job.id}") < 1200
    assert len(stack.get(job.id).log_tail) == 100


def test_a_reader_is_woken_by_an_event_and_gets_ticks_while_there_is_none(stack, records, monkeypatch):
    monkeypatch.setattr("workers.client.KEEP_ALIVE_S", 0.3)
    job = stack.submit("steps")

    async def follow():
        seen = []
        async for event in stack.client.events(job.id):
            seen.append(None if event is None else event.event)
            if event is None and len(seen) == 2:
                await stack.client.cancel(job.id)
        return seen

    assert stack.run(follow()) == ["status", None, "status"]


def test_wait_returns_when_the_job_ends_or_the_time_is_over(stack):
    job = stack.submit("steps")
    started = time.monotonic()
    assert stack.run(stack.client.wait(job.id, 0.5)).status == "queued"
    assert 0.4 < time.monotonic() - started < 2

    async def cancel_meanwhile():
        waiting = asyncio.create_task(stack.client.wait(job.id, 30))
        await asyncio.sleep(0.2)
        await stack.client.cancel(job.id)
        return await waiting

    started = time.monotonic()
    assert stack.run(cancel_meanwhile()).status == "cancelled"
    assert time.monotonic() - started < 5


def test_a_data_set_of_an_open_job_is_in_use(stack):
    used, also = "ds_" + hashlib.md5(b"a").hexdigest(), "ds_" + hashlib.md5(b"b").hexdigest()
    job = stack.run(stack.client.submit(JobSpec(kind="x", dataset=used, parameters={"other": [also]}), ""))[0]

    def in_use(dataset_id):
        return stack.run(stack.client.dataset_in_use(dataset_id))

    assert in_use(used)
    assert in_use(also)
    assert not in_use("ds_" + "0" * 32)
    stack.run(stack.client.cancel(job.id))
    assert not in_use(used)


def test_every_call_says_that_redis_is_away_and_recovers(stack):
    job = stack.submit("steps")
    stack.valkey.stop()
    client = stack.client
    calls = [
        lambda: client.submit(JobSpec(kind="steps"), ""),
        lambda: client.get(job.id),
        lambda: client.list(None),
        lambda: client.cancel(job.id),
        lambda: client.wait(job.id, 1),
        client.stats,
        lambda: client.dataset_in_use("ds_1"),
        lambda: anext(client.events(job.id)),
    ]
    for call in calls:
        started = time.monotonic()
        with pytest.raises(QueueUnavailableError):
            stack.run(call())
        assert time.monotonic() - started < 3
    assert not stack.run(client.ping())
    stack.valkey.start()
    assert stack.run(client.ping())
    assert stack.get(job.id).status == "queued"
