"""Resumable training: a run's whole state as named arrays, so that a killed job continues bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Arrays = dict[str, npt.NDArray[Any]]


def pack_training(
    modules: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generators: Mapping[str, torch.Generator],
) -> tuple[Arrays, dict[str, Any]]:
    """State of networks, optimisers and random generators (and torch's global one) as arrays and facts."""
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
) -> None:
    """Restore in place what :func:`pack_training` packed."""
    torch.set_rng_state(torch.from_numpy(arrays["rng/global"]))
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict(
            {key[len(prefix) :]: torch.from_numpy(np.array(a)) for key, a in arrays.items() if key.startswith(prefix)}
        )
    for name, generator in generators.items():
        generator.set_state(torch.from_numpy(arrays[f"rng/{name}"]))
    for name, optimizer in optimizers.items():
        facts = meta[f"optimizer/{name}"]
        state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in facts["plain"].items()}
        prefix = f"optimizer/{name}/"
        for key, array in arrays.items():
            if key.startswith(prefix):
                index, _, slot = key[len(prefix) :].partition("/")
                state.setdefault(int(index), {})[slot] = torch.from_numpy(np.array(array))
        optimizer.load_state_dict({"state": state, "param_groups": facts["param_groups"]})
