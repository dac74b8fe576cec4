"""Proof of the robust GAN: generators trained on digits of which a tenth are Fashion pictures, judged by a CNN."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, Int64, UInt8
from models.core.transport.labels import bures
from models.robust_ot.gan import generate, to_network
from models.robust_ot.networks import Generator
from models.robust_ot.pollution import area_under_roc
from models.robust_ot.proofs import Measured
from models.robust_ot.schema import Config

SHARE = 0.1
SETTING, CLEAN = "digits with 10% Fashion", "clean digits"
SUBJECTS = {"robust": "method", "plain": "plain WGAN-GP", "wide": "method, radius of 20%"}
SAMPLES = 2000
GREY = ImageSpec(height=28, width=28, channels=1)
_FASHION = 10


def polluted_digits(seed: int) -> tuple[Dataset, npt.NDArray[np.bool_]]:
    """8,000 training digits of which 800 are replaced by Fashion pictures, and which ones they are."""
    pictures = sources.load("digits", "train").images(GREY).copy()
    junk = sources.load("fashion-mnist", "train").images(GREY)
    rng = np.random.default_rng(seed)
    outlier = np.zeros(len(pictures), dtype=bool)
    count = round(SHARE * len(pictures))
    outlier[rng.choice(len(pictures), count, replace=False)] = True
    pictures[outlier] = junk[rng.choice(len(junk), count, replace=False)]
    return Dataset("images", pictures, name=f"digits with 10% Fashion, seed {seed}"), outlier


class Judge(nn.Module):
    """A small CNN that tells the ten digits and Fashion apart; its 64 features carry the Frechet distance."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, _FASHION + 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``(N, 11)``."""
        logits: Tensor = self.head(self.features(pictures))
        return logits


def train_judge(device: torch.device, epochs: int = 3) -> tuple[Judge, float]:
    """A judge trained on clean digits and Fashion training pictures, and its accuracy on held-out ones of both."""
    digits, fashion = sources.load("digits", "train"), sources.load("fashion-mnist", "train").select(range(4000))
    pictures = np.concatenate([digits.images(GREY), fashion.images(GREY)])
    labels = torch.from_numpy(np.concatenate([digits.require_labels(), np.full(len(fashion), _FASHION)]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = Judge().to(device)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(pictures), generator=random), 64):
            logits = judge(to_network(pictures[chosen.numpy()], device))
            loss = F.cross_entropy(logits, labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    test, other = sources.load("digits", "test"), sources.load("fashion-mnist", "test").select(range(2000))
    right = [
        (_classes(judge, test.images(GREY), device) == test.require_labels()).mean(),
        (_classes(judge, other.images(GREY), device) == _FASHION).mean(),
    ]
    return judge, float(np.mean(right))


@torch.no_grad()
def _classes(judge: Judge, pictures: UInt8, device: torch.device) -> Int64:
    found: Int64 = judge(to_network(pictures, device)).argmax(1).cpu().numpy()
    return found


@torch.no_grad()
def frechet_distance(judge: Judge, first: UInt8, second: UInt8, device: torch.device) -> float:
    """Frechet distance of the judge's features, each side as a Gaussian."""
    sides = [judge.features(to_network(pictures, device)).double().cpu() for pictures in (first, second)]
    means = [side.mean(0) for side in sides]
    covariances = [torch.cov(side.T)[None] for side in sides]
    return float((means[0] - means[1]).square().sum() + bures(*covariances)[0, 0])


def judged(
    judge: Judge, generator: Generator, config: Config, seed: int, real: UInt8, device: torch.device
) -> dict[str, float]:
    """What the judge says of 2,000 samples of a generator, beside held-out clean digits ``real``."""
    pictures = generate(generator, config, SAMPLES, seed, device)
    return {
        "Fashion share of samples": float((_classes(judge, pictures, device) == _FASHION).mean()),
        "Frechet distance to clean digits": frechet_distance(judge, pictures, real, device),
    }


def generator_claims(checkpoint: Checkpoint, measured: Measured) -> list[str]:
    """Measure the generators that the shipped checkpoint holds, and say what held; nothing for a user's version."""
    if "proof" not in checkpoint.config.outputs:
        return []
    accuracy = judge_generators(checkpoint, measured)

    def pair(quantity: str) -> tuple[float, float]:
        return measured.mean(quantity, "method", SETTING), measured.mean(quantity, "plain WGAN-GP", SETTING)

    def verdict(reached: bool) -> str:
        return "met" if reached else "missed"

    share, frechet = pair("Fashion share of samples"), pair("Frechet distance to clean digits")
    auroc = measured.mean("AUROC of training weights", "method", SETTING)
    entries = checkpoint.config.outputs["proof"].values()
    count = {subject: sum(entry["subject"] == subject for entry in entries) for subject in ("robust", "plain")}
    steps = min(entry["config"]["steps"] for entry in entries)
    wide = measured.values.get(("Fashion share of samples", SUBJECTS["wide"], SETTING), [])
    more = f" With a radius for 20% outliers it is {np.mean(wide):.1%} ({len(wide)} seed)." if wide else ""
    return [
        f"Generators trained on {SETTING} ({count['robust']} robust, {count['plain']} plain, {steps} critic steps): a "
        f"judge ({accuracy:.1%} right on held-out pictures) calls {share[0]:.1%} of the robust one's samples Fashion, "
        f"and {share[1]:.1%} of a plain WGAN-GP's; the target of half is {verdict(2 * share[0] <= share[1])}.{more}",
        f"Frechet distance to clean digits in the judge's features: robust {frechet[0]:.1f}, plain {frechet[1]:.1f} "
        f"({'lower' if frechet[0] < frechet[1] else 'not lower'}). Samples are far from converged at this size.",
        f"AUROC of the training pictures' weights as outlier scores: {auroc:.3f}; the target of 0.9 is "
        f"{verdict(auroc >= 0.9)}.",
    ]


def judge_generators(checkpoint: Checkpoint, measured: Measured) -> float:
    """Measure every generator that the shipped checkpoint holds; returns the judge's accuracy."""
    device = torch.device("cpu")
    judge, accuracy = train_judge(device)
    stored = checkpoint.tensors()
    real = sources.load("digits", "test").images(GREY)
    for name, entry in checkpoint.config.outputs["proof"].items():
        config = Config.model_validate(entry["config"])
        generator = Generator(config, 1)
        prefix = f"{name}.generator."
        generator.load_state_dict({k[len(prefix) :]: v for k, v in stored.items() if k.startswith(prefix)})
        subject = SUBJECTS[entry["subject"]]
        for quantity, value in judged(judge, generator, config, entry["seed"], real, device).items():
            measured.add(quantity, subject, SETTING, value)
        if config.outlier_fraction > 0.0:
            outlier = polluted_digits(entry["seed"])[1]
            weights = stored[f"{name}.sample_weights"].double().numpy()
            measured.add("AUROC of training weights", subject, SETTING, area_under_roc(-weights, outlier))
            measured.add("chi-square of training weights", subject, SETTING, 0.5 * float(np.mean((weights - 1) ** 2)))
    return accuracy
