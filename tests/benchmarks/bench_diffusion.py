"""Pictures a second against diffusers: the same U-Net with the same weights, DDIM in 25 steps, one thread."""

import statistics
import time

import torch

from models.core.checkpoint import Checkpoint
from models.core.outputs import Draw
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.schema import Config, Params
from models.guided_diffusion.versions import SHIPPED
from tests.benchmarks.peers.diffusers_unet import build_peer, copy_weights, draw, scheduler
from tests.benchmarks.report import Report

STEPS = 25
COLUMNS = ["pictures", "diffusers, as it comes", "diffusers, channels last", "ours", "ours / as it comes",
           "ours / channels last"]  # fmt: skip


def _peers(method):
    config = Config.model_validate(Checkpoint(SHIPPED).config.config)
    classes = len(method.networks.class_names)
    plain, last = (build_peer(config, method.networks.shape[0], classes) for _ in range(2))
    for peer in (plain, last):
        copy_weights(method.networks.denoiser, peer)
    return plain, last.to(memory_format=torch.channels_last)


def _contenders(method, count):
    """What draws ``count`` pictures, class-conditional and unguided, by name."""
    plain, last = _peers(method)
    labels = torch.arange(count) % len(method.networks.class_names)
    noise = torch.randn(count, *method.networks.shape, generator=torch.Generator().manual_seed(0))
    draws = [Draw(int(label), seed) for seed, label in enumerate(labels)]
    params = Params(steps=STEPS, guidance_scale=0)
    ddim = scheduler(method.networks.schedule, "linspace")
    return {
        "plain": lambda: draw(plain, ddim, noise, labels, STEPS),
        "last": lambda: draw(last, ddim, noise.contiguous(memory_format=torch.channels_last), labels, STEPS),
        "ours": lambda: method.samples(draws, params),
    }


def _row(report, method, count, rounds):
    contenders = _contenders(method, count)
    seconds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, compute in contenders.items():
            started = time.perf_counter()
            compute()
            if number:  # The first round warms up.
                seconds[name].append(time.perf_counter() - started)
    speeds = [count / statistics.median(seconds[name]) for name in contenders]
    ratios = [
        statistics.median(peer / ours for peer, ours in zip(seconds[name], seconds["ours"], strict=True))
        for name in ("plain", "last")
    ]
    report.add(f"{count} at once", *speeds, *(f"**{ratio:.2f}**" for ratio in ratios))


def run(*, quick):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method = GuidedDiffusion.load(Checkpoint(SHIPPED), torch.device("cpu"))
        ours, peer = (sum(p.numel() for p in net.parameters()) for net in (method.networks.denoiser, _peers(method)[0]))
        report = Report("Pictures a second against diffusers 0.42.1, 28 x 28, DDIM in 25 steps, one thread", COLUMNS)
        for count, rounds in ((8, 1), (1, 2)) if quick else ((64, 4), (1, 15)):
            _row(report, method, count, rounds)
        report.notes += [
            f"the same network with the same weights on both sides ({ours / 1e6:.2f} and {peer / 1e6:.2f} million "
            "parameters), no compiler on either; without guidance, which diffusers does not have",
            "ratios are medians over rounds in which the contenders take turns",
        ]
        return [report]
    finally:
        torch.set_num_threads(threads)
