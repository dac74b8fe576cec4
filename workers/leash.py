"""Ties a process to its parent's life: when the parent is killed, the kernel ends the process too (Linux).

As a program, ``python -m workers.leash PARENT_PID COMMAND...`` becomes COMMAND with that tie. It ends when the *thread*
that started the process ends, so start from the main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int, number: signal.Signals) -> None:
    """Have this process receive ``number`` when its parent ends; leave at once if it has ended already."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    tie(int(sys.argv[1]), signal.SIGTERM)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted
