"""Data sets: upload, list, delete."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepnight.client import encoding
from deepnight.client.answers import Dataset, known
from deepnight.client.calls import Call, Flow
from deepnight.client.flows.paging import id_of, listed
from deepnight.client.progress import Counted, upload_bar


def upload(
    source: str | Path | npt.NDArray[Any] | Sequence[Any],
    *,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Flow[Dataset]:
    """Upload a data set: the path of a file, an array of pictures (uint8) or vectors, or a list of texts or of pairs of
    texts, with their ``labels``. The same content again is the same data set.

    Args:
        labels: integers or names, one a sample; not for files, which hold their own.
        options: which columns or arrays of a file hold what.
        progress: show a bar; None shows one on a terminal.
    """
    if isinstance(source, (str, Path)):
        return (yield from _upload_file(Path(source), name or Path(source).stem, dict(options or {}), progress))
    with tempfile.TemporaryDirectory(prefix="deepnight-") as folder:
        chosen = dict(options or {})
        if isinstance(source, np.ndarray):
            path = Path(folder, f"{name or 'samples'}.npz")
            with path.open("wb") as file:
                encoding.npz(file, source, labels, class_names)
        else:
            path = Path(folder, f"{name or 'samples'}.jsonl")
            pair = bool(source) and not isinstance(source[0], str)
            chosen |= {"text": "text"} | ({"text_pair": "text_pair"} if pair else {})
            chosen |= ({"label": "label"} if labels is not None else {}) | (
                {"class_names": list(class_names)} if class_names else {}
            )
            with path.open("wb") as file:
                encoding.jsonl(file, source, labels)
        return (yield from _upload_file(path, name or "samples", chosen, progress))


def _upload_file(path: Path, name: str, options: dict[str, Any], progress: bool | None) -> Flow[Dataset]:
    with upload_bar(path, progress) as tell:
        opened: list[Counted] = []

        def form() -> dict[str, Any]:
            opened.append(Counted(path, tell))
            data = {"name": name} | ({"options": json.dumps(options)} if options else {})
            return {"files": {"file": (path.name, opened[-1])}, "data": data}

        try:
            response = yield Call("POST", "/v1/datasets", form=form, patience=600)
        finally:
            for file in opened:
                file.close()
    return known(Dataset, response.json())


def datasets() -> Flow[list[Dataset]]:
    """Your data sets, the newest first."""
    return [known(Dataset, row) for row in (yield from listed("/v1/datasets"))]


def dataset(dataset_id: str) -> Flow[Dataset]:
    """One data set."""
    response = yield Call("GET", f"/v1/datasets/{dataset_id}")
    return known(Dataset, response.json())


def delete_dataset(dataset: str | Dataset) -> Flow[None]:
    """Delete a data set that no open job uses."""
    yield Call("DELETE", f"/v1/datasets/{id_of(dataset)}")
