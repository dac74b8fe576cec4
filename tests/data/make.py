"""Cuts the slices in this folder from public data: ``python tests/data/make.py`` writes them again."""

import gzip
import importlib
import inspect
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from PIL import Image

from models.core.sources import load

HERE = Path(__file__).parent
DATE = (2026, 1, 1, 0, 0, 0)
PER_CLASS = 60
MODULES = {
    "numpy": ["numpy", "numpy.linalg", "numpy.fft"],
    "scipy": ["scipy.linalg", "scipy.stats", "scipy.signal", "scipy.optimize"],
    "scikit-learn": [
        "sklearn.metrics",
        "sklearn.datasets",
        "sklearn.preprocessing",
        "sklearn.cluster",
        "sklearn.linear_model",
    ],
}


def first_of_each_class(dataset, count):
    """The first ``count`` samples of each class, in the data set's order."""
    chosen = [np.flatnonzero(dataset.labels == label)[:count] for label in range(len(dataset.class_names))]
    return dataset.select(np.sort(np.concatenate(chosen)))


def png(picture):
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def members(dataset):
    """Class folder and file name of each picture; a slash in a class name cannot be in a folder's name."""
    for index, label in enumerate(dataset.labels):
        folder = dataset.class_names[label].replace("/", "-")
        yield f"{folder}/{index:04}.png", png(dataset.inputs[index, :, :, 0])


def write_npz(dataset, path):
    arrays = {
        "images": dataset.inputs[..., 0],
        "labels": dataset.labels.astype(np.uint8),
        "class_names": np.array(dataset.class_names),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, raw.getvalue())


def write_zip(dataset, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members(dataset):
            archive.writestr(zipfile.ZipInfo(name, DATE), content)
        archive.writestr(zipfile.ZipInfo("LICENCE.txt", DATE), "Fashion-MNIST, MIT licence, Zalando SE\n")


def write_tar(dataset, path):
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", mtime=0, fileobj=file) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in members(dataset):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_parquet(dataset, path):
    """As Hugging Face's ``datasets`` writes pictures: a struct of bytes and path, class names in the metadata."""
    pictures = [{"bytes": content, "path": name} for name, content in members(dataset)]
    features = {"image": {"_type": "Image"}, "label": {"names": dataset.class_names, "_type": "ClassLabel"}}
    table = pa.table({"image": pictures, "label": dataset.labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=200)


def write_csv(dataset, path):
    flat = dataset.inputs.reshape(len(dataset), -1)
    columns = {"label": [dataset.class_names[label] for label in dataset.labels]}
    columns |= {f"pixel_{i}": flat[:, i] for i in range(flat.shape[1])}
    pa_csv.write_csv(pa.table(columns), path)


def write_jsonl(path, per_class=100):
    """The first paragraph of the documentation of public functions and classes, by library."""
    with path.open("w", encoding="utf-8") as file:
        for library, names in MODULES.items():
            found = {}
            for name in names:
                module = importlib.import_module(name)
                for attribute in sorted(getattr(module, "__all__", dir(module))):
                    value = getattr(module, attribute)
                    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
                    if callable(value) and 30 <= len(text) <= 300 and "(" not in text:
                        found.setdefault(text, f"{name}.{attribute}")
            for text, name in list(found.items())[:per_class]:
                file.write(json.dumps({"id": name, "text": text, "label": library}) + "\n")


def write_pairs(dataset, path, count=300):
    """The first pairs whose description has at most 600 characters."""
    rows = [
        {"package": name, "description": text, "synopsis": summary}
        for (text, summary), name in zip(dataset.inputs, dataset.sample_ids, strict=True)
        if len(text) <= 600
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:count]]
    path.write_text("".join(lines), encoding="utf-8")


def main():
    fashion = first_of_each_class(load("fashion-mnist", "test"), PER_CLASS)
    write_npz(fashion, HERE / "fashion-mnist-600.npz")
    write_zip(fashion, HERE / "fashion-mnist-600.zip")
    write_parquet(fashion, HERE / "fashion-mnist-600.parquet")
    write_tar(first_of_each_class(fashion, 12), HERE / "fashion-mnist-120.tar.gz")
    write_csv(first_of_each_class(load("digits-8x8", "all"), PER_CLASS), HERE / "digits-8x8-600.csv")
    write_jsonl(HERE / "docstrings-300.jsonl")
    write_pairs(load("package-descriptions", "validation"), HERE / "package-descriptions-300.jsonl")


if __name__ == "__main__":
    main()
