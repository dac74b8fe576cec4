"""Resumable training: a run's whole state as named arrays, so that a killed job continues bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

Arrays = dict[str, npt.NDArray[Any]]


class Resumable(Protocol):
    """What else a training carries from epoch to epoch."""

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything as arrays and JSON-serialisable facts."""

    def load_state(self, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave."""


Parts = tuple[
    Mapping[str, torch.nn.Module],
    Mapping[str, torch.optim.Optimizer],
    Mapping[str, torch.Generator],
    Mapping[str, Resumable],
]


def under(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def pack_training(
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generators: Mapping[str, torch.Generator],
    others: Mapping[str, Resumable] = MappingProxyType({}),
) -> tuple[Arrays, dict[str, Any]]:
    """State of networks, optimisers, random generators (and torch's global one) and others as arrays and facts."""
    arrays: Arrays = {"rng/global": torch.get_rng_state().numpy()}
    meta: dict[str, Any] = {}
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            arrays[f"module/{name}/{key}"] = tensor.detach().cpu().numpy()
    for name, generator in generators.items():
        arrays[f"rng/{name}"] = generator.get_state().cpu().numpy()
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, slots in state["state"].items():
            for slot, value in slots.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"optimizer/{name}/{index}/{slot}"] = value.detach().cpu().numpy()
                else:
                    plain.setdefault(str(index), {})[slot] = value
        groups = [{key: _plain(value) for key, value in group.items()} for group in state["param_groups"]]
        meta[f"optimizer/{name}"] = {"param_groups": groups, "plain": plain}
    for name, other in others.items():
        kept, meta[f"other/{name}"] = other.state()
        arrays |= {f"other/{name}/{key}": array for key, array in kept.items()}
    return arrays, meta


def _plain(value: Any) -> Any:
    """A learning rate may be a tensor, as recorded steps need it; JSON keeps its number."""
    return value.item() if isinstance(value, torch.Tensor) else value


def unpack_training(
    arrays: Arrays,
    meta: Mapping[str, Any],
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generators: Mapping[str, torch.Generator],
    others: Mapping[str, Resumable] = MappingProxyType({}),
) -> None:
    """Restore in place what :func:`pack_training` packed."""
    torch.set_rng_state(torch.from_numpy(arrays["rng/global"]))
    for name, module in modules.items():
        kept = under(f"module/{name}/", arrays)
        module.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in kept.items()})
    for name, generator in generators.items():
        generator.set_state(torch.from_numpy(arrays[f"rng/{name}"]))
    for name, optimizer in optimizers.items():
        facts = meta[f"optimizer/{name}"]
        state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in facts["plain"].items()}
        for key, array in under(f"optimizer/{name}/", arrays).items():
            index, _, slot = key.partition("/")
            state.setdefault(int(index), {})[slot] = torch.from_numpy(np.array(array))
        optimizer.load_state_dict({"state": state, "param_groups": facts["param_groups"]})
    for name, other in others.items():
        other.load_state(under(f"other/{name}/", arrays), meta[f"other/{name}"])
