"""Langevin dynamics on one Gaussian a class."""

import torch

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.figures import Figures
from models.core.inputs import ClassSpec, ImageSpec
from models.core.method import Method, MethodError
from models.core.outputs import Generated

from .schema import Config, Params

RATE = 0.05
PREVIEW_EVERY = 20


class Langevin(Method[Params, Config]):
    """Each pixel a Gaussian of its class."""

    def __init__(self, tensors):
        self.means, self.deviations = tensors["means"], tensors["deviations"]

    @classmethod
    def load(cls, checkpoint, device):
        """Means and deviations, ``(C + 1, H, W)``; the last are those of all classes."""
        return cls(checkpoint.tensors(device))

    def predict(self, inputs, params):
        """The last of :meth:`stream`."""
        *_, final = self.stream(inputs, params)
        return final

    def stream(self, inputs, params):
        """``x += r (m - x) + s sqrt(2 r - r^2) z``, whose fixed law is the Gaussian; each seed has its noise."""
        rows = torch.tensor([-1 if draw.class_index is None else draw.class_index for draw in inputs])
        means, deviations = self.means[rows], self.deviations[rows]
        generators = [torch.Generator().manual_seed(draw.seed) for draw in inputs]
        x = torch.full_like(means, 0.5)
        scale = (2 * RATE - RATE**2) ** 0.5
        for step in range(params.steps):
            noise = torch.stack([torch.randn(means.shape[1:], generator=generator) for generator in generators])
            x = x + RATE * (means - x) + deviations * scale * noise
            if step % PREVIEW_EVERY == 0 and 0 < step < params.steps - 1:
                yield self._outputs(x, inputs, {"fraction": step / params.steps})
        yield self._outputs(x, inputs, {"steps": params.steps})

    def _outputs(self, x, inputs, details):
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)[..., None].numpy()
        return [
            Generated(image, draw.seed, draw.class_index, details) for image, draw in zip(pixels, inputs, strict=True)
        ]

    @classmethod
    def train(cls, dataset, config, run):
        """Means and deviations of each class's pixels."""
        images = dataset.inputs
        spec = ImageSpec(height=images.shape[1], width=images.shape[2], channels=1)
        pixels = torch.from_numpy(dataset.images(spec)[..., 0]).float() / 255
        labels = torch.from_numpy(dataset.require_labels())
        if len(labels.unique()) < len(dataset.class_names):
            raise MethodError("every class needs a picture")
        parts = [pixels[labels == c] for c in range(len(dataset.class_names))] + [pixels]
        return Checkpoint.write(
            run.scratch / "checkpoint",
            CheckpointConfig(
                method=cls.card.slug,
                input=ClassSpec(),
                class_names=dataset.class_names,
                outputs={"height": spec.height, "width": spec.width, "channels": 1},
                data_sha256=dataset.sha256,
            ),
            {
                "means": torch.stack([part.mean(0) for part in parts]),
                "deviations": torch.stack([part.std(0, correction=0) for part in parts]),
            },
        )

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        """Nothing is measured."""
        return Figures(figures=[])
