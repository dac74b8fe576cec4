"""Which columns of a table hold the label, the inputs and the identifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.types as pt

from models.core.dataset import Kind
from models.core.datasets.errors import DatasetError
from models.core.datasets.options import DatasetOptions

LABEL_NAMES = ("label", "labels", "y", "class", "target")
ID_NAMES = ("id", "sample_id")
IMAGE_NAMES = ("image", "images", "img", "picture")
TEXT_NAMES = ("text", "texts", "sentence", "content", "document")
LIST_NAMES = ("features", "vector", "embedding", "x")
PAIR_NAMES = (("text", "text_pair"), ("text_a", "text_b"), ("sentence1", "sentence2"), ("document", "summary"))


@dataclass(frozen=True)
class Columns:
    """The choice: ``inputs`` is one column of pictures, texts or lists, two of pairs, or the numeric ones."""

    kind: Kind
    inputs: list[str]
    label: str | None = None
    id: str | None = None
    ignored: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        """All columns that are read."""
        return [*self.inputs, *(name for name in (self.label, self.id) if name is not None)]


def choose_columns(schema: pa.Schema, options: DatasetOptions) -> Columns:
    """Choose by ``options`` first, then by the usual names, then by type.

    Raises:
        DatasetError: a named column is not there, or what the inputs are is not clear; lists the columns.
    """
    _check_names(schema, options)
    label = options.label or _find(schema, LABEL_NAMES, _is_label)
    identifier = options.id or _find(schema, ID_NAMES, lambda type_: pt.is_integer(type_) or is_text(type_))
    taken = {label, identifier}
    kind, inputs = _named_inputs(options) or _found_inputs(schema, [n for n in schema.names if n not in taken])
    if label in inputs or identifier in inputs:
        raise DatasetError("a column is used both as an input and as the label or the id", field="/options")
    used = {*inputs, label, identifier}
    return Columns(kind, inputs, label, identifier, [name for name in schema.names if name not in used])


def _check_names(schema: pa.Schema, options: DatasetOptions) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1}) if len(schema) < 10_000 else []
    if twice:
        raise DatasetError(f"the column {twice[0]!r} is there twice")
    if not schema.names:
        raise DatasetError("the file has no columns")
    named = {
        **{key: [getattr(options, key)] for key in ("label", "image", "text", "text_pair", "id")},
        "features": options.features or [],
    }
    present = set(schema.names)
    for option, names in named.items():
        for name in names:
            if name is not None and name not in present:
                raise DatasetError(
                    f"there is no column {name!r}; the columns are {shorten(schema.names)}", field=f"/options/{option}"
                )


def _named_inputs(options: DatasetOptions) -> tuple[Kind, list[str]] | None:
    if options.image:
        return "images", [options.image]
    if options.text:
        return ("pairs", [options.text, options.text_pair]) if options.text_pair else ("text", [options.text])
    return ("vectors", options.features) if options.features else None


def _found_inputs(schema: pa.Schema, free: list[str]) -> tuple[Kind, list[str]]:
    types = {name: schema.field(name).type for name in free}
    texts = [name for name, type_ in types.items() if is_text(type_)]
    lists = [name for name, type_ in types.items() if is_number_list(type_)]
    images = [name for name in free if name.lower() in IMAGE_NAMES and _is_image(types[name])]
    pair = next((pair for pair in PAIR_NAMES if set(pair) <= set(texts)), None)
    found: list[tuple[Kind, str, list[str]]] = [
        ("images", "image", images or [name for name, type_ in types.items() if _is_binary(type_)]),
        ("pairs", "text_pair", list(pair or ())),
        ("text", "text", [name for name in texts if name.lower() in TEXT_NAMES]),
        ("vectors", "features", [name for name in lists if name.lower() in LIST_NAMES] or lists),
        ("vectors", "", [name for name, type_ in types.items() if is_number(type_)]),
        ("text", "text", texts),
    ]
    for kind, option, names in found:
        if names:
            one_column = kind != "pairs" and option
            return kind, _single(names, option, kind) if one_column else names
    raise DatasetError(
        f"no column of pictures, texts or numbers was found among {shorten(schema.names)}; name it in options",
        field="/options",
    )


def _single(names: list[str], option: str, what: str) -> list[str]:
    if len(names) > 1:
        raise DatasetError(f"several columns hold {what}: {shorten(names)}; name one", field=f"/options/{option}")
    return names


def _find(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    for wanted in names:
        for column in schema:
            if column.name.lower() == wanted and fits(column.type):
                return str(column.name)
    return None


def shorten(names: Sequence[str], most: int = 12) -> str:
    """A list for a message, cut after ``most`` names."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def is_text(type_: pa.DataType) -> bool:
    """Strings, dictionary-encoded or not."""
    if pt.is_dictionary(type_):
        return is_text(type_.value_type)
    return bool(pt.is_string(type_) or pt.is_large_string(type_))


def is_number(type_: pa.DataType) -> bool:
    """Integers, floats, booleans and decimals."""
    return bool(pt.is_integer(type_) or pt.is_floating(type_) or pt.is_boolean(type_) or pt.is_decimal(type_))


def is_list(type_: pa.DataType) -> bool:
    """Lists of fixed or varying length."""
    return bool(pt.is_list(type_) or pt.is_large_list(type_) or pt.is_fixed_size_list(type_))


def is_number_list(type_: pa.DataType) -> bool:
    """Lists of numbers."""
    return is_list(type_) and is_number(type_.value_type)


def _is_binary(type_: pa.DataType) -> bool:
    if pt.is_struct(type_):
        index = type_.get_field_index("bytes")
        return index >= 0 and _is_binary(type_.field(index).type)
    return bool(pt.is_binary(type_) or pt.is_large_binary(type_))


def _is_image(type_: pa.DataType) -> bool:
    return _is_binary(type_) or is_text(type_) or is_list(type_) or bool(pt.is_struct(type_))


def _is_label(type_: pa.DataType) -> bool:
    return is_text(type_) or pt.is_null(type_) or (is_number(type_) and not pt.is_decimal(type_))
