"""What a model answers: embeddings, classes, pictures, summaries, distances."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deepnight.client import encoding
from deepnight.client.answers import Candidate, Classification, Distance, Pictures
from deepnight.client.calls import Call, Flow
from deepnight.client.encoding import Inputs
from deepnight.client.flows.paging import once
from deepnight.client.flows.queueing import result, wait

Parameters = Mapping[str, Any]


def _predicted(path: str, body: dict[str, Any]) -> Flow[dict[str, Any]]:
    """The answer of an inference route; one that the service makes a job of is waited for."""
    response = yield Call("POST", path, json={name: value for name, value in body.items() if value is not None})
    answer: dict[str, Any] = response.json()
    if response.status_code == 202:
        job = yield from wait(answer["id"], progress=False)
        return (yield from result(job))
    return answer


def embed(
    model: str, inputs: Inputs, *, dimensions: int | None = None, parameters: Parameters | None = None
) -> Flow[npt.NDArray[np.float32]]:
    """Embeddings of pictures, vectors or texts: float32 ``(N, D)``, or ``(D,)`` for a single input."""
    items, single = encoding.items(inputs)
    body = {
        "model": model,
        "input": items,
        "encoding_format": "base64",
        "dimensions": dimensions,
        "parameters": parameters,
    }
    answer = yield from _predicted("/v1/embeddings", body)
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer["data"]]
    return rows[0] if single else np.stack(rows)


def classify(
    model: str, inputs: Inputs, *, top_k: int = 5, parameters: Parameters | None = None
) -> Flow[list[Classification]]:
    """The ``top_k`` likeliest classes of each input, in the order of the inputs."""
    items, _ = encoding.items(inputs)
    body = {"model": model, "input": items, "top_k": top_k, "parameters": parameters}
    answer = yield from _predicted("/v1/classifications", body)
    return [Classification.read(row) for row in answer["data"]]


def generate(
    model: str, prompt: str | None = None, *, n: int = 1, seed: int | None = None, parameters: Parameters | None = None
) -> Flow[Pictures]:
    """``n`` generated pictures; ``prompt`` names a class, ``seed`` makes them reproducible."""
    given = dict(parameters or {}) | ({} if seed is None else {"seed": seed})
    body = {"model": model, "prompt": prompt, "n": n, "response_format": "b64_json", "parameters": given}
    return Pictures.read((yield from _predicted("/v1/images/generations", body)))


def summarise(
    model: str,
    texts: str | Sequence[str],
    *,
    n: int = 1,
    best_of: int | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    parameters: Parameters | None = None,
) -> Flow[list[list[Candidate]]]:
    """``n`` summaries of each text, the best first."""
    body = {
        "model": model,
        "input": [texts] if isinstance(texts, str) else list(texts),
        "n": n,
        "best_of": best_of,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "parameters": parameters,
    }
    answer = yield from _predicted("/v1/summaries", body)
    return [[Candidate.read(candidate) for candidate in row["candidates"]] for row in answer["data"]]


def prefer(
    text: str,
    candidates: tuple[str, str],
    preferred: Literal[0, 1],
    *,
    annotator: str | None = None,
    confidence: int | None = None,
) -> Flow[str]:
    """Store which of two summaries of ``text`` a person prefers; the id of the comparison."""
    body = {
        "input": text,
        "candidates": list(candidates),
        "preferred": preferred,
        "annotator": annotator,
        "confidence": confidence,
    }
    sent = {name: value for name, value in body.items() if value is not None}
    response = yield Call("POST", "/v1/summaries/comparisons", json=sent, headers=once(None))
    return str(response.json()["id"])


def distance(
    model: str, a: Any, b: Any, *, parameters: Parameters | None = None, return_coupling: bool = False
) -> Flow[Distance]:
    """The distance between two sides, each a data set (or its id), an array of points ``(n, d)``, or a mapping with
    ``points``, ``weights`` and ``labels``. A large one is computed by a job, which is waited for.
    """
    body = {
        "model": model,
        "a": encoding.side(a),
        "b": encoding.side(b),
        "parameters": parameters,
        "return_coupling": return_coupling,
    }
    return Distance.read((yield from _predicted("/v1/distances", body)))
