"""POST, GET and DELETE of data sets."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from models.core.dataset import Dataset
from models.core.datasets import DatasetError, DatasetRecord, UnknownDatasetError
from models.core.datasets.reading import format_of
from models.core.inputs import ImageSpec, UInt8, fit_image
from service.auth import Caller, require
from service.content import Content, content_response
from service.ingesting import full, ingest, is_full, warm
from service.pictures import encode_png
from service.predicting import while_connected
from service.problems import FieldError, Problem, unavailable
from service.routing import json_response
from service.schemas.datasets import DatasetAnswer, DatasetList, Sample, SampleList, Thumbnail
from service.services import Services, get_services
from service.uploads import Upload, receive_upload
from workers.client import QueueUnavailableError

router = APIRouter(prefix="/v1/datasets", tags=["data sets"])

CallerOf = Annotated[Caller, Depends(require("data"))]
ServicesOf = Annotated[Services, Depends(get_services)]

THUMBNAIL_SIDE = 96
VECTOR_NUMBERS = 4096
TEXT_CHARACTERS = 4000
MEDIA_TYPES = {
    "npz": "application/zip",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "zip": "application/zip",
    "tar.gz": "application/gzip",
}

_FORM_PARTS = {
    "file": {"type": "string", "format": "binary", "description": "npz, parquet, csv, jsonl, zip or tar.gz"},
    "name": {"type": "string", "maxLength": 200},
    "options": {"type": "string", "description": "JSON object: which columns or arrays hold what"},
}
_FORM_SCHEMA = {"type": "object", "required": ["file"], "properties": _FORM_PARTS}
_FORM: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}}}
}


@router.post("", status_code=201, response_model=DatasetAnswer, openapi_extra=_FORM)
async def create_dataset(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """Upload a data set; the same content with the same options again is the same data set (200)."""
    folder = services.settings.home.resolve() / "cache" / "uploads"
    try:
        async with receive_upload(request, folder, services.settings.max_upload_bytes) as upload:
            record, created = await _add(request, services, caller.owner, upload)
    except OSError as error:
        if is_full(error):
            raise full() from error
        raise
    headers = {"Location": f"/v1/datasets/{record.id}"}
    return json_response(DatasetAnswer.of(record).model_dump(mode="json"), 201 if created else 200, headers)


@router.get("", response_model=DatasetList)
async def list_datasets(
    caller: CallerOf,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """The caller's data sets, the newest first."""
    records = await asyncio.to_thread(services.datasets.list, _owner(caller))
    if after is not None:
        positions = [i for i, record in enumerate(records) if record.id == after]
        if not positions:
            raise Problem(422, "unknown cursor", errors=[FieldError("after", "not the id of a listed data set")])
        records = records[positions[0] + 1 :]
    data = [DatasetAnswer.of(record) for record in records[:limit]]
    return json_response(DatasetList(data=data, has_more=len(records) > limit).model_dump(mode="json"))


@router.get("/{dataset_id}", response_model=DatasetAnswer)
async def get_dataset(dataset_id: str, caller: CallerOf, services: ServicesOf) -> Response:
    """One data set."""
    record = await _get(services, caller, dataset_id)
    return json_response(DatasetAnswer.of(record).model_dump(mode="json"))


@router.get("/{dataset_id}/samples", response_model=SampleList, response_model_exclude_unset=True)
async def list_samples(
    dataset_id: str,
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> Response:
    """Samples with their labels; pictures as small PNGs, long texts and vectors cut."""
    record = await _get(services, caller, dataset_id)
    read = partial(_samples, services, record, offset, limit)
    samples = await asyncio.to_thread(read)
    if samples is None:
        await while_connected(request, warm(request, services, record))
        samples = await asyncio.to_thread(read)
    if samples is None:
        raise unavailable("the data set's parsed form cannot be kept on this machine", 60, "no_room")
    answer = SampleList(data=samples, has_more=offset + limit < record.samples)
    return json_response(answer.model_dump(mode="json", exclude_unset=True) | {"object": "list"})


@router.get("/{dataset_id}/content", response_class=Response)
async def get_content(dataset_id: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """The file as it was uploaded; ranges and entity tags are honoured."""
    record = await _get(services, caller, dataset_id)
    path, format_ = await asyncio.to_thread(services.datasets.file, _owner(caller), dataset_id)
    content = Content(
        open=partial(_open, path),
        size=record.bytes,
        sha256=record.sha256,
        media_type=MEDIA_TYPES[format_],
        filename=f"{record.id}.{format_}",
    )
    return content_response(request, content)


@router.delete("/{dataset_id}", status_code=204)
async def delete_dataset(dataset_id: str, caller: CallerOf, services: ServicesOf) -> Response:
    """Delete a data set that no open job uses."""
    await _get(services, caller, dataset_id)
    try:
        in_use = await services.jobs.dataset_in_use(dataset_id)
    except QueueUnavailableError as error:
        raise unavailable("the queue cannot say whether a job uses the data set", 5, "queue_unavailable") from error
    if in_use:
        raise Problem(409, "a job that has not ended uses the data set", code="dataset_in_use")
    await asyncio.to_thread(services.datasets.delete, _owner(caller), dataset_id)
    return Response(status_code=204)


async def _add(request: Request, services: Services, owner: str, upload: Upload) -> tuple[DatasetRecord, bool]:
    try:
        format_ = format_of(upload.filename)
    except DatasetError as error:
        raise Problem(422, str(error), errors=[FieldError("/file", str(error))], code="invalid_dataset") from error
    find = partial(services.datasets.find, owner, upload.sha256, format_, upload.options)
    found = await asyncio.to_thread(find)
    if found is not None:
        return found, False
    return await while_connected(request, ingest(request, services, owner, upload))


async def _get(services: Services, caller: Caller, dataset_id: str) -> DatasetRecord:
    try:
        return await asyncio.to_thread(services.datasets.get, _owner(caller), dataset_id)
    except UnknownDatasetError:
        raise Problem(404, f"there is no data set `{dataset_id[:100]}`", code="dataset_not_found") from None


def _owner(caller: Caller) -> str | None:
    return None if caller.admin else caller.owner


def _open(path: Path) -> Any:
    return path.open("rb")


def _samples(services: Services, record: DatasetRecord, offset: int, limit: int) -> list[Sample] | None:
    dataset = services.datasets.cached(record)
    if dataset is None:
        return None
    return [_sample(dataset, index) for index in range(offset, min(offset + limit, record.samples))]


def _sample(dataset: Dataset, index: int) -> Sample:
    item: Any = dataset.inputs[index]
    fields: dict[str, Any] = {}
    if dataset.kind == "images":
        fields["image"] = _thumbnail(np.asarray(item))
    elif dataset.kind == "vectors":
        fields["vector"] = item[:VECTOR_NUMBERS].tolist()
    elif dataset.kind == "text":
        fields["text"] = item[:TEXT_CHARACTERS]
    else:
        fields["text"], fields["text_pair"] = (text[:TEXT_CHARACTERS] for text in item)
    label = None if dataset.labels is None else dataset.class_names[int(dataset.labels[index])]
    identifier = str(index) if dataset.sample_ids is None else dataset.sample_ids[index]
    return Sample(object="sample", index=index, id=identifier, label=label, **fields)


def _thumbnail(picture: UInt8) -> Thumbnail:
    height, width = picture.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    spec = ImageSpec(
        height=max(1, round(height * scale)),
        width=max(1, round(width * scale)),
        channels=1 if picture.shape[2] == 1 else 3,
    )
    data = encode_png(fit_image(picture, spec))
    return Thumbnail(data=data, media_type="image/png", width=width, height=height)
