"""Several networks trained at once, each as :func:`models.aum.fit.fit` would train it alone.

A step of one small network is too little work for an accelerator; a step of fifty, stacked, takes hardly longer.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state

from models.aum.fit import Schedule, batch_sizes
from models.aum.network import Classifier
from models.core.margins import Margins, NonFiniteLogitsError
from models.core.training import Arrays

_Kind = tuple[int, float, bool]  # batch size, learning rate, whether its passes are counted
_WARM_UP = 3  # steps before one is captured: libraries allocate in their first calls


@dataclass(frozen=True, eq=False)
class Member:
    """One of the trainings.

    Attributes:
        build: makes the untrained network from torch's global generator.
        first: position of the member's first sample in the inputs; the others follow it.
        targets: int64 ``(N,)`` labels of its samples.
        chosen: int64 positions in ``0..N-1`` of those that it learns from.
        seed: of the network and of the order of the samples.
    """

    build: Callable[[], Classifier]
    first: int
    targets: torch.Tensor
    chosen: torch.Tensor
    seed: int


class Passes:
    """What the training passes of ``members`` trainings on ``samples`` samples each say about every sample.

    Attributes:
        margins: sample ``i`` of member ``e`` is number ``e * samples + i``.
        probability: float64 ``(members * samples,)``, sums of the assigned class's probability.
    """

    def __init__(self, members: int, samples: int, classes: int, device: torch.device) -> None:
        self.margins = Margins(members * samples, classes, device=device)
        self.probability = torch.zeros(members * samples, dtype=torch.float64, device=device)
        self._samples = samples
        self._first = torch.arange(members, device=device)[:, None] * samples

    @torch.no_grad()
    def update(self, logits: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor) -> None:
        """Count one step: logits ``(E, B, c)``, targets and positions int64 ``(E, B)``."""
        indices = (self._first + positions).flatten()
        self.margins.update(logits.flatten(0, 1), targets.flatten(), indices)
        own = logits.softmax(dim=2).gather(2, targets[:, :, None])
        self.probability.index_add_(0, indices, own.flatten().double())

    def split(self) -> list[Arrays]:
        """Of each member ``aum``, ``last``, ``logit_sums`` as in :class:`Margins`, and the mean ``probability``.

        Raises:
            NonFiniteLogitsError: a training diverged.
        """
        whole = {
            "aum": self.margins.aum(),
            "last": self.margins.last,
            "logit_sums": self.margins.logit_sums,
            "probability": self.probability / self.margins.counts,
        }
        parts = {name: torch.split(tensor.cpu(), self._samples) for name, tensor in whole.items()}
        return [{name: part[number].numpy() for name, part in parts.items()} for number in range(len(self._first))]


def fit_side_by_side(
    inputs: torch.Tensor,
    members: Sequence[Member],
    schedule: Schedule,
    report: Callable[[float], None],
    passes: Passes | None = None,
    skip_epochs: int = 0,
) -> list[Classifier]:
    """Train all members together on the device of ``inputs``; augmentation and sharpness-aware steps are not for them.

    Args:
        inputs: ``(M, ...)`` as the networks take them, of all members.
        members: of one architecture and one number of samples ``N``. One that learns from fewer than another starts
            its next pass early, so that all make the same number of steps on full batches.
        report: called after each epoch with the share that is done.
        passes: filled after the first ``skip_epochs`` epochs.

    Raises:
        NonFiniteLogitsError: a training diverged.
    """
    ensemble = _Ensemble(inputs, members, schedule, passes)
    samples = max(len(member.chosen) for member in members)
    orders = [_orders(member, samples) for member in members]
    for epoch in range(schedule.epochs):
        order = torch.stack([next(stream) for stream in orders]).to(inputs.device)
        for positions in torch.split(order, batch_sizes(samples, schedule.batch_size), dim=1):
            ensemble.advance(positions, schedule.rate(epoch), counted=epoch >= skip_epochs)
        if not bool(torch.isfinite(ensemble.loss)):
            raise NonFiniteLogitsError("training diverged: lower the learning rate")
        report((epoch + 1) / schedule.epochs)
    return ensemble.networks()


class _Ensemble:
    """The stacked networks and their optimiser."""

    def __init__(
        self, inputs: torch.Tensor, members: Sequence[Member], schedule: Schedule, passes: Passes | None
    ) -> None:
        device = inputs.device
        self.inputs, self.passes, self.loss = inputs, passes, torch.zeros((), device=device)
        self._networks = [_built(member).to(device).train() for member in members]
        self._template = copy.deepcopy(self._networks[0])
        self._parameters, self._buffers = stack_module_state(self._networks)
        self._optimizer = torch.optim.SGD(
            list(self._parameters.values()), lr=schedule.learning_rate, momentum=0.9, nesterov=True,
            weight_decay=schedule.weight_decay, foreach=True,
        )  # fmt: skip
        self._targets = torch.stack([member.targets for member in members]).to(device)
        self._first = torch.tensor([[member.first] for member in members], device=device)
        self._seen: Counter[_Kind] = Counter()
        self._graphs: dict[_Kind, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def advance(self, positions: torch.Tensor, rate: float, counted: bool) -> None:
        """One step on the samples at ``positions`` int64 ``(E, B)``.

        On CUDA a step is captured and replayed: launching its hundred kernels one by one takes longer than they run.
        """
        self._optimizer.param_groups[0]["lr"] = rate
        kind = positions.shape[1], rate, counted
        self._seen[kind] += 1
        if positions.device.type != "cuda":
            self._step(positions, counted)
        elif self._seen[kind] <= _WARM_UP:
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                self._step(positions, counted)
            torch.cuda.current_stream().wait_stream(beside)
        else:
            if kind not in self._graphs:
                self._graphs[kind] = torch.cuda.CUDAGraph(), positions.clone()
                with torch.cuda.graph(self._graphs[kind][0]):
                    self._step(self._graphs[kind][1], counted)
            graph, captured = self._graphs[kind]
            captured.copy_(positions)
            graph.replay()

    def _step(self, positions: torch.Tensor, counted: bool) -> None:
        labels = self._targets.gather(1, positions)
        self._optimizer.zero_grad()
        logits = self._forward(self.inputs[self._first + positions])
        # Every member's mean loss, summed: none sees another's gradient.
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()) * len(labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self.passes is not None and counted:
            self.passes.update(logits.detach(), labels, positions)
        self.loss.copy_(loss.detach())

    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 1:
            return torch.vmap(self._logits)(self._parameters, self._buffers, batch)
        # One alone by the kernels of a single network, bit for bit.
        own = [{name: tensor[0] for name, tensor in stacked.items()} for stacked in (self._parameters, self._buffers)]
        return self._logits(own[0], own[1], batch[0])[None]

    def _logits(
        self, parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], batch: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self._template, (parameters, buffers), (batch,))
        return logits

    def networks(self) -> list[Classifier]:
        """Each member's network in evaluation mode."""
        for number, network in enumerate(self._networks):
            stacked = self._parameters | self._buffers
            network.load_state_dict({name: tensor[number] for name, tensor in stacked.items()})
        return [network.eval() for network in self._networks]


def _built(member: Member) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        return member.build()


def _orders(member: Member, samples: int) -> Iterator[torch.Tensor]:
    """The positions of each epoch: passes over the chosen samples, one after the other, cut every ``samples``."""
    generator = torch.Generator().manual_seed(member.seed)
    left = member.chosen[:0]
    while True:
        while len(left) < samples:
            left = torch.cat((left, member.chosen[torch.randperm(len(member.chosen), generator=generator)]))
        yield left[:samples]
        left = left[samples:]
