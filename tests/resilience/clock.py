"""A clock that is set: an hour ahead, back, an hour back, and ahead again, under load.

The machine's clock stays as it is. A small library (``clock.c``) shifts what the service's processes take for the time;
inference runs in the gateway here, as Ray's own programs wait by the kernel's clock, which a preloaded library does not
move.
"""

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.stack import Stack
from tests.resilience.answers import ask_beforehand
from tests.resilience.outcome import under_load
from tests.resilience.parts import processes
from tests.resilience.trial import NotPossible, of

JUMP_S = 3600
BETWEEN_S = 15.0
ROLES = ("gateway", "worker", "Redis")


def clock():
    with tempfile.TemporaryDirectory() as folder:
        offset = Path(folder) / "offset"
        _set(offset, 0)
        variables = {"LD_PRELOAD": str(_library(Path(folder))), "CLOCK_OFFSET": str(offset)}
        with _environment(variables):
            stack = Stack(Path(folder) / "home", backend="in-process").start()
        try:
            stack.wait_ready()
            with stack.client() as api:
                asked = ask_beforehand(api)
            return _jump_under_load(stack, asked, offset)
        finally:
            stack.stop()
            assert stack.gone(10) == []


def _jump_under_load(stack, asked, offset):
    before = _pids(stack)
    seen = []

    async def faults(injector):
        for jump in (JUMP_S, 0, -JUMP_S, 0):
            await asyncio.sleep(BETWEEN_S)
            _set(offset, jump)
            with stack.client() as api:
                response = await asyncio.to_thread(api.post, "/v1/jobs", json=asked[1][0].spec)
                seen.append(response.raise_for_status().json()["created_at"] - time.time())
        _set(offset, -JUMP_S)
        fault = await injector.inject("worker")
        seen.append(fault.seconds)
        _set(offset, 0)

    outcome = under_load(stack, asked, "clock jump", faults)
    *jumps, recovery = seen
    broken = ["the clock did not jump"] if max(jumps) - min(jumps) < 2 * JUMP_S - 60 else []
    broken += [
        f"{role} was restarted" for role, pids in _pids(stack).items() if pids != before[role] and role != "worker"
    ]
    measured = (
        f"a worker killed after its clock was set back: its job runs again after {recovery or float('nan'):.1f} s"
    )
    return of(outcome, "an hour ahead, back, an hour back, ahead, and back again", measured, broken)


def _pids(stack):
    return {role: [process.pid for process in processes(stack, role)] for role in ROLES}


def _set(path, seconds):
    """Overwrite the eight bytes in their place: the processes have them mapped."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(struct.pack("<q", seconds))


def _library(folder):
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotPossible("the library that shifts the clock needs a C compiler (cc)")
    library = folder / "clock.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@contextmanager
def _environment(variables):
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
