import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from service.processes import Child

PROGRAM = """
import sys, time
print("up", flush=True)
if "fail" in sys.argv[0]:
    sys.exit(9)
time.sleep(60)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from service.processes import Child
child = Child("orphan", "program_orphan", dict(os.environ), Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
    def make(name):
        (tmp_path / f"program_{name}.py").write_text(PROGRAM)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        made.append(Child(name, f"program_{name}", environment, tmp_path))
        return made[-1]

    made = []
    yield make
    for each in made:
        each.kill()


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def test_a_program_runs_logs_and_stops(child):
    steady = child("steady")
    steady.start()
    wait_for(lambda: steady.last_line() == "up")
    assert steady.look() is None
    assert os.getsid(steady.pid) == steady.pid != os.getsid(0)
    steady.signal(signal.SIGTERM)
    assert steady.wait(5)
    assert steady.pid is None


def test_a_program_that_fails_is_started_again_after_longer_and_longer_pauses(child):
    failing = child("fail")
    failing.start()
    pauses = [failing.pause]
    wait_for(lambda: failing.look() == 9)
    pauses.append(failing.pause)
    assert failing.look() is None
    assert failing.pid is None
    wait_for(lambda: failing.log.read_text().count("up") == 1)
    wait_for(lambda: failing.look() == 9)
    assert failing.log.read_text().count("up") == 2
    pauses.append(failing.pause)
    assert pauses == sorted(set(pauses))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_program_ends_when_its_supervisor_is_killed(tmp_path):
    (tmp_path / "program_orphan.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pid = int(parent.stdout.readline())
        wait_for(lambda: (tmp_path / "orphan.log").read_text() == "up\n")
        assert psutil.Process(pid).is_running()
        parent.kill()
        parent.wait()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
