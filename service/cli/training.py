"""``deepnight train`` and ``deepnight evaluate``: the methods' own code on this machine, without the service."""

from __future__ import annotations

import json as jsonlib
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.data import load_dataset
from service.cli.models import find_version, open_versions, print_figures
from service.cli.output import Failure, Json, load_settings, print_json, print_table, progress

if TYPE_CHECKING:
    from pydantic import BaseModel

    from models.core.figures import Figures
    from models.core.registry import MethodEntry
    from models.core.run import LocalRun

DATASET_HELP = "A file (npz, parquet, csv, jsonl, zip, tar.gz), or a name from `data list`, also NAME:SPLIT."
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random generator.")]


def train(
    method: Annotated[str, typer.Argument(help="A slug from `models list`.")],
    dataset: Annotated[str, typer.Option(help=DATASET_HELP)],
    preset: Annotated[str, typer.Option(help="The configuration to start from.")] = "cpu",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change one field of it; repeatable.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the result and of the resume point (default: runs/METHOD-SEED).")
    ] = None,
    comparisons: Annotated[
        Path | None, typer.Option(help="A JSONL file of preferences, as GET /v1/summaries/comparisons exports it.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Also publish it as METHOD@VERSION in this machine's store.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a method on a data set. The same command continues a run that was interrupted."""
    from models.core.curves import draw_curves

    entry = _entry(method)
    config = _config(entry, preset, settings or [])
    folder = out or Path("runs") / f"{entry.slug}-{seed}"
    with _reported(), progress(f"training {entry.slug}") as report:
        data = load_dataset(dataset)
        run = _run(folder, seed, report, comparisons)
        trained = entry.method.train(data, config, run)
        target = folder / "checkpoint"
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(trained.folder, target)
        draw_curves(run.metrics, run.artifact("curves.png", "image/png"))
        shutil.rmtree(run.scratch, ignore_errors=True)
        (folder / "state.npz").unlink(missing_ok=True)
        if version is not None:
            open_versions().publish(entry.slug, version, target, owner="local")
    last = {name: points[-1][1] for name, points in run.metrics.items()}
    if json:
        published = f"{entry.slug}@{version}" if version else None
        print_json({"checkpoint": str(target), "version": published, "metrics": last})
        return
    print(f"checkpoint: {target}")
    for name, value in last.items():
        print(f"{name}: {value:.4g}")
    print(f"measure it: deepnight evaluate {entry.slug} --checkpoint {target}")


def evaluate(
    model: Annotated[str, typer.Argument(help="A slug, or slug@version.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"Measure on this instead of the published proof. {DATASET_HELP}")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of another checkpoint of the method.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Keep artifacts in this folder.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Store figures.json beside the weights.")] = False,
    json: Json = False,
) -> None:
    """Measure a checkpoint afresh: the proof of its paper with baselines, or its quality on your data."""
    if write and dataset is not None:
        raise Failure("--write stores the figures of the proof; it does not go with --dataset", 2)
    started = time.monotonic()
    with _reported(), TemporaryDirectory() as temporary, progress(f"evaluating {model}") as report:
        if checkpoint is None:
            found = find_version(model)
            entry, opened = found.entry, open_versions().checkpoint(found)
        else:
            entry = _entry(model)
            opened = entry.checkpoint(checkpoint)
        data = None if dataset is None else load_dataset(dataset)
        figures = entry.method.evaluate(opened, _run(out or Path(temporary), seed, report), data)
        figures.seconds = figures.seconds or time.monotonic() - started
        typed = [argument for argument in sys.argv[1:] if argument not in ("--write", "--json")]
        figures.command = shlex.join(["deepnight", *typed])
        if write:
            opened.write_figures(figures)
    if json:
        print_json(figures.model_dump(mode="json"))
    else:
        _print_proof(figures)


def _print_proof(figures: Figures) -> None:
    print_figures(figures.figures)
    for title, rows in figures.tables.items():
        if rows:
            print()
            columns = list(dict.fromkeys(name for row in rows for name in row))
            print_table(columns, [[_cell(row.get(name)) for name in columns] for row in rows], title=title)
    print()
    for claim in figures.claims:
        print(f"- {claim}")
    print(f"measured in {figures.seconds:.0f} s: {figures.command}")


def _cell(value: float | int | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)


def _entry(method: str) -> MethodEntry:
    registry = open_versions().registry
    if method not in registry:
        raise Failure(f"there is no method {method!r}; there are {', '.join(registry)}", 2)
    return registry[method]


def _config(entry: MethodEntry, preset: str, changes: list[str]) -> BaseModel:
    """The preset with the ``field=value`` changes; a value is JSON, or a string where it is not.

    Raises:
        Failure: no such preset or field, or a value that is not valid; names it.
    """
    from pydantic import ValidationError

    if not entry.card.trainable:
        raise Failure(f"{entry.slug} has nothing to train", 2)
    if preset not in entry.presets:
        raise Failure(f"--preset: {entry.slug} has {', '.join(entry.presets) or 'none'}, not {preset!r}", 2)
    values = entry.presets[preset].model_dump()
    for change in changes:
        field, equals, text = change.partition("=")
        if not equals or field not in values:
            raise Failure(f"--set {change}: write FIELD=VALUE with a field of {', '.join(values)}", 2)
        values[field] = _value(text)
    try:
        return entry.config.model_validate(values)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}" for item in error.errors()]
        raise Failure(f"--set: {'; '.join(wrong)}", 2) from None


def _value(text: str) -> Any:
    try:
        return jsonlib.loads(text)
    except ValueError:
        return text


def _run(folder: Path, seed: int, report: Any, comparisons: Path | None = None) -> LocalRun:
    import torch

    from models.core.devices import pick_device
    from models.core.run import LocalRun

    settings = load_settings()
    if "torch_threads" in settings.model_fields_set:
        torch.set_num_threads(settings.torch_threads)
    try:
        device = pick_device(settings.device)
    except ValueError as error:
        raise Failure(f"DEEPNIGHT_DEVICE: {error}", 2) from None
    return LocalRun(folder, seed=seed, device=str(device), report=report, comparisons=comparisons)


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what is wrong with the user's data, checkpoint or request into a failure of one line."""
    from models.core.checkpoint import CheckpointError
    from models.core.inputs import InputError
    from models.core.method import MethodError
    from models.core.sources import DataUnavailableError
    from models.core.versions import VersionExistsError

    try:
        yield
    except (CheckpointError, InputError, MethodError, DataUnavailableError, VersionExistsError, OSError) as error:
        raise Failure(" ".join(str(error).split())) from None
