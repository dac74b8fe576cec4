"""Where and in which precision a method computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]


def pick_device(setting: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, otherwise the CPU.

    Raises:
        ValueError: the device does not exist here.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(setting)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {setting} was asked for, but this machine has no CUDA device")
    return device


def device_name(device: torch.device) -> str:
    """The accelerator's name, or ``CPU``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision on ``device``; a no-op for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
