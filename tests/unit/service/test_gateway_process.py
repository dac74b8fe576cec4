"""The gateway as a process of its own, ending by itself."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_gateway(home, **settings):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNIGHT_")}
    own = {f"DEEPNIGHT_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**kept, "DEEPNIGHT_HOME": str(home), "DEEPNIGHT_PORT": str(port), **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_backend_that_cannot_start_ends_the_gateway_with_one_clear_line(tmp_path):
    done = run_gateway(tmp_path, backend="in-process", device="no-such-device")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: inference could not start: ")
    assert "no-such-device" in last
