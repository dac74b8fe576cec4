"""``deepnight models``: what is installed, from the cards; needs no running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Failure, Json, load_settings, print_json, print_table

if TYPE_CHECKING:
    from models.core.figures import Figure
    from models.core.versions import Version, Versions

app = typer.Typer(help="List and show the installed methods and their versions.", no_args_is_help=True)


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the methods."""
    versions = open_versions()
    found = [_summary(versions, slug) for slug in versions.registry]
    if json:
        print_json(found)
        return
    rows = [(m["slug"], m["capability"], m["default"] or "none", ", ".join(m["job_kinds"]), m["title"]) for m in found]
    print_table(["slug", "capability", "version", "jobs", "title"], rows)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A slug, or slug@version.")],
    json: Json = False,
) -> None:
    """Show a method's card, versions and measured figures."""
    version = find_version(model)
    versions = open_versions()
    entry, card = version.entry, version.entry.card
    figures = versions.checkpoint(version).figures
    if json:
        print_json(
            {
                **_summary(versions, entry.slug),
                "id": version.id,
                "card": card.model_dump(mode="json"),
                "parameters": entry.params.model_json_schema(),
                "config": entry.config.model_json_schema() if card.trainable else None,
                "presets": {name: preset.model_dump(mode="json") for name, preset in entry.presets.items()},
                "figures": figures.model_dump(mode="json") if figures else None,
            }
        )
        return
    print(f"{version.id}: {card.title}\n\n{card.description.strip()}\n")
    facts = {
        "paper": f"{card.paper.title} ({card.paper.authors}; {card.paper.venue}) {card.paper.url}",
        "use when": card.use_when.strip(),
        "limits": card.limits.strip(),
        "input": card.input,
        "output": card.output,
        "licence": card.licence,
        "trains on": ", ".join(card.trainable) or "nothing to train",
        "presets": ", ".join(entry.presets) or "none",
        "versions": ", ".join(_summary(versions, entry.slug)["versions"]),
    }
    for name, value in facts.items():
        print(f"{name + ':':<11}{value}")
    if figures is not None:
        print()
        print_figures(figures.figures)


def print_figures(figures: list[Figure]) -> None:
    """The measured quantities as a table."""
    rows = [(figure.setting, figure.name, figure.subject, figure.text, figure.unit, figure.seeds) for figure in figures]
    print_table(["measured on", "figure", "of", "value", "unit", "seeds"], rows)


def open_versions() -> Versions:
    """The versions in this machine's settings.

    Raises:
        Failure: a card is not valid, or the blob store cannot be opened.
    """
    from models.core.registry import Registry
    from models.core.store import BlobStore
    from models.core.versions import Versions

    settings = load_settings()
    try:
        return Versions(Registry(*settings.method_roots), BlobStore(settings.store), settings.home / "cache")
    except (OSError, ValueError) as error:
        raise Failure(str(error)) from None


def find_version(model: str) -> Version:
    """The version that ``slug`` or ``slug@version`` names.

    Raises:
        Failure: there is none.
    """
    from models.core.registry import UnknownMethodError
    from models.core.versions import UnknownVersionError

    versions = open_versions()
    try:
        return versions.resolve(model)
    except UnknownMethodError as error:
        raise Failure(f"there is no method {error.args[0]!r}; there are {', '.join(versions.registry)}", 2) from None
    except UnknownVersionError as error:
        raise Failure(f"{model}: there is no such version, or none is shipped ({error.args[0]})", 2) from None


def _summary(versions: Versions, slug: str) -> dict[str, Any]:
    from models.core.versions import UnknownVersionError

    card = versions.registry[slug].card
    try:
        default: str | None = versions.default(slug)
    except UnknownVersionError:
        default = None
    return {
        "slug": slug,
        "title": card.title,
        "capability": card.capability,
        "default": default,
        "versions": [version.name for version in versions.list(slug)],
        "trainable": list(card.trainable),
        "job_kinds": [job.kind for job in card.jobs],
        "licence": card.licence,
    }
