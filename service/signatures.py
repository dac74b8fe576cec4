"""Which tensors a model takes and gives in the Open Inference Protocol, by its input spec and capability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.core.inputs import ClassSpec, ImageSpec, InputError, SidesSpec, TextSpec, VectorSpec, fit_images
from models.core.outputs import Draw, Side, Sides
from service.catalog import Served
from service.inputs import MAX_ITEMS, ItemLimits, decode_picture
from service.problems import FieldError, Problem

Array = npt.NDArray[Any]


def describe_inputs(served: Served) -> list[dict[str, Any]]:
    """Metadata of the input tensors; -1 is any size."""
    match served.config.input:
        case ImageSpec() as spec:
            return [{"name": "image", "datatype": "UINT8", "shape": [-1, *spec.shape]}]
        case VectorSpec() as spec:
            return [{"name": "vector", "datatype": "FP32", "shape": [-1, spec.size]}]
        case TextSpec():
            return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        case ClassSpec():
            return [{"name": name, "datatype": "INT64", "shape": [-1]} for name in ("class_index", "seed")]
        case SidesSpec():
            return [{"name": side, "datatype": "FP64", "shape": [-1, -1]} for side in ("a", "b")] + [
                {"name": f"{side}_labels", "datatype": "INT64", "shape": [-1], "optional": True} for side in ("a", "b")
            ]


def describe_outputs(served: Served) -> list[dict[str, Any]]:
    """Metadata of the output tensors."""
    match served.version.entry.card.capability:
        case "embed":
            width = served.config.outputs.get("dimensions", -1)
            return [{"name": "embedding", "datatype": "FP32", "shape": [-1, width]}]
        case "classify":
            return [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(served.config.class_names)]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ]
        case "generate":
            sides = [served.config.outputs.get(side, -1) for side in ("height", "width", "channels")]
            return [{"name": "image", "datatype": "UINT8", "shape": [-1, *sides]}]
        case "summarise":
            return [
                {"name": "text", "datatype": "BYTES", "shape": [-1]},
                {"name": "reward", "datatype": "FP32", "shape": [-1]},
            ]
        case _:
            return [{"name": "distance", "datatype": "FP64", "shape": [1]}]


def read_inputs(tensors: dict[str, Array], served: Served, limits: ItemLimits) -> list[Any]:
    """The inputs of ``Method.predict`` from the named tensors.

    ``image`` also takes encoded pictures (PNG, JPEG, WebP) as BYTES ``[N]``.

    Raises:
        Problem: 422 naming the tensor that is missing, unknown or does not fit.
    """
    described = {item["name"]: item for item in describe_inputs(served)}
    for name in tensors.keys() - described.keys():
        raise _invalid(name, f"not an input of this model; expected {', '.join(described)}")
    for name, item in described.items():
        if name not in tensors and not item.get("optional"):
            raise _invalid(name, "this input is missing")
    spec = served.config.input
    if isinstance(spec, SidesSpec):
        return [Sides(_side(tensors, "a"), _side(tensors, "b"))]
    if isinstance(spec, ClassSpec):
        return _draws(tensors["class_index"], tensors["seed"], len(served.config.class_names))
    name = next(iter(described))
    tensor = tensors[name]
    try:
        match spec:
            case ImageSpec():
                return list(_pictures(tensor, spec, limits))
            case VectorSpec():
                return list(_vectors(tensor, spec))
            case TextSpec():
                return _texts(tensor, min(spec.max_characters, limits.text_characters))
    except InputError as error:
        raise _invalid(name, str(error)) from None


def write_outputs(outputs: Sequence[Any], served: Served) -> dict[str, Array]:
    """The named output tensors of a prediction."""
    match served.version.entry.card.capability:
        case "embed":
            return {"embedding": np.asarray(outputs, dtype=np.float32)}
        case "classify":
            probabilities = np.asarray(outputs, dtype=np.float32)
            names = np.array([name.encode() for name in served.config.class_names], dtype=object)
            return {"probabilities": probabilities, "label": names[probabilities.argmax(axis=1)]}
        case "generate":
            return {"image": np.stack([output.image for output in outputs])}
        case "summarise":
            best = [output.candidates[0] for output in outputs]
            return {
                "text": np.array([candidate.text.encode() for candidate in best], dtype=object),
                "reward": np.array([candidate.reward for candidate in best], dtype=np.float32),
            }
        case _:
            return {"distance": np.array([outputs[0].distance], dtype=np.float64)}


def _pictures(tensor: Array, spec: ImageSpec, limits: ItemLimits) -> Any:
    if tensor.dtype == object:
        decoded = [decode_picture(item, limits.pixels) for item in tensor.ravel()]
        return fit_images(decoded, spec)
    if tensor.dtype != np.uint8:
        raise InputError(f"expected UINT8 pixels or BYTES of encoded pictures, got {tensor.dtype}")
    if tensor.ndim not in (3, 4) or 0 in tensor.shape:
        raise InputError(f"expected pixels of shape [N, height, width, channels], got {list(tensor.shape)}")
    if tensor.shape[1] * tensor.shape[2] > limits.pixels:
        raise InputError(f"a picture has more than {limits.pixels} pixels")
    return fit_images(tensor, spec) if tensor.ndim == 4 else fit_images(tensor[..., None], spec)


def _vectors(tensor: Array, spec: VectorSpec) -> Array:
    if tensor.dtype == object or tensor.ndim != 2 or tensor.shape[1] != spec.size or not len(tensor):
        raise InputError(f"expected numbers of shape [N, {spec.size}], got {list(tensor.shape)}")
    vectors = tensor.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise InputError("the vectors hold NaN or infinite values")
    return vectors


def _texts(tensor: Array, limit: int) -> list[str]:
    if tensor.dtype != object or not tensor.size:
        raise InputError("expected BYTES of shape [N]")
    try:
        texts = [item.decode("utf-8") for item in tensor.ravel()]
    except UnicodeDecodeError:
        raise InputError("a text is not valid UTF-8") from None
    if any(len(text) > limit for text in texts):
        raise InputError(f"a text has more than {limit} characters")
    return texts


def _draws(classes: Array, seeds: Array, count: int) -> list[Draw]:
    for name, tensor in (("class_index", classes), ("seed", seeds)):
        if tensor.dtype.kind not in "iu" or tensor.ndim != 1 or not 0 < len(tensor) <= MAX_ITEMS:
            raise _invalid(name, f"expected INT64 of shape [N], N from 1 to {MAX_ITEMS}, got {list(tensor.shape)}")
    if classes.shape != seeds.shape:
        raise _invalid("seed", f"expected one for each of {len(classes)} classes, got {len(seeds)}")
    if classes.min() < -1 or classes.max() >= count:
        raise _invalid("class_index", f"expected -1 for no class, or a class from 0 to {count - 1}")
    if seeds.min() < 0 or seeds.max() > np.iinfo(np.int64).max:
        raise _invalid("seed", "expected numbers from 0 to 2^63 - 1")
    pairs = zip(classes.tolist(), seeds.tolist(), strict=True)
    return [Draw(None if index < 0 else index, seed) for index, seed in pairs]


def _side(tensors: dict[str, Array], name: str) -> Side:
    points, labels = tensors[name], tensors.get(f"{name}_labels")
    if points.dtype == object or points.ndim != 2 or 0 in points.shape or not np.isfinite(points).all():
        raise _invalid(name, f"expected finite numbers of shape [n, d], got {list(points.shape)}")
    if labels is None:
        return Side(points.astype(np.float64))
    if labels.dtype.kind not in "iu" or labels.shape != (len(points),):
        raise _invalid(f"{name}_labels", f"expected whole numbers of shape [{len(points)}]")
    names, indices = np.unique(labels, return_inverse=True)
    return Side(points.astype(np.float64), None, indices.astype(np.int64), [str(n) for n in names])


def _invalid(tensor: str, detail: str) -> Problem:
    return Problem(422, f"{tensor}: {detail}", errors=[FieldError(tensor, detail)], code="invalid_input")
