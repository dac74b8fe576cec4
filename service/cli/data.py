"""``deepnight data``: the named public data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Failure, Json, load_settings, print_json, print_table, progress

if TYPE_CHECKING:
    from pathlib import Path

    from models.core.dataset import Dataset
    from models.core.sources import Source

app = typer.Typer(help="List and fetch named public data sets.", no_args_is_help=True)


@app.command("list")
def list_sources(json: Json = False) -> None:
    """List the data sets that can be named, and whether they are on this machine."""
    from models.core.sources import SOURCES

    found = [
        {
            "name": source.name,
            "title": source.title,
            "splits": list(source.splits),
            "licence": source.licence,
            "upstream": source.upstream,
            "here": is_here(source),
        }
        for source in SOURCES.values()
    ]
    if json:
        print_json(found)
        return
    rows = [
        (
            source.name,
            ", ".join(source.splits),
            source.licence,
            "yes" if is_here(source) else f"deepnight data fetch {source.name}",
            source.title,
        )
        for source in SOURCES.values()
    ]
    print_table(["name", "splits", "licence", "here", "title"], rows)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="As `data list` shows it.")], json: Json = False) -> None:
    """Download a data set into DEEPNIGHT_HOME/data, unless a copy is here, and check its hash."""
    from models.core.sources import DataUnavailableError

    source = find_source(name)
    paths = {}
    with progress(f"fetching {name}") as report:
        for done, key in enumerate(source.files):
            report(done / len(source.files), key)
            try:
                source.content(key)
            except DataUnavailableError as error:
                raise Failure(str(error)) from None
            paths[key] = str(source.path(key))
        report(1.0, "checked")
    if json:
        print_json({"name": name, "files": paths})
        return
    for key, path in paths.items():
        print(f"{key}: {path}")
    if not paths:
        print(f"{source.title} is {source.upstream}: nothing to fetch")


def find_source(name: str) -> Source:
    """The named data set.

    Raises:
        Failure: there is none of that name.
    """
    from models.core.sources import SOURCES

    if name not in SOURCES:
        raise Failure(f"there is no data set {name!r}; there are {', '.join(SOURCES)}", 2)
    return SOURCES[name]


def is_here(source: Source) -> bool:
    """Whether every file of the data set is on this machine."""
    from models.core.sources import data_home

    folders = [folder for folder in (source.system, data_home() / source.name) if folder is not None]
    return all(any((folder / file.name).exists() for folder in folders) for file in source.files.values())


def load_dataset(text: str) -> Dataset:
    """A data set from ``NAME``, ``NAME:SPLIT`` or the path of a file.

    Raises:
        Failure: there is none, or the file is not one.
    """
    from pathlib import Path

    from models.core.sources import SOURCES, DataUnavailableError, load

    path = Path(text)
    name, _, split = text.partition(":")
    if name in SOURCES and not path.is_file():
        splits = SOURCES[name].splits
        if split and split not in splits:
            raise Failure(f"--dataset: {name} has the splits {', '.join(splits)}, not {split!r}", 2)
        try:
            return load(name, split or splits[0])
        except DataUnavailableError as error:
            raise Failure(str(error)) from None
    if not path.is_file():
        raise Failure(f"--dataset: {text!r} is neither a file nor one of {', '.join(SOURCES)}", 2)
    return _read(path)


def _read(path: Path) -> Dataset:
    from models.core.datasets import DatasetError, DatasetOptions
    from models.core.datasets.reading import format_of, read_dataset

    limits = load_settings().dataset_limits
    try:
        return read_dataset(path, format_of(path.name), DatasetOptions(), limits, name=path.name).dataset
    except DatasetError as error:
        raise Failure(f"--dataset: {path}: {error}", 2) from None
