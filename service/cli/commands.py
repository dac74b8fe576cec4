"""The tree of commands."""

from __future__ import annotations

import os
import sys

import typer

from service import __version__
from service.cli import data, jobs, keys, models, training
from service.cli.output import Failure, Json, load_settings, print_json

SETTINGS_NOTE = "Settings come from DEEPNIGHT_* variables; docs/operations.md lists them."

app = typer.Typer(
    name="deepnight",
    help="Deepnight serves published methods over HTTP and runs long work as queued jobs.",
    epilog=SETTINGS_NOTE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(jobs.app, name="jobs")


@app.command(epilog=SETTINGS_NOTE)
def serve() -> None:
    """Run the whole service on this machine: embedded Valkey, the gateway and one worker. Ctrl-C stops it.

    State (queue, data sets, versions, results, logs) is kept in DEEPNIGHT_HOME, by default ./.deepnight. Exit codes:
    2 a setting is not valid, 3 no key although others can reach the host, 4 port taken, 5 state folder not usable or
    disk full, 6 already running, 7 a part could not start.
    """
    from service.preflight import StartError
    from service.supervisor import serve as supervise
    from service.supervisor import stderr

    try:
        code = supervise(load_settings(), stderr)
    except StartError as error:
        raise Failure(str(error), error.code) from None
    raise typer.Exit(code)


@app.command(epilog=SETTINGS_NOTE)
def gateway() -> None:
    """Run only the gateway (HTTP and inference), for containers and clusters; needs DEEPNIGHT_REDIS_URL."""
    _become("service")


@app.command(epilog=SETTINGS_NOTE)
def worker() -> None:
    """Run one worker that takes queued jobs; needs DEEPNIGHT_REDIS_URL."""
    _become("workers")


app.command()(training.train)
app.command()(training.evaluate)


@app.command()
def version(json: Json = False) -> None:
    """Print the version and what numeric results depend on."""
    if not json:
        print(f"deepnight {__version__}")
        return
    from models.core.figures import library_versions

    print_json({"deepnight": __version__, **library_versions()})


def _become(module: str) -> None:
    """Replace this process by ``python -m module`` once the settings are known to be valid."""
    if not load_settings().redis_url:
        raise Failure("set DEEPNIGHT_REDIS_URL; `deepnight serve` brings a queue of its own", 2)
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - one program becomes the other, no shell
