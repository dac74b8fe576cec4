"""The one way from a request's body to its answer: resolve, read, predict, answer; failures become problems."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from service.auth import Caller
from service.catalog import Served
from service.inference import (
    DeadlineError,
    InputFailedError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    Previews,
)
from service.inputs import ItemLimits
from service.operation import Body, Operation, placed
from service.problems import CLIENT_CLOSED_REQUEST, FieldError, Problem, unavailable
from service.reading import Reader
from service.routing import json_response
from service.services import Services
from service.submitting import submit
from workers.client import JobSpec

T = TypeVar("T")

# Most answers are there sooner; a task for each request that watches its connection would cost more than it saves.
WATCH_AFTER_S = 0.05


async def answer(
    operation: Operation[Body], body: Body, request: Request, caller: Caller, services: Services
) -> Response:
    """Answer ``body`` at once, or by a job where it is too large or the client prefers one.

    Raises:
        Problem: whatever is wrong with the request or the service.
    """
    served = await resolve(services, body.model, operation, caller)
    params = operation.params(body, served)
    reader = reader_of(services, caller)
    if prefers_async(request) or operation.too_large(body, served, params, reader):
        return await submit_request(body, request, caller, services)
    read = partial(operation.inputs, body, served, reader)
    inputs = read() if operation.small(body) else await asyncio.to_thread(read)
    outputs = await predict(
        services, request, served, inputs, params, operation.field, top_level=operation.top_level(body)
    )
    if operation.heavy_answer:
        return json_response(await asyncio.to_thread(operation.answer, body, served, outputs))
    return json_response(operation.answer(body, served, outputs))


async def resolve(services: Services, model: str, operation: Operation[Any], caller: Caller) -> Served:
    """The version that ``model`` means, if it can do what the route offers.

    Raises:
        Problem: 404 unknown model, 400 a model of another capability.
    """
    served = await services.catalog.resolve(model, caller)
    card = served.version.entry.card
    if card.capability != operation.capability:
        raise Problem(
            400,
            f"`{card.slug}` has the capability {card.capability}, this route needs {operation.capability}",
            errors=[FieldError("/model", f"not a model of capability {operation.capability}")],
            code="wrong_capability",
        )
    return served


def reader_of(services: Services, caller: Caller) -> Reader:
    """Reads inputs within the service's limits, and the data sets that ``caller`` may see."""
    owner = None if caller.admin else caller.owner
    return Reader(
        ItemLimits.of(services.settings),
        load=lambda dataset_id: services.datasets.load(owner, dataset_id, mapped=True),
        samples=lambda dataset_id: services.datasets.get(owner, dataset_id).samples,
    )


async def submit_request(body: BaseModel, request: Request, caller: Caller, services: Services) -> Response:
    """Queue the request as a job of kind ``predict``; its result is the answer that the route would have given."""
    content = body.model_dump(mode="json", exclude_none=True)
    spec = JobSpec(kind="predict", model=content.pop("model"), parameters={"request": content})
    return await submit(services, request, caller, spec)


async def predict(
    services: Services,
    request: Request,
    served: Served,
    inputs: Sequence[Any],
    params: BaseModel,
    field: str,
    previews: Previews | None = None,
    top_level: Collection[str] = (),
) -> list[Any]:
    """One output an input, within the request's deadline; given up when the client leaves.

    Args:
        field: where the body holds the inputs.
        top_level: parameters that the body holds beside `parameters`.

    Raises:
        Problem: 422 for inputs that the model refuses, 503 overloaded or starting, 504 past the deadline.
    """
    deadline = time.monotonic() + request_deadline(request, services.settings.deadline_s)
    request.state.log = {"model": served.id, "inputs": len(inputs)}
    call = services.inference.predict(
        served.version,
        inputs,
        params,
        deadline=deadline,
        request_id=request.state.request_id,
        previews=previews,
    )
    try:
        return await while_connected(request, call)
    except InputFailedError as error:
        errors = _refusals(error, served, field if len(inputs) == 1 else f"{field}/{{}}", top_level)
        raise Problem(422, errors[0].detail, errors=errors, code="invalid_input") from error
    except OverloadedError as error:
        raise unavailable(f"`{served.id}` is overloaded", error.retry_after, "overloaded") from error
    except NotReadyError as error:
        raise unavailable("the service is starting", error.retry_after, "starting") from error
    except DeadlineError as error:
        raise Problem(504, "the deadline passed before the answer was ready", code="deadline") from error
    except ModelFailedError as error:
        raise unavailable(f"`{served.id}` failed: {error}", 10, "model_failed") from error
    finally:
        request.state.log |= services.inference.notes.take(request.state.request_id)


def _refusals(error: InputFailedError, served: Served, place: str, top_level: Collection[str]) -> list[FieldError]:
    """The fields that are wrong: a parameter that the method names first (``dimensions: ...``), else the inputs."""
    found: dict[FieldError, None] = {}
    for position, text in error.errors:
        name, _, rest = text.partition(": ")
        if rest and name in served.version.entry.params.model_fields:
            found[FieldError(placed(f"/parameters/{name}", top_level), rest)] = None
        else:
            found[FieldError(place.format(position) or "/", text)] = None
    return list(found)


def request_deadline(request: Request, default: float) -> float:
    """Seconds that the client gives us: ``Prefer: wait=N`` below the default.

    Raises:
        Problem: 400 for a wait that is not a number of seconds.
    """
    prefer = request.headers.get("prefer")
    if prefer is None:
        return default
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?([^,;\s\"]*)", prefer)
    if not found:
        return default
    try:
        seconds = float(found.group(1))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        errors = [FieldError("Prefer", "wait=N")]
        raise Problem(400, "wait is a positive number of seconds", errors=errors, code="invalid_header")
    return min(default, seconds)


def prefers_async(request: Request) -> bool:
    """Whether the client asked for a job by ``Prefer: respond-async``."""
    return bool(re.search(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", request.headers.get("prefer", "")))


async def while_connected(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """Await ``call``, cancelling it when the client goes away.

    Raises:
        Problem: the client has left (nobody reads the answer; the status is for the logs).
    """
    task = asyncio.current_task()
    assert task is not None
    watchers: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(WATCH_AFTER_S, lambda: watchers.append(loop.create_task(_cancel_when_gone(request, task))))
    try:
        return await call
    except asyncio.CancelledError:
        if not any(watcher.done() for watcher in watchers):
            raise
        task.uncancel()
        raise Problem(CLIENT_CLOSED_REQUEST, "the client closed the connection") from None
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()


async def _cancel_when_gone(request: Request, task: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()
