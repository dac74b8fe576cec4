"""Sharpness-aware minimization: an optimiser around any other (Foret et al., ICLR 2021, algorithm 1).

A trainer writes its step as a closure and builds its optimiser through :class:`SAM` whatever its options say::

    optimizer = SAM(torch.optim.SGD(network.parameters(), 0.1), config.sharpness_aware, network, total_steps=steps)


    def closure(rows: slice = slice(None)) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(batch[rows]), labels[rows])
        loss.backward()
        return loss.detach()


    loss = optimizer.step(closure, samples=len(batch))

Random augmentation belongs before the closure, which runs twice a step on the same batch. Several processes: every
one computes its own perturbation, so that ``m`` is the batch of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.core.trainer_options import SharpnessAware

Closure = Callable[..., Tensor]
_STEPS, _PERTURBED, _KEPT = "sharpness_aware_steps", "sharpness_aware_perturbed", "perturbation"
ASAM_ETA = 0.01  # Kwon et al. 2021, section 4


def perturbation(
    gradients: Sequence[Tensor], rho: float, p: float = 2, scales: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """First-order maximiser of the loss on the ball ``|eps / T|_p <= rho`` (eq. 2; ASAM eq. 3 with scales ``T``).

    ``eps = rho T sign(T g) |T g|^(q-1) / (|T g|_q^q)^(1/p)`` with ``1/p + 1/q = 1``, one norm over all tensors
    together; zero where all gradients are zero.
    """
    scaled = list(gradients) if scales is None else [g * t for g, t in zip(gradients, scales, strict=True)]
    if p == float("inf"):
        directions = [g.sign() for g in scaled]
    else:
        # Relative to the largest entry: the powers neither overflow nor vanish, whatever the loss is scaled by.
        units = list(torch._foreach_div(scaled, _divisor(nn.utils.get_total_norm(scaled, float("inf")))))
        if p == 2:
            norm, powers = nn.utils.get_total_norm(units), units
        else:
            q = p / (p - 1)
            norm = torch.stack([u.abs().pow(q).sum() for u in units]).sum() ** (1 / p)
            powers = [u.sign() * u.abs().pow(q - 1) for u in units]
        directions = list(torch._foreach_div(powers, _divisor(norm)))
    if scales is not None:
        directions = [d * t for d, t in zip(directions, scales, strict=True)]
    return list(torch._foreach_mul(directions, rho))


def _divisor(norm: Tensor) -> Tensor:
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def adaptive_scales(parameters: Sequence[Tensor], eta: float = ASAM_ETA) -> list[Tensor]:
    """ASAM's ``T``: ``|w| + eta`` of weights, 1 of biases and of the scales of normalisation (one-dimensional)."""
    return [w.detach().abs() + eta if w.ndim > 1 else torch.ones_like(w) for w in parameters]


