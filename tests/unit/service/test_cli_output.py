import os
import pty
import re
import subprocess
import sys

WORK = """
import time
from service.cli.output import progress
with progress("training") as report:
    for step in range(11):
        report(step / 10, f"epoch {step}")
        time.sleep(0.2)
print("result")
"""


def on_a_terminal(code):
    """Everything that a terminal shows of a program whose stderr and stdout are one."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
    os.close(master)
    assert process.returncode == 0
    return shown.decode()


def test_a_bar_with_the_remaining_time_on_a_terminal():
    shown = on_a_terminal(WORK)
    assert "━" in shown
    assert re.search(r"epoch \d.* [1-9]0%", shown)
    assert re.search(r"left.*\d:\d\d:\d\d", shown)
    assert "result" in shown


def test_plain_lines_elsewhere_and_only_the_result_on_stdout():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"training:   0% epoch 0 \(0 s\)", lines[0])
    assert re.fullmatch(r"training: 100% epoch 10 \(\d s\)", lines[-1])
    assert len(lines) == 2
    assert "\x1b" not in done.stderr
