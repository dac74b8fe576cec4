"""Tensors of the Open Inference Protocol: JSON data and the binary extension, to NumPy and back."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.problems import FieldError, Problem

Array = npt.NDArray[Any]

DTYPES: dict[str, str] = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = {np.dtype(code): name for name, code in DTYPES.items()}
MAX_DIMENSIONS = 8


def split_body(raw: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object of an infer request and the binary data behind it.

    Raises:
        Problem: 400 for a header that does not fit the body, or a body that is not a JSON object.
    """
    end = len(raw)
    if header_length is not None:
        if not header_length.isdigit() or not 0 < int(header_length) <= len(raw):
            detail = f"a JSON object of {header_length[:20]} bytes does not fit a body of {len(raw)} bytes"
            raise _malformed("Inference-Header-Content-Length", detail)
        end = int(header_length)
    try:
        body = orjson.loads(raw[:end])
    except orjson.JSONDecodeError as error:
        hint = "" if header_length else "; binary tensors need the header Inference-Header-Content-Length"
        raise _malformed("/", f"the body is not valid JSON: {error}{hint}") from None
    if not isinstance(body, dict):
        raise _malformed("/", "the body is not a JSON object")
    return body, memoryview(raw)[end:]


def decode_tensors(inputs: Any, binary: memoryview) -> dict[str, Array]:
    """The named input tensors; BYTES become arrays of ``bytes`` objects.

    Raises:
        Problem: 400 naming the tensor's field that is wrong.
    """
    if not isinstance(inputs, list) or not inputs:
        raise _malformed("/inputs", "expected a list of at least one tensor")
    tensors: dict[str, Array] = {}
    position = 0
    for index, tensor in enumerate(inputs):
        where = f"/inputs/{index}"
        name, shape, datatype, size = _describe(tensor, where)
        if name in tensors:
            raise _malformed(f"{where}/name", f"the tensor `{name}` is there twice")
        if size is None:
            tensors[name] = _from_json(tensor.get("data"), shape, datatype, where)
            continue
        chunk = binary[position : position + size]
        if len(chunk) < size:
            detail = f"{size} bytes announced, {len(chunk)} are left in the body"
            raise _malformed(f"{where}/parameters/binary_data_size", detail)
        tensors[name] = _from_binary(chunk, shape, datatype, where)
        position += size
    if position != len(binary):
        raise _malformed("/inputs", f"{len(binary) - position} bytes behind the last tensor belong to none")
    return tensors


def encode_tensor(name: str, array: Array, binary: bool) -> tuple[dict[str, Any], bytes]:
    """An output tensor's JSON description, and its binary data where ``binary``."""
    text = array.dtype == object
    described: dict[str, Any] = {
        "name": name,
        "datatype": "BYTES" if text else DATATYPES[array.dtype],
        "shape": list(array.shape),
    }
    if not binary:
        described["data"] = [item.decode() for item in array.ravel()] if text else np.ascontiguousarray(array).ravel()
        return described, b""
    raw = b"".join(struct.pack("<I", len(item)) + item for item in array.ravel()) if text else array.tobytes()
    described["parameters"] = {"binary_data_size": len(raw)}
    return described, raw


def _describe(tensor: Any, where: str) -> tuple[str, tuple[int, ...], str, int | None]:
    if not isinstance(tensor, dict):
        raise _malformed(where, "expected a tensor object")
    name, shape, datatype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(name, str) or not name:
        raise _malformed(f"{where}/name", "expected a name")
    if not isinstance(datatype, str) or (datatype != "BYTES" and datatype not in DTYPES):
        raise _malformed(f"{where}/datatype", f"expected one of {', '.join([*DTYPES, 'BYTES'])}")
    if (
        not isinstance(shape, list)
        or not 0 < len(shape) <= MAX_DIMENSIONS
        or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 31 for n in shape)
    ):
        raise _malformed(f"{where}/shape", f"expected one to {MAX_DIMENSIONS} sizes from 0")
    parameters = tensor.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise _malformed(f"{where}/parameters/binary_data_size", "expected a number of bytes")
    if size is not None and "data" in tensor:
        raise _malformed(f"{where}/data", "a tensor has either `data` or `binary_data_size`")
    return name, tuple(shape), datatype, size


def _from_json(data: Any, shape: tuple[int, ...], datatype: str, where: str) -> Array:
    if not isinstance(data, list):
        raise _malformed(f"{where}/data", "expected a list")
    try:
        if datatype == "BYTES":
            flat = np.array([item.encode() for item in np.array(data, dtype=object).ravel()], dtype=object)
        else:
            flat = _numbers(data, DTYPES[datatype])
        return flat.reshape(shape)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        detail = f"does not hold {datatype} of shape {list(shape)}: {str(error)[:200]}"
        raise _malformed(f"{where}/data", detail) from None


def _numbers(data: list[Any], code: str) -> Array:
    values = np.asarray(data)
    dtype = np.dtype(code)
    if values.dtype == object or values.dtype.kind not in "biuf":
        raise ValueError("not numbers")
    if dtype.kind in "iu":
        if values.dtype.kind == "f":
            if not (values == np.floor(values)).all():
                raise ValueError("not whole numbers")
            # NumPy has made floats of integers on both sides of 2^63, and rounded them
            return np.array([int(value) for value in np.asarray(data, dtype=object).ravel()], dtype=dtype)
        bounds = np.iinfo(dtype)
        if values.size and (values.min() < bounds.min or values.max() > bounds.max):
            raise ValueError("a number is out of range")
    return values.astype(dtype)


def _from_binary(chunk: memoryview, shape: tuple[int, ...], datatype: str, where: str) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    if datatype == "BYTES":
        items = _split_bytes(chunk, where)
        if len(items) != count:
            raise _malformed(where, f"{len(items)} elements do not have the shape {list(shape)}")
        flat = np.empty(count, dtype=object)
        flat[:] = items
        return flat.reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    if len(chunk) != count * dtype.itemsize:
        detail = f"{len(chunk)} bytes are not {datatype} of shape {list(shape)}, which has {count * dtype.itemsize}"
        raise _malformed(f"{where}/parameters/binary_data_size", detail)
    return np.frombuffer(chunk, dtype=dtype).reshape(shape)


def _split_bytes(chunk: memoryview, where: str) -> list[bytes]:
    items, position = [], 0
    while position < len(chunk):
        if position + 4 > len(chunk):
            raise _malformed(where, "a length prefix of BYTES is cut off")
        (length,) = struct.unpack_from("<I", chunk, position)
        position += 4
        if position + length > len(chunk):
            raise _malformed(where, "an element of BYTES is cut off")
        items.append(bytes(chunk[position : position + length]))
        position += length
    return items


def _malformed(field: str, detail: str) -> Problem:
    return Problem(400, f"{field}: {detail}", errors=[FieldError(field, detail)], code="malformed_tensor")
