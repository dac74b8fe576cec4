"""The method behind the contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.method import Method, MethodError
from models.core.outputs import Draw, Generated
from models.core.run import Run
from models.guided_diffusion.batches import LARGE, least_batch
from models.guided_diffusion.judge import judge_pictures, to_pictures
from models.guided_diffusion.sampler import Denoise, gradient_of, sample
from models.guided_diffusion.schema import Config, Params
from models.guided_diffusion.versions import Networks, open_networks, write_version

PREVIEWS = (0.25, 0.5, 0.75)


class GuidedDiffusion(Method[Params, Config]):
    """A diffusion model of labelled pictures and the classifier that steers it."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> GuidedDiffusion:
        """Build denoiser, classifier (where the version has one) and judge.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        return cls(open_networks(checkpoint, device))

    def predict(self, inputs: Sequence[Draw], params: Params) -> list[Generated]:
        """Draw one picture an input.

        Raises:
            MethodError: a class that the version does not have, or parameters that it cannot follow.
        """
        with torch.inference_mode():
            return self._finished(inputs, params, self.samples(inputs, params))

    def stream(self, inputs: Sequence[Draw], params: Params) -> Iterator[Sequence[Generated]]:
        """Estimates of the pictures after a quarter, a half and three quarters of the steps, then the pictures."""
        due = list(PREVIEWS)
        steps = self.steps(inputs, params)
        final = torch.empty(0)
        while True:
            with torch.inference_mode():
                found = next(steps, None)
            if found is None:
                break
            share, final = found
            if due and due[0] <= share < 1:
                while due and due[0] <= share:
                    due.pop(0)
                shown = to_pictures(final)
                details = {"fraction": share, "steps": params.steps}
                yield [
                    Generated(picture, draw.seed, draw.class_index, dict(details))
                    for picture, draw in zip(shown, inputs, strict=True)
                ]
        with torch.inference_mode():
            finished = self._finished(inputs, params, final)
        yield finished

    def samples(self, inputs: Sequence[Draw], params: Params) -> Tensor:
        """The pictures before rounding, float32 ``(N, C, H, W)`` about [-1, 1].

        Raises:
            MethodError: as :meth:`predict`.
        """
        with torch.inference_mode():
            *_, (_, x) = self.steps(inputs, params)
        return x

    def steps(self, inputs: Sequence[Draw], params: Params) -> Iterator[tuple[float, Tensor]]:
        """As :func:`~models.guided_diffusion.sampler.sample`, for ``inputs``.

        Raises:
            MethodError: as :meth:`predict`.
        """
        networks = self.networks
        self._check(inputs, params)
        if params.eta is None:
            params = params.model_copy(update={"eta": networks.eta})
        classes = torch.tensor([-1 if draw.class_index is None else draw.class_index for draw in inputs])
        classes = classes.to(networks.device)
        null = networks.denoiser.conditioning.labels - 1
        told = torch.full_like(classes, null)
        if networks.conditional and not params.unconditional:
            told = torch.where(classes < 0, null, classes)
        steered = params.guidance_scale > 0 and bool((classes >= 0).any())
        fewest = min(len(inputs), int((classes >= 0).sum())) if steered else len(inputs)
        least, least_steered = self.least_batches if fewest < LARGE else (1, 1)
        gradient = None
        if steered and networks.classifier:
            gradient = gradient_of(networks.classifier, classes, least_steered)
        seeds = [draw.seed for draw in inputs]
        predict = Denoise(networks.denoiser, told, least)
        return sample(predict, gradient, networks.schedule, networks.shape, seeds, params, networks.device)

    @cached_property
    def least_batches(self) -> tuple[int, int]:
        """Of denoiser and classifier; see :func:`~models.guided_diffusion.batches.least_batch`.

        A compiled network is compiled for each batch size, so nobody should look who draws large batches.
        """
        networks = self.networks
        t = torch.full((1,), len(networks.schedule) // 2, device=networks.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return Denoise(networks.denoiser, torch.zeros_like(t))(x, t)

        steered = least_batch(networks.classifier, networks.shape, t) if networks.classifier else 1
        return least_batch(denoise, networks.shape, t), steered

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train judge, classifier and denoiser; see :func:`~models.guided_diffusion.versions.write_version`."""
        return write_version(dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """The proof on the checkpoint's own data, or fidelity and diversity against the user's pictures."""
        from models.guided_diffusion.evaluate import evaluate_on, prove

        return prove(checkpoint, run) if dataset is None else evaluate_on(checkpoint, run, dataset)

    def _check(self, inputs: Sequence[Draw], params: Params) -> None:
        networks = self.networks
        for draw in inputs:
            if draw.class_index is not None and not 0 <= draw.class_index < len(networks.class_names):
                raise MethodError(f"class_label: {draw.class_index} is not one of {len(networks.class_names)} classes")
        if params.steps > len(networks.schedule):
            raise MethodError(f"steps: this version's process has {len(networks.schedule)}")
        if params.sampler == "ddpm" and params.variance == "learned" and not networks.learned_variance:
            raise MethodError("variance: this version has learned none; `small` and `large` work")
        if params.guidance_scale > 0 and networks.classifier is None:
            raise MethodError("guidance_scale: this version has no classifier; 0 draws without")

    def _finished(self, inputs: Sequence[Draw], params: Params, x: Tensor) -> list[Generated]:
        pictures = to_pictures(x)
        beside = np.resize(pictures, (max(len(pictures), LARGE), *pictures.shape[1:]))  # repeats; see `batches`
        judged = judge_pictures(self.networks.judge, beside).probabilities[: len(pictures)]
        return [
            Generated(
                picture,
                draw.seed,
                draw.class_index,
                {
                    "class_probability": None if draw.class_index is None else float(row[draw.class_index]),
                    "steps": params.steps,
                },
            )
            for picture, draw, row in zip(pictures, inputs, judged, strict=True)
        ]
