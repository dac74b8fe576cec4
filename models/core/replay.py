"""Steps of training that a GPU records once and replays: small networks otherwise wait for kernels to be launched."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Calls before the recording, each a real step: libraries choose their kernels and optimisers make their state in them.
UNRECORDED = 3


class Replayed:
    """Calls ``step``; on a CUDA device, from the fourth call on by replaying a recording of its kernels.

    The step takes and returns nothing. It reads and writes tensors that stay where they are, draws from ``generators``
    alone, asks no tensor for its value, and its optimisers are ``capturable``. Numbers of Python that it reads are
    those of the recording, which runs on the stream that is current at the call.

    Args:
        generators: random generators on ``device`` that the step draws from.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, *generators: torch.Generator) -> None:
        self._step, self._device, self._generators = step, device, generators
        self._left = UNRECORDED
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the step once."""
        if self._device.type != "cuda":
            self._step()
        elif self._graph is not None:
            self._graph.replay()
        elif self._left > 0:
            self._left -= 1
            self._unrecorded()
        else:
            self._graph = self._recorded()
            self._graph.replay()

    def _unrecorded(self) -> None:
        # Not on the default stream: what autograd keeps of it could not be recorded.
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._step()
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _recorded(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._step()
        return graph
