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
        """The method's parameters, after the texts were counted."""
        if isinstance(body.input, list) and len(body.input) > MAX_TEXTS:
            errors = [FieldError("/input", f"at most {MAX_TEXTS} texts, not {len(body.input)}")]
            raise Problem(422, "too many inputs", errors=errors, code="too_many")
        return super().params(body, served)

    def top_level(self, body: SummaryRequest) -> Collection[str]:
        """Those of OpenAI's fields that were sent."""
        return [name for name in TOP_LEVEL if getattr(body, name) is not None]

    def parameters(self, body: SummaryRequest, served: Served) -> dict[str, Any]:
        """With the top-level fields that were sent as the method's parameters of those names."""
        return {**body.parameters, **{name: getattr(body, name) for name in self.top_level(body)}}

    def too_large(self, body: SummaryRequest, served: Served, params: BaseModel, reader: Reader) -> bool:
        """More forward passes than the method's card answers at once."""
        texts = len(body.input) if isinstance(body.input, list) else 1
        return costs_too_much(served.version.entry, texts, params)

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


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        **candidate.details,
        "text": candidate.text,
        "reward": candidate.reward,
        "logprob": candidate.logprob,
        "finish_reason": candidate.finish_reason,
    }
