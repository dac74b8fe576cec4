"""What reading a request's inputs needs from outside: limits, and the data sets of the caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, InputError, InputSpec, VectorSpec, fit_image, fit_vector
from service.inputs import ItemLimits, SampleReference, parse_items, split_items
from service.problems import FieldError, Problem


@dataclass
class Reader:
    """Reads the inputs of one request; each data set that it names is loaded once.

    Args:
        load: gives a data set of the caller by id.
        samples: gives the number of samples of one, without loading it.
    """

    limits: ItemLimits
    load: Callable[[str], Dataset]
    samples: Callable[[str], int]
    _loaded: dict[str, Dataset] = field(default_factory=dict)

    def items(self, value: Any, spec: InputSpec, where: str = "/input") -> list[Any]:
        """The model's inputs: pictures, vectors or texts.

        Raises:
            Problem: 422 naming each item that does not fit, 404 for an unknown data set.
        """
        parsed = parse_items(split_items(value, spec, where), spec, self.limits, where)
        return [
            self._sample(item, spec, f"{where}/{position}" if len(parsed) > 1 else where)
            if isinstance(item, SampleReference)
            else item
            for position, item in enumerate(parsed)
        ]

    def dataset(self, dataset_id: str, where: str) -> Dataset:
        """A data set of the caller.

        Raises:
            Problem: 404 where there is none.
        """
        if dataset_id not in self._loaded:
            try:
                self._loaded[dataset_id] = self.load(dataset_id)
            except KeyError:
                raise unknown_dataset(dataset_id, where) from None
        return self._loaded[dataset_id]

    def size(self, dataset_id: str, where: str) -> int:
        """Samples of a data set of the caller.

        Raises:
            Problem: 404 where there is none.
        """
        try:
            return self.samples(dataset_id)
        except KeyError:
            raise unknown_dataset(dataset_id, where) from None

    def _sample(self, reference: SampleReference, spec: InputSpec, where: str) -> Any:
        dataset = self.dataset(reference.dataset, f"{where}/dataset")
        if reference.index >= len(dataset):
            errors = [FieldError(f"{where}/index", f"the data set has {len(dataset)} samples")]
            raise Problem(422, "no such sample", errors=errors, code="invalid_input")
        try:
            return _fit(dataset, reference.index, spec)
        except InputError as error:
            raise Problem(422, str(error), errors=[FieldError(where, str(error))], code="invalid_input") from None


def _fit(dataset: Dataset, index: int, spec: InputSpec) -> Any:
    samples: Any = dataset.inputs
    match spec:
        case ImageSpec():
            dataset.require_kind("images")
            return fit_image(samples[index], spec)
        case VectorSpec():
            dataset.require_kind("vectors")
            return fit_vector(samples[index], spec)
        case _:
            dataset.require_kind("text")
            return samples[index]


def unknown_dataset(dataset_id: str, where: str) -> Problem:
    """404 for a data set that is not there, or not the caller's."""
    detail = f"there is no data set `{dataset_id[:100]}`"
    return Problem(404, detail, errors=[FieldError(where, detail)], code="dataset_not_found")
