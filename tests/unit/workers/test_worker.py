"""Jobs on a real worker process that nobody disturbs."""

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from rq import Queue

from models.core.versions import Versions
from tests.unit.workers.stack import children, kill, read_trace
from workers.client import JobSpec
from workers.horse import NICENESS
from workers.queue import JobQueue, QueuedJob


def versions(stack):
    return Versions(stack.registry, stack.store, stack.home / "cache" / "versions")


def result(stack, record):
    return json.loads(stack.store.get(record.result_key))


def events(stack, job_id, last_id="0-0"):
    async def collect():
        return [event async for event in stack.client.events(job_id, last_id)]

    return stack.run(collect())


def test_a_job_succeeds_with_progress_and_a_curve(shared):
    record = shared.wait(shared.submit("steps", parameters={"steps": 20}).id)
    assert (record.status, record.attempts, record.progress.fraction) == ("succeeded", 1, 1.0)
    assert record.created_at < record.started_at < record.finished_at
    assert result(shared, record) == {"object": "steps", "steps": 20}
    seen = events(shared, record.id)
    assert [e.data["status"] for e in seen if e.event == "status"] == ["queued", "running", "succeeded"]
    assert [e.data["step"] for e in seen if e.event == "metric"] == list(range(20))
    fractions = [e.data["fraction"] for e in seen if e.event == "progress"]
    assert fractions == sorted(fractions)
    etas = [e.data["eta_seconds"] for e in seen if e.event == "progress" and e.data["eta_seconds"] is not None]
    assert etas
    assert max(etas) < 30
    # The record closes before the process that wrote it has cleared up.
    shared.until(lambda: not list((shared.home / "scratch").iterdir()), 10, "empty scratch folder")


def test_progress_alone_is_sent_at_most_four_times_a_second(shared):
    record = shared.wait(shared.submit("talk", parameters={"lines": 100, "pause": 0.02}).id)
    times = {event.id.partition("-")[0] for event in events(shared, record.id) if event.event == "log"}
    assert len(times) <= 2 + 4 * (record.finished_at - record.started_at)
    assert record.log_tail == [f"line {n}" for n in range(100)]
    assert len(shared.store.get(record.log_key).splitlines()) == 100


def test_events_of_a_real_job_resume_where_a_reader_was_cut_off(shared):
    job = shared.submit("talk", parameters={"lines": 400, "pause": 0.002})

    async def first_hundred():
        found = []
        async for event in shared.client.events(job.id):
            if event is not None:
                found.append(event)
            if len(found) == 100:
                break
        return found

    part = shared.run(first_hundred())
    whole = part + events(shared, job.id, part[-1].id)
    assert [e.data["message"] for e in whole if e.event == "log"] == [f"line {n}" for n in range(400)]
    ids = [e.id for e in whole]
    assert len(set(ids)) == len(ids)


def test_a_job_gives_way_to_whatever_else_runs(shared, tmp_path):
    trace = tmp_path / "trace"
    record = shared.submit("steps", parameters={"steps": 1000, "pause": 0.05, "trace": str(trace)})
    shared.wait_for_trace(trace, "start", 1)
    ((pid, _),) = read_trace(trace, "start")
    worker = shared.workers[0].pid
    niceness, usual = (os.getpriority(os.PRIO_PROCESS, process) for process in (pid, worker))
    session, other = os.getsid(pid), os.getsid(worker)
    grouped = Path(f"/proc/{pid}/autogroup")  # as the kernel was built
    group = grouped.read_text() if grouped.exists() else f"nice {NICENESS}"
    shared.run(shared.client.cancel(record.id))
    assert niceness == min(19, usual + NICENESS)
    assert session == pid != other
    assert group.rstrip().endswith(f"nice {NICENESS}")
    assert shared.wait(record.id).status == "cancelled"


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("user-error", 422, "one class only"),
        ("bug", 500, "internal error"),
        ("not-json", 500, "internal error"),
        ("no-dataset", 404, "no data set ds_0000"),
    ],
)
def test_a_failure_is_told_without_our_inner_life_and_is_not_repeated(shared, how, status, words, tmp_path):
    trace = tmp_path / "trace"
    record = shared.wait(shared.submit("outcome", parameters={"how": how, "trace": str(trace)}).id)
    assert (record.status, record.attempts) == ("failed", 1)
    assert record.error["status"] == status
    assert words in record.error["detail"]
    assert set(record.error) >= {"type", "title", "status", "detail"}
    shown = json.dumps(record.error)
    assert not any(word in shown for word in ("secret", "Traceback", ".py", "Error(", str(shared.home)))
    assert (record.traceback_key is not None) == (status == 500)
    if record.traceback_key:
        assert b"Traceback" in shared.store.get(record.traceback_key)
    assert record.log_tail == ["about to end"]
    assert len(read_trace(trace, "start")) == 1


def test_a_killed_process_is_run_again_twice_and_then_failed(shared, tmp_path):
    trace = tmp_path / "trace"
    record = shared.wait(shared.submit("outcome", parameters={"how": "killed", "trace": str(trace)}).id)
    assert (record.status, record.attempts) == ("failed", 3)
    assert len(read_trace(trace, "start")) == 3
    assert "SIGKILL (most often: out of memory)" in record.error["detail"]
    seen = [e.data["status"] for e in events(shared, record.id) if e.event == "status"]
    assert seen == ["queued", "running"] + ["queued", "running"] * 2 + ["failed"]


