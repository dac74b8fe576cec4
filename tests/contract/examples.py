"""Valid requests for any method, made from its checkpoint's input spec."""

import base64
import io

import numpy as np
from PIL import Image

from models.core.inputs import ClassSpec, ImageSpec, SidesSpec, TextSpec, VectorSpec


def png(array):
    """A picture as base64 of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def example_item(spec, seed=0):
    """One valid input item for ``spec``, as a client writes it."""
    rng = np.random.default_rng(seed)
    match spec:
        case ImageSpec():
            return png(rng.integers(0, 256, spec.shape, dtype=np.uint8))
        case VectorSpec():
            return rng.normal(size=spec.size).round(4).tolist()
        case TextSpec():
            return f"a text about a program that shows pictures, number {seed}"
        case ClassSpec():
            return {"seed": seed}
        case SidesSpec():
            return {"points": rng.normal(size=(24, 3)).round(4).tolist(), "labels": [i % 2 for i in range(24)]}


ROUTES = {
    "embed": "/v1/embeddings",
    "classify": "/v1/classifications",
    "distance": "/v1/distances",
    "generate": "/v1/images/generations",
    "summarise": "/v1/summaries",
}


def example_request(entry, checkpoint, count=1):
    """The route of a method and a valid body."""
    spec = checkpoint.config.input
    if isinstance(spec, SidesSpec):
        return ROUTES["distance"], {"model": entry.slug, "a": example_item(spec, 0), "b": example_item(spec, 1)}
    if isinstance(spec, ClassSpec):
        return ROUTES["generate"], {"model": entry.slug, "n": count, "parameters": example_item(spec)}
    items = [example_item(spec, seed) for seed in range(count)]
    body = {"model": entry.slug, "input": items}
    return ROUTES[entry.card.capability], body
