"""``deepnight keys``: API keys in the blob store."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Failure, Json, load_settings, print_json, print_table

if TYPE_CHECKING:
    from service.keys import KeyStore

app = typer.Typer(
    help="Make, list and revoke API keys. A running service notices within seconds.", no_args_is_help=True
)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Who or what the key is for.")],
    scopes: Annotated[
        str, typer.Option(help="Comma-separated: infer, data, jobs, admin.", show_default=True)
    ] = "infer,data,jobs",
    json: Json = False,
) -> None:
    """Make a key. Its secret is shown this once; only a hash is kept."""
    from service.keys import SCOPES, Scope

    wanted: list[Scope] = []
    for part in (part.strip() for part in scopes.split(",") if part.strip()):
        scope = next((known for known in SCOPES if known == part), None)
        if scope is None:
            raise Failure(f"--scopes: {part!r} is not a scope; there are {', '.join(SCOPES)}", 2)
        wanted.append(scope)
    try:
        key, secret = _store().create(name, wanted)
    except ValueError as error:
        raise Failure(str(error), 2) from None
    if json:
        print_json({**key.model_dump(mode="json", exclude={"sha256"}), "secret": secret})
        return
    print(f"{key.id} ({key.name}; {', '.join(key.scopes)}); keep the secret, it is not shown again:", file=sys.stderr)
    print(secret)


@app.command("list")
def list_keys(json: Json = False) -> None:
    """List the keys that are valid."""
    keys = _store().list()
    if json:
        print_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    rows = [(key.id, key.name, ", ".join(key.scopes), _date(key.created_at), _date(key.last_used_at)) for key in keys]
    print_table(["id", "name", "scopes", "created", "last used"], rows)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it: key_...")]) -> None:
    """Revoke a key for good."""
    from service.keys import UnknownKeyError

    try:
        _store().revoke(key_id)
    except UnknownKeyError:
        raise Failure(f"there is no key {key_id}") from None
    print(f"{key_id} is revoked", file=sys.stderr)


def _store() -> KeyStore:
    from models.core.store import BlobStore
    from service.keys import KeyStore

    try:
        return KeyStore(BlobStore(load_settings().store))
    except OSError as error:
        raise Failure(f"the blob store cannot be opened: {error}") from None


def _date(seconds: float | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
