"""What the load asks, and the answers that an undisturbed service gave beforehand."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.core.registry import Registry
from tests.contract.examples import example_request

DATASET = Path(__file__).parents[1] / "data" / "fashion-mnist-600.npz"
EACH = 4
METHODS = {
    "embeddings": ("align-uniform", {}),
    "generations": ("guided-diffusion", {"steps": 4}),
    "summaries": ("summarize-feedback", {"best_of": 2}),
    "distances": ("robust-ot", {}),
}
SEEDED = ("generations", "summaries")


@dataclass(frozen=True)
class Question:
    """A request of an inference route and what its answer must say."""

    kind: str
    path: str
    body: dict[str, Any]
    expected: Any = None

    def right(self, answer):
        return same(self.kind, facts(self.kind, answer), self.expected)


@dataclass(frozen=True)
class JobQuestion:
    """A job, what its result must say, and the hash that its weights must have where it trains."""

    kind: str
    spec: dict[str, Any]
    expected: Any = None

    def named(self, name):
        """The body of the job's submission; the name tells from the list of jobs whether one was made twice."""
        spec = self.spec | {"labels": {"submission": name}}
        if self.spec["kind"] == "train":
            spec["parameters"] = self.spec["parameters"] | {"version": name}
        return spec

    def right(self, job, result):
        return same(self.kind, job_facts(self.kind, job, result), self.expected)


def facts(kind, answer):
    """What of an answer must not depend on when it was given."""
    match kind:
        case "embeddings":
            return [item["embedding"] for item in answer["data"]]
        case "generations":
            return [item["b64_json"] for item in answer["data"]]
        case "summaries":
            return [candidate["text"] for item in answer["data"] for candidate in item["candidates"]]
        case "distances":
            return answer["distance"]
    raise ValueError(kind)


def job_facts(kind, job, result):
    if kind == "weights":
        return next(item["sha256"] for item in job["artifacts"] if item["name"] == "weights.safetensors")
    return facts(kind, result)


def same(kind, found, expected):
    """Pictures, texts and weights to the last bit; numbers of a batch of another size but for rounding."""
    if kind == "embeddings":
        return np.allclose(found, expected, atol=1e-5)
    if kind == "distances":
        return math.isclose(found, expected, rel_tol=1e-6)
    return bool(found == expected)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def ask_beforehand(api):
    """Questions and jobs with the answers of the service as it is now, undisturbed."""
    registry = Registry()
    questions = [_answered(api, question) for kind in METHODS for question in _questions(registry, kind)]
    stored = api.post("/v1/datasets", files={"file": (DATASET.name, DATASET.read_bytes())}).raise_for_status().json()
    jobs = [_run(api, job) for job in _jobs(questions, stored["id"])]
    return questions, jobs


def _questions(registry, kind):
    slug, parameters = METHODS[kind]
    path, body = example_request(registry[slug], registry[slug].shipped(), EACH)
    for number in range(EACH):
        one = dict(body)
        if kind == "distances":
            one["a"] = {"points": (np.array(body["a"]["points"]) * (1 + number / 8)).tolist()}
            one["b"] = {"points": body["b"]["points"]}
        elif kind == "generations":
            one["n"] = 1
        else:
            one["input"] = [body["input"][number]]
        own = dict(parameters) | ({"seed": number} if kind in SEEDED else {})
        yield Question(kind, path, one | ({"parameters": own} if own else {}))


def _answered(api, question):
    answer = api.post(question.path, json=question.body).raise_for_status().json()
    return Question(question.kind, question.path, question.body, facts(question.kind, answer))


def _jobs(questions, dataset):
    """A distance and a picture, asked as jobs, and a training that goes on from its last checkpoint."""
    for kind in ("distances", "generations"):
        question = next(question for question in questions if question.kind == kind)
        request = {name: value for name, value in question.body.items() if name != "model"}
        spec = {"kind": "predict", "model": question.body["model"], "parameters": {"request": request}}
        yield JobQuestion(kind, spec, question.expected)
    parameters = {"epochs": 8, "version": "calm"}
    yield JobQuestion("weights", {"kind": "train", "model": "aum", "dataset": dataset, "parameters": parameters})


def _run(api, question):
    """The job with the answer of a calm run; where the route has answered already, the job must say the same."""
    job = api.post("/v1/jobs", json=question.spec).raise_for_status().json()
    while job["status"] in ("queued", "running"):
        job = api.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).raise_for_status().json()
    assert job["status"] == "succeeded", job
    result = api.get(f"/v1/jobs/{job['id']}/result").raise_for_status().json()
    found = job_facts(question.kind, job, result)
    assert question.expected is None or same(question.kind, found, question.expected), (question.kind, found)
    return JobQuestion(question.kind, question.spec, found)
