"""Run a command that receives a signal when its parent dies, however the parent dies.

Usage: ``python -S attached.py SIGNAL PARENT_PID COMMAND ...``. Linux only (``PR_SET_PDEATHSIG`` survives
``execve``); on other systems the command simply runs. Kept free of imports of this package: it starts in
milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arm the signal, then become the command."""
    name, parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.Signals[f"SIG{name}"]))
        if os.getppid() != int(parent):  # it died before the signal was armed
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the command comes from the supervisor, and no shell is wanted


if __name__ == "__main__":
    main()
