"""The queue library's parts that are ours, on a real Valkey."""

import pytest
from rq.job import JobStatus

from workers.connect import prompt
from workers.queue import FastIntermediate, QueuedJob, job_queue
from workers.worker import make_worker


@pytest.fixture
def queue(stack):
    return job_queue(prompt(stack.settings.redis_url))


@pytest.fixture
def worker(stack):
    return make_worker(stack.settings, stack.settings.redis_url)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(FastIntermediate, "patience_s", 0.0)


def take(stack, job_id):
    """A worker takes the job and gets no further."""
    assert stack.redis.lmove("rq:queue:jobs", "rq:queue:jobs:intermediate", "LEFT", "RIGHT") == job_id


def test_a_job_that_stays_between_is_retried(stack, queue, worker, impatient):
    job = stack.submit("steps")
    take(stack, job.id)
    queue.intermediate_queue.cleanup(worker, queue)
    assert stack.redis.llen("rq:queue:jobs") == 0, "not at first sight"
    queue.intermediate_queue.cleanup(worker, queue)
    assert stack.redis.lrange("rq:queue:jobs", 0, -1) == [job.id]
    assert stack.redis.llen("rq:queue:jobs:intermediate") == 0
    assert stack.get(job.id).status == "queued"


def test_a_job_seen_between_in_an_earlier_run_is_not_failed_the_next_time(stack, queue, worker, impatient):
    job = stack.submit("steps")
    take(stack, job.id)
    queue.intermediate_queue.cleanup(worker, queue)
    fetched = queue.fetch_job(job.id)
    queue.intermediate_queue.remove(job.id)
    with queue.connection.pipeline() as pipe:
        fetched.retry(queue, pipe)
        pipe.execute()
    take(stack, job.id)
    queue.intermediate_queue.cleanup(worker, queue)
    assert stack.redis.lrange("rq:queue:jobs:intermediate", 0, -1) == [job.id]
    assert queue.fetch_job(job.id).get_status() == JobStatus.QUEUED
    assert stack.get(job.id).status == "queued"


def test_the_maintenance_lock_is_exclusive_and_short(stack, queue):
    assert queue.acquire_maintenance_lock()
    assert not queue.acquire_maintenance_lock()
    assert 0 < stack.redis.ttl(queue.registry_cleaning_key) <= 30


def test_only_the_one_function_on_the_jobs_own_id_is_allowed(stack, queue):
    job = stack.submit("steps")

    def allowed(*args, **kwargs):
        return QueuedJob.create(*args, connection=queue.connection, serializer="json", **kwargs).allowed()

    assert queue.fetch_job(job.id).allowed()
    assert allowed("workers.run.run_job", ["job_1"], id="job_1")
    assert not allowed("workers.run.run_job", ["job_2"], id="job_1")
    assert not allowed("workers.run.run_job", ["job_1"], {"x": 1}, id="job_1")
    assert not allowed("os.system", ["job_1"], id="job_1")


def test_what_is_not_json_is_not_queued(queue):
    with pytest.raises(TypeError):
        queue.enqueue("workers.run.run_job", object(), job_id="job_1")
