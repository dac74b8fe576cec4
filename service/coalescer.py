"""Coalescing: the requests that wait for a model go to its replica as one call.

There is no timer. What arrives in one pass of the event loop is sent at its end where a replica is free; otherwise it
gathers, and the next answer sends it. Under little load nothing is delayed, under much load batches grow by themselves.
Sending within the pass would make a call of one item out of the first request of every wave, and such a call costs ten
times what a further item in a batch does.

A busy replica gets its next call in advance, so that it does not wait for the gateway, but not a smaller one than it
has: callers are answered in waves, and the first few of a wave would leave as a call of their own. Nor a larger one
than its share: gateway and replica work at the same time only while their calls are of one size. Both hold for calls
that are short enough to be outweighed by their fixed cost.

Everything here runs on one event loop and changes state only between awaits, so that a wake-up cannot be lost: work
can wait only while a look for work is due or a call is in flight, and the end of every call looks for work.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

SHORT_CALL_S = 0.05
LEAST_SHARE = 4

Send = Callable[[str, bytes, list[Any], tuple[str, ...]], Awaitable[Sequence[Any]]]


class OverloadedError(RuntimeError):
    """Too many items wait for the model.

    Attributes:
        retry_after: seconds after which the present queue should be worked off.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many inputs wait for this model")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Ticket:
    """One caller's items; ``answered`` is resolved once: when every item has its output, or a call has failed."""

    answered: asyncio.Future[None]
    outputs: list[Any]
    missing: int
    tag: str


@dataclass(eq=False)
class _Piece:
    """At most ``max_batch`` neighbouring items of a ticket."""

    ticket: _Ticket
    start: int
    items: Sequence[Any]


@dataclass(eq=False)
class _Line:
    """What waits for one model, by the parameters that a batch must share, and its calls in flight."""

    model: str
    max_batch: int
    replicas: int
    most_calls: int
    due: bool = False
    waiting: OrderedDict[bytes, deque[_Piece]] = field(default_factory=OrderedDict)
    items: int = 0
    calls: dict[asyncio.Task[None], list[_Piece]] = field(default_factory=dict)
    seconds_per_item: float = 0.01

    def may_call(self) -> bool:
        """Whether what waits should be sent now."""
        if not self.waiting or len(self.calls) >= self.most_calls:
            return False
        return len(self.calls) < self.replicas or self.items >= self.max_batch or not self._hold_back()

    def _hold_back(self) -> bool:
        """Whether a call in advance would be smaller, in callers, than those in flight, and these are short."""
        calls, pieces = len(self.calls), list(chain.from_iterable(self.calls.values()))
        if not self._short(_count(pieces) / calls):
            return False
        waiting = sum(map(len, self.waiting.values()))
        share = (waiting + len(pieces)) // (calls + 1)
        return calls * waiting < len(pieces) and (share < LEAST_SHARE or waiting < share)

    def _fair(self, size: int) -> int:
        """``size``, or for a short call its share where as many as may be are in flight and all are of one size."""
        share = (self.items + sum(map(_count, self.calls.values()))) // self.most_calls
        return min(size, share) if share >= LEAST_SHARE and self._short(size) else size

    def _short(self, items: float) -> bool:
        return items * self.seconds_per_item * self.most_calls < SHORT_CALL_S

    def gather(self) -> tuple[bytes, list[_Piece]]:
        """Take the next batch: one parameter set's oldest pieces. The others have their turn first next time.

        Replicas that are free share what waits, and so do short calls.
        """
        params, queue = self.waiting.popitem(last=False)
        free = max(1, self.replicas - len(self.calls))
        size = self._fair(min(self.max_batch, math.ceil(self.items / free)))
        pieces = [queue.popleft()]
        size -= len(pieces[0].items)
        while queue and len(queue[0].items) <= size:
            pieces.append(queue.popleft())
            size -= len(pieces[-1].items)
        if queue:
            self.waiting[params] = queue
        self.items -= _count(pieces)
        return params, pieces

    def drop(self, ticket: _Ticket) -> None:
        """Forget what ``ticket`` still has waiting."""
        for params, queue in list(self.waiting.items()):
            kept = deque(piece for piece in queue if piece.ticket is not ticket)
            self.items -= _count(queue) - _count(kept)
            if kept:
                self.waiting[params] = kept
            else:
                del self.waiting[params]


def _expire(ticket: _Ticket) -> None:
    if not ticket.answered.done():
        ticket.answered.set_exception(TimeoutError())


def _count(pieces: Iterable[_Piece]) -> int:
    return sum(len(piece.items) for piece in pieces)