def test_files_data_sets_and_hashes_of_a_job(shared):
    dataset = shared.vectors("anna", n=60)
    job = shared.submit("derive", "anna", dataset=dataset.id, parameters={"note": "hello"}, seed=5)
    record = shared.wait(job.id)
    made = result(shared, record)
    assert (made["samples"], made["format"], made["bytes"], made["seed"]) == (60, "npz", dataset.bytes, 5)
    assert made["device"] == "cpu"
    assert shared.datasets.get("anna", made["dataset"]).samples == 30
    (artifact,) = record.artifacts
    assert (artifact.name, artifact.media_type, artifact.bytes) == ("note.txt", "text/plain", 5)
    assert artifact.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert shared.store.get(artifact.key) == b"hello"
    assert any("never-written.txt" in line for line in record.log_tail)


def test_a_job_sees_only_its_owners_data_sets(shared):
    dataset = shared.vectors("anna", n=60)
    record = shared.wait(shared.submit("derive", "ben", dataset=dataset.id).id)
    assert record.error["status"] == 404


def test_train_publishes_a_version_and_evaluate_measures_it(shared):
    dataset = shared.vectors("anna")
    parameters = {"epochs": 3, "version": "mine"}
    asked = {"model": "test-steps", "dataset": dataset.id, "parameters": parameters}
    record = shared.wait(shared.submit("train", "anna", **asked).id)
    trained = result(shared, record)
    assert (trained["object"], trained["model"]) == ("train", "test-steps@mine")
    assert [step for step, _ in trained["curves"]["loss"]] == [0, 1, 2]
    published = versions(shared).resolve("test-steps@mine")
    assert (published.record.owner, published.record.job) == ("anna", record.id)
    left = {artifact.name: artifact for artifact in record.artifacts}
    assert set(left) == {"weights.safetensors", "config.json", "figures.json", "curves.png"}
    assert left["weights.safetensors"].sha256 == versions(shared).checkpoint(published).config.weights_sha256
    with Image.open(io.BytesIO(shared.store.get(left["curves.png"].key))) as picture:
        assert picture.format == "PNG"

    measured = shared.wait(shared.submit("evaluate", "anna", model="test-steps@mine", dataset=dataset.id).id)
    assert result(shared, measured)["figures"]["figures"] == trained["figures"]["figures"]

    again = shared.wait(shared.submit("train", "anna", **asked).id)
    assert again.error["status"] == 422
    assert again.error["errors"][0]["field"] == "/parameters/version"
    assert events(shared, again.id)[-1].data["status"] == "failed"

    unknown = shared.wait(shared.submit("evaluate", "anna", model="test-steps@nope").id)
    assert unknown.error["status"] == 404


def test_large_parameters_reach_the_job(shared):
    spec = JobSpec(kind="derive", dataset=shared.vectors("anna", n=60).id, parameters={"note": "x" * 100_000})
    record, _ = shared.run(shared.client.submit(spec, "anna"))
    done = shared.wait(record.id)
    assert done.artifacts[0].bytes == 100_000


def test_whoever_writes_to_redis_does_not_run_code(shared, tmp_path):
    queue = Queue("jobs", connection=JobQueue("jobs", connection=_bytes_client(shared)).connection, serializer="json")
    marks = [tmp_path / "function", tmp_path / "callback"]
    direct = queue.enqueue("os.system", f"touch {marks[0]}")
    by_callback = queue.enqueue("workers.run.run_job", "job_x", job_id="job_x")
    queue.connection.hset(by_callback.key, "failure_callback_name", "os.mkdir")
    for job in (direct, by_callback):
        shared.until(lambda job=job: job.get_status(refresh=True) in ("failed", "finished"), 20, "end of the job")
    assert direct.get_status() == "failed"
    assert not any(mark.exists() for mark in marks)
    assert QueuedJob.fetch(by_callback.id, connection=queue.connection, serializer="json").failure_callback is None


def test_the_password_is_in_no_command_line_and_the_worker_never_loads_torch(shared, tmp_path):
    trace = tmp_path / "trace"
    job = shared.submit("native", parameters={"trace": str(trace)})
    shared.wait_for_trace(trace, "start", 1)
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    secret = (shared.home / "redis.secret").read_text()
    assert "workers.horse" in shown
    assert secret not in shown
    (worker,) = shared.workers
    (horse,) = children(worker.pid)
    assert "libtorch" in Path(f"/proc/{horse}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text()
    stats = shared.run(shared.client.stats())
    assert stats.workers == {"busy": 1, "idle": 0}
    shared.run(shared.client.cancel(job.id))
    assert shared.wait(job.id, 5).status == "cancelled"


def test_a_job_process_ends_with_its_worker(stack, tmp_path):
    worker = stack.start_worker()
    trace = tmp_path / "trace"
    stack.submit("native", parameters={"trace": str(trace)})
    stack.wait_for_trace(trace, "start", 1)
    (horse,) = children(worker.pid)
    kill(worker)
    stack.until(lambda: not Path(f"/proc/{horse}").exists() or _zombie(horse), 1, "end of the job's process")


def _zombie(pid):
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def _bytes_client(stack):
    from workers.connect import prompt

    return prompt(stack.settings.redis_url)
