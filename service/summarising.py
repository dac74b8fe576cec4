"""Summaries: OpenAI-like top-level fields as the method's parameters, candidates with their rewards as the answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import BaseModel

from models.core.outputs import Candidate, Summary
from service.catalog import Served
from service.operation import Operation, costs_too_much
from service.problems import FieldError, Problem
from service.reading import Reader
from service.schemas.summaries import MAX_TEXTS, SummaryRequest

TOP_LEVEL = ("n", "best_of", "max_tokens", "temperature")


class Summarise(Operation[SummaryRequest]):
    """POST /v1/summaries."""

    capability = "summarise"
    request = SummaryRequest

    def params(self, body: SummaryRequest, served: Served) -> BaseModel:
        """The method's parameters; what came at the top level is named there when it is wrong."""
        if isinstance(body.input, list) and len(body.input) > MAX_TEXTS:
            errors = [FieldError("/input", f"at most {MAX_TEXTS} texts, not {len(body.input)}")]
            raise Problem(422, "too many inputs", errors=errors, code="too_many")
        try:
            return super().params(body, served)
        except Problem as problem:
            errors = [FieldError(_top_level(error.field, body), error.detail) for error in problem.errors]
            raise Problem(problem.status, problem.detail, errors=errors, code=problem.code) from problem

    def top_level(self, body: SummaryRequest) -> Collection[str]:
        """What was sent beside ``parameters``."""
        return TOP_LEVEL

    def parameters(self, body: SummaryRequest, served: Served) -> dict[str, Any]:
        """With the top-level fields that were sent as the method's parameters of those names."""
        given = {name: value for name in TOP_LEVEL if (value := getattr(body, name)) is not None}
        return {**body.parameters, **given}

    def too_large(self, body: SummaryRequest, served: Served, reader: Reader) -> bool:
        """More forward passes than the method's card answers at once."""
        texts = len(body.input) if isinstance(body.input, list) else 1
        return costs_too_much(served.version.entry, texts, self.params(body, served))

    def inputs(self, body: SummaryRequest, served: Served, reader: Reader) -> list[Any]:
        """The texts."""
        return reader.items(body.input, served.config.input)

    def answer(self, body: SummaryRequest, served: Served, outputs: Sequence[Summary]) -> dict[str, Any]:
        """The candidates of each text, and the tokens of all."""
        prompt = sum(output.prompt_tokens for output in outputs)
        completion = sum(output.completion_tokens for output in outputs)
        return {
            "object": "list",
            "data": [
                {
                    "index": i,
                    "candidates": [_candidate(candidate) for candidate in output.candidates],
                    "truncated_input": output.truncated_input,
                }
                for i, output in enumerate(outputs)
            ],
            "model": served.id,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
        }


def _top_level(pointer: str, body: SummaryRequest) -> str:
    name = pointer.removeprefix("/parameters/")
    return f"/{name}" if name in TOP_LEVEL and getattr(body, name) is not None else pointer


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        **candidate.details,
        "text": candidate.text,
        "reward": candidate.reward,
        "logprob": candidate.logprob,
        "finish_reason": candidate.finish_reason,
    }