class SAM(torch.optim.Optimizer):
    """Steps ``base`` with the gradient at the weights that are worst within ``rho``; second derivatives are dropped.

    Momentum, moments, decay and clipping of ``base`` see that gradient only. The weights are restored bit for bit
    before ``base`` steps. Buffers of ``module`` (batch norm's
    statistics) and the global random state come out of a step as after the first, unperturbed pass; dropout draws
    the same mask in both. Between two renewals (``every``) the only pass is at the weights that the last perturbation
    moves. Param groups are those of ``base``, so that schedules act on both. ``kind: none`` is ``base`` itself.

    Args:
        base: any optimiser of dense parameters.
        module: whatever the closure runs; its buffers are protected.
        total_steps: of the training; needed for ``start_fraction``.
        clip_norm: largest global norm of the gradient that ``base`` sees.
        scaler: for closures that call backward on a loss scaled by it; unscaling, skipped steps and updates are
            done here, as a scaler knows no closures.

    Raises:
        ValueError: ``start_fraction`` without ``total_steps``, or a sparse gradient.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        options: SharpnessAware,
        module: nn.Module,
        *,
        total_steps: int | None = None,
        clip_norm: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if options.start_fraction > 0 and total_steps is None:
            raise ValueError("start_fraction needs the number of steps of the training")
        super().__init__(base.param_groups, base.defaults)
        self.base, self.options, self.module = base, options, module
        self.clip_norm, self.scaler = clip_norm, scaler
        self.steps, self.perturbed_steps = 0, 0
        self._first = round(options.start_fraction * (total_steps or 0))
        self._kept: dict[Tensor, Tensor] = {}
        self._share_state()

    def _share_state(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure: Closure | None = None, samples: int | None = None) -> Tensor:  # type: ignore[override]
        """One step; the loss of the first pass.

        Args:
            closure: zeroes the gradients, computes the mean loss of the batch, calls backward and returns the loss.
                With ``m`` or ``second_pass_batch`` it takes a slice of the batch's rows.
            samples: rows of the batch; needed with those two options.

        Raises:
            ValueError: there is no closure, ``samples`` is missing, or a gradient is sparse.
        """
        if closure is None:
            raise ValueError("SAM needs a closure: it computes the loss twice")
        closure = torch.enable_grad()(closure)
        options = self.options
        if (options.m is not None or options.second_pass_batch < 1) and samples is None:
            raise ValueError("samples: m and second_pass_batch need the number of rows")
        active = options.radius > 0 and self.steps >= self._first
        loss = self._gradients(closure, samples) if active else closure()
        self.steps += 1
        self._update()
        return loss

    def _gradients(self, closure: Closure, samples: int | None) -> Tensor:
        """Leave the gradient at the perturbed weights in ``grad``."""
        self.perturbed_steps += 1
        options = self.options
        renew = (self.steps - self._first) % options.every == 0 or not self._kept
        if not renew:
            return self._perturbed_pass(closure)
        if samples is None or (options.m is None and options.second_pass_batch == 1):
            return self._two_passes(closure, None)
        if options.m is None or options.m >= samples:
            return self._two_passes(closure, range(samples))
        total: dict[Tensor, Tensor] = {}
        loss: Tensor | None = None
        for start in range(0, samples, options.m):
            part = range(start, min(start + options.m, samples))
            share = len(part) / samples
            value = share * self._two_passes(closure, part)
            loss = value if loss is None else loss + value
            for parameter in self._trained():
                assert parameter.grad is not None
                seen = total.get(parameter)
                total[parameter] = share * parameter.grad if seen is None else seen + share * parameter.grad
        for parameter, gradient in total.items():
            parameter.grad = gradient
        assert loss is not None
        return loss

    def _two_passes(self, closure: Closure, rows: range | None) -> Tensor:
        """The first pass, the perturbation, and the pass whose gradient stays."""
        state = _random_state()
        loss = closure() if rows is None else closure(slice(rows.start, rows.stop))
        if not self._finite():
            return loss  # the scaler skips the step
        self._kept = self._perturbation()
        after = _random_state()
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        _set_random_state(state)
        if rows is None:
            self._perturbed_pass(closure)
        else:
            count = max(1, round(self.options.second_pass_batch * len(rows)))
            self._perturbed_pass(closure, slice(rows.start, rows.start + count))
        _set_random_state(after)
        for buffer, kept in buffers:
            buffer.copy_(kept)
        return loss

    def _perturbed_pass(self, closure: Closure, *rows: slice) -> Tensor:
        """Loss at the perturbed weights; its gradient stays in ``grad``."""
        with self._moved(self._kept):
            loss = closure(*rows)
        if self.options.decay_in_perturbation:
            for weight, decay in self._decayed():
                if weight.grad is not None and weight in self._kept:
                    weight.grad.add_(self._kept[weight], alpha=decay)
        return loss

    def _perturbation(self) -> dict[Tensor, Tensor]:
        """``eps`` of every parameter that is perturbed."""
        chosen = [w for w in self._trained() if self.options.include == "all" or w.ndim > 1]
        if not chosen:
            return {}
        gradients = [w.grad for w in chosen if w.grad is not None]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("SAM does not support sparse gradients")
        if self.options.decay_in_perturbation:
            decay = dict(self._decayed())
            gradients = [g + decay[w] * w for g, w in zip(gradients, chosen, strict=True)]
        scales = adaptive_scales(chosen) if self.options.kind == "asam" else None
        return dict(
            zip(chosen, perturbation(gradients, self.options.radius, float(self.options.p), scales), strict=True)
        )

    @contextmanager
    def _moved(self, offsets: dict[Tensor, Tensor]) -> Iterator[None]:
        """Weights plus ``offsets`` inside, exactly the weights afterwards, also after an exception."""
        weights = list(offsets)
        copies = [w.clone() for w in weights]
        if weights:
            torch._foreach_add_(weights, list(offsets.values()))
        try:
            yield
        finally:
            if weights:
                torch._foreach_copy_(weights, copies)

    def _finite(self) -> bool:
        """Whether a scaled first pass can be used; its gradients are unscaled only by the scaler, once a step."""
        if self.scaler is None:
            return True
        return bool(torch.stack([w.grad.isfinite().all() for w in self._trained() if w.grad is not None]).all())

    def _update(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.base)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self._trained()), self.clip_norm)
        if self.scaler is None:
            self.base.step()
        else:
            self.scaler.step(self.base)
            self.scaler.update()

    def _trained(self) -> Iterator[Tensor]:
        return (w for group in self.param_groups for w in group["params"] if w.grad is not None)

    def _decayed(self) -> Iterator[tuple[Tensor, float]]:
        """Weights with the factor of their penalty's gradient, in the unit of ``grad``."""
        unit = 1.0 if self.scaler is None else self.scaler.get_scale()
        return ((w, unit * group.get("weight_decay", 0.0)) for group in self.param_groups for w in group["params"])

    def state_dict(self) -> dict[str, Any]:
        """The state of ``base`` with the counters and, where it is reused, the perturbation."""
        state = self.base.state_dict()
        if self.options.kind == "none":
            return state
        slots = {index: dict(entry) for index, entry in state["state"].items()}
        if self.options.every > 1:
            order = [w for group in self.param_groups for w in group["params"]]
            for index, weight in enumerate(order):
                if weight in self._kept:
                    slots.setdefault(index, {})[_KEPT] = self._kept[weight]
        groups = [dict(group) for group in state["param_groups"]]
        groups[0] |= {_STEPS: self.steps, _PERTURBED: self.perturbed_steps}
        return {"state": slots, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        groups = [dict(group) for group in state_dict["param_groups"]]
        self.steps, self.perturbed_steps = groups[0].pop(_STEPS, 0), groups[0].pop(_PERTURBED, 0)
        slots = {index: dict(entry) for index, entry in state_dict["state"].items()}
        kept = {index: entry.pop(_KEPT) for index, entry in slots.items() if _KEPT in entry}
        self.base.load_state_dict({"state": {i: e for i, e in slots.items() if e}, "param_groups": groups})
        self._share_state()
        order = [w for group in self.param_groups for w in group["params"]]
        self._kept = {order[index]: value.to(order[index]) for index, value in kept.items()}


def _random_state() -> tuple[Tensor, list[Tensor]]:
    """States of the global generators: the CPU's, and of every CUDA device in use."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if in_use else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