class Coalescer:
    """Gathers items by model and parameters, and gives each caller its own outputs in order.

    Args:
        send: performs one call: model id, parameters, items, tags of their callers -> one output an item, in order.
        queue_limit: items that may wait for one model.
    """

    def __init__(self, send: Send, *, queue_limit: int) -> None:
        self._send = send
        self._queue_limit = queue_limit
        self._lines: dict[str, _Line] = {}

    async def submit(
        self,
        model: str,
        params: bytes,
        items: Sequence[Any],
        max_batch: int,
        replicas: int = 1,
        calls_in_flight: int = 1,
        tag: str = "",
        seconds: float = math.inf,
    ) -> list[Any]:
        """One output an item of ``items``, in order.

        A caller that is cancelled leaves the queue at once; a call that nobody waits for any more is cancelled.

        Args:
            params: what the items of one batch must have in common.
            max_batch: items in one call at most.
            replicas: how many replicas the model's calls can go to.
            calls_in_flight: calls of the model in a replica at once; two keep it busy while the next batch is gathered.
            tag: names the caller to whom performs the call.
            seconds: how long the caller waits.

        Raises:
            TimeoutError: the outputs were not there in time.
            OverloadedError: the queue is full; nothing was queued.
            Exception: what the call of any of the items raised.
        """
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line(model, max_batch, replicas, calls_in_flight * replicas)
        if line.items >= self._queue_limit and line.due:
            self._pump(line)
        if line.items >= self._queue_limit:
            raise OverloadedError(math.ceil(line.items * line.seconds_per_item))
        loop = asyncio.get_running_loop()
        ticket = _Ticket(loop.create_future(), [None] * len(items), len(items), tag)
        queue = line.waiting.setdefault(params, deque())
        for start in range(0, len(items), line.max_batch):
            queue.append(_Piece(ticket, start, items[start : start + line.max_batch]))
        line.items += len(items)
        if not line.due:
            line.due = True
            loop.call_soon(self._pump, line)
        # A timer for each caller costs a fifth of what `asyncio.timeout` does.
        timer = None if math.isinf(seconds) else loop.call_later(max(0.0, seconds), _expire, ticket)
        try:
            await ticket.answered
        finally:
            if timer is not None:
                timer.cancel()
            if ticket.missing:
                self._leave(line, ticket)
        return ticket.outputs

    def waiting(self, model: str) -> int:
        """Items that wait for ``model`` and are not in a call yet."""
        line = self._lines.get(model)
        return line.items if line else 0

    async def close(self) -> None:
        """Cancel every call in flight; its callers are cancelled too."""
        tasks = [task for line in self._lines.values() for task in line.calls]
        for line in self._lines.values():
            for queue in line.waiting.values():
                for piece in queue:
                    piece.ticket.answered.cancel()
            line.waiting.clear()
            line.items = 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pump(self, line: _Line) -> None:
        line.due = False
        while line.may_call():
            params, pieces = line.gather()
            task = asyncio.get_running_loop().create_task(self._perform(line, params, pieces))
            line.calls[task] = pieces
            task.add_done_callback(lambda done: self._finish(line, done))
        if not line.calls and not line.waiting and self._lines.get(line.model) is line:
            del self._lines[line.model]

    async def _perform(self, line: _Line, params: bytes, pieces: list[_Piece]) -> None:
        items = list(pieces[0].items) if len(pieces) == 1 else [item for piece in pieces for item in piece.items]
        started = time.perf_counter()
        outputs = await self._send(
            line.model, params, items, tuple(dict.fromkeys(piece.ticket.tag for piece in pieces))
        )
        if len(outputs) != len(items):
            raise RuntimeError(f"{line.model} gave {len(outputs)} outputs for {len(items)} inputs")
        spent = (time.perf_counter() - started) / (len(items) * line.most_calls)
        line.seconds_per_item += 0.2 * (spent - line.seconds_per_item)
        position = 0
        for piece in pieces:
            ticket, count = piece.ticket, len(piece.items)
            ticket.outputs[piece.start : piece.start + count] = outputs[position : position + count]
            position += count
            ticket.missing -= count
            if not ticket.missing and not ticket.answered.done():
                ticket.answered.set_result(None)

    def _finish(self, line: _Line, task: asyncio.Task[None]) -> None:
        pieces = line.calls.pop(task)
        failure = None if task.cancelled() else task.exception()
        for ticket in {piece.ticket for piece in pieces if not piece.ticket.answered.done()}:
            if task.cancelled():
                ticket.answered.cancel()
            elif failure is not None:
                ticket.answered.set_exception(failure)
            else:
                continue
            line.drop(ticket)
        self._pump(line)

    def _leave(self, line: _Line, ticket: _Ticket) -> None:
        """The caller is gone, or one of its calls failed: its waiting pieces and now unwanted calls go too."""
        if not ticket.answered.cancel() and not ticket.answered.cancelled():
            ticket.answered.exception()  # seen: the caller was cancelled while it arrived
        line.drop(ticket)
        for task, pieces in line.calls.items():
            if all(piece.ticket.answered.done() for piece in pieces):
                task.cancel()
