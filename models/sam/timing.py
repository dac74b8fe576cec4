"""What a sharp step costs beside a plain one."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.core.classifiers import Architecture, build_classifier
from models.core.devices import device_name
from models.core.optim import SAM
from models.core.parts import Row
from models.core.trainer_options import SharpnessAware

BLOCK, BLOCKS, BATCH = 20, 15, 128


def measure_steps(architecture: Architecture, device: torch.device) -> Row:
    """Milliseconds a step of SGD and of SAM around it, medians over alternating blocks, and the median ratio.

    Alternating, because a machine that others use changes its speed within seconds.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (BATCH, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = (torch.arange(BATCH) % 10).to(device)
    network = build_classifier(architecture, inputs, 10).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = inputs.to(device)
    optimizers = [
        SAM(torch.optim.SGD(network.parameters(), 1e-3, 0.9, nesterov=True), options, network)
        for options in (SharpnessAware(), SharpnessAware(kind="sam", rho=0.05))
    ]

    def closure() -> Tensor:
        network.zero_grad()
        loss = F.cross_entropy(network(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def seconds(optimizer: SAM) -> float:
        _wait(device)
        started = time.perf_counter()
        for _ in range(BLOCK):
            optimizer.step(closure)
        _wait(device)
        return (time.perf_counter() - started) / BLOCK

    for optimizer in optimizers:
        seconds(optimizer)
    times = np.array([[seconds(optimizer) for optimizer in optimizers] for _ in range(BLOCKS)])
    plain, sharp = 1000 * np.median(times, axis=0)
    return {
        "network": architecture, "device": device_name(device), "batch": BATCH, "sgd_ms": float(plain),
        "sam_ms": float(sharp), "ratio": float(np.median(times[:, 1] / times[:, 0])),
    }  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
