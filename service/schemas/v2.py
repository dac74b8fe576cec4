"""Bodies of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ServerMetadata(BaseModel):
    """What serves."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """Name, type and shape of a tensor; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model's tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Tensor(BaseModel):
    """A tensor with its data inline, or behind the JSON object in binary (``binary_data_size``)."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """Input tensors and the outputs wanted; all outputs when none is named."""

    id: str | None = None
    inputs: list[Tensor]
    outputs: list[RequestedOutput] = []
    parameters: dict[str, Any] = {}


class InferResponse(BaseModel):
    """Output tensors."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Tensor]
