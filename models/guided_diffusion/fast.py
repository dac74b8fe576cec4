"""A version's networks for many pictures at once on an accelerator: compiled, in mixed precision, float32 outside."""

from __future__ import annotations

import torch
from torch import Tensor

from models.core.devices import Precision, autocast
from models.guided_diffusion.versions import Classify, Networks


class FastDenoiser:
    """The denoiser of ``networks``, compiled for each size of batch."""

    def __init__(self, networks: Networks, precision: Precision) -> None:
        self.conditioning = networks.denoiser.conditioning
        self._device, self._precision = networks.device, precision
        self._call = torch.compile(networks.denoiser.modulated, dynamic=False)

    def modulated(self, x: Tensor, rows: Tensor) -> Tensor:
        """As :meth:`models.guided_diffusion.network.UNet.modulated`."""
        with autocast(self._device, self._precision):
            return self._call(x, rows).float()


def fast_guide(guide: Classify | None, device: torch.device, precision: Precision) -> Classify | None:
    """``guide``, compiled for each size of batch."""
    if guide is None:
        return None
    compiled = torch.compile(guide, dynamic=False)

    def classify(x: Tensor, t: Tensor) -> Tensor:
        with autocast(device, precision):
            return compiled(x, t).float()

    return classify
