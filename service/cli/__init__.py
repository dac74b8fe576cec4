"""The command line ``deepnight``. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

import sys

from service.cli.output import Failure


def main() -> None:
    """Run the command line; a failure is one line on stderr and an exit code."""
    from service.cli.commands import app

    try:
        app()
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
