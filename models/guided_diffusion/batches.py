"""A picture must be the same whatever the batch it rides in, and some processors' kernels add up in another order for a
small batch. A batch that is too small for that is filled up with copies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 8


def least_batch(network: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, int, int], t: Tensor) -> int:
    """The smallest batch in which each picture's output is, bit for bit, the one in a batch of eight.

    Args:
        network: from pictures ``(B, C, H, W)`` and steps ``(B,)``.
        t: one step of the full process, int64 ``(1,)``, on the network's device.
    """
    x = torch.randn(LARGE, *shape, generator=torch.Generator().manual_seed(0)).to(t.device)
    with torch.inference_mode():
        whole = network(x.contiguous(memory_format=torch.channels_last), t.expand(LARGE))
        for count in range(LARGE - 1, 0, -1):
            part = network(x[:count].contiguous(memory_format=torch.channels_last), t.expand(count))
            if not torch.equal(part, whole[:count]):
                return count + 1
    return 1


def filled(rows: Tensor, least: int) -> Tensor:
    """``rows`` ``(B, ...)`` with copies behind them up to ``least``."""
    if len(rows) >= least:
        return rows
    return rows[torch.arange(least, device=rows.device) % len(rows)]
