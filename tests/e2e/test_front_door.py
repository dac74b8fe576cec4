"""Starting, refusing and stopping, as a person meets it."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import DEEPNIGHT, ROOT, Stack, environment, free_port

pytestmark = pytest.mark.stack
DISTANCE = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}


def refused(home, port, code, **settings):
    """Start an instance that must refuse; its one line."""
    done = subprocess.run(
        [DEEPNIGHT, "serve"],
        cwd=ROOT,
        env=environment(home, port, **settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_it_says_where_to_look(stack, api):
    text = "\n".join(stack.lines)
    for expected in (stack.base_url, f"{stack.base_url}/docs", f"{stack.base_url}/metrics", str(stack.home), "logs"):
        assert expected in text
    for part in ("valkey", "gateway", "inference", "worker"):
        assert re.search(rf"^  {part}\s+\w+ \(\d", text, re.MULTILINE), f"no progress line of {part}"
    assert api.get("/readyz").json()["checks"] == {"serve": "ok", "store": "ok", "redis": "ok", "workers": "ok"}
    assert "Deepnight" in api.get("/docs").text


def test_the_first_curl_works_as_printed(stack):
    command = next(line for line in stack.lines if "curl " in line).partition("curl ")[2]
    done = subprocess.run(
        ["bash", "-c", f"curl -sS --fail-with-body {command}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"distance"' in done.stdout


def test_a_second_instance_on_the_same_home_names_the_first(stack):
    line = refused(stack.home, free_port(), 6)
    assert str(stack.home) in line
    assert str(stack.process.pid) in line


def test_a_taken_port_is_named(stack, tmp_path):
    line = refused(tmp_path, stack.port, 4)
    assert f"port {stack.port} on 127.0.0.1 is taken" in line


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(tmp_path / "file" / "home", free_port(), 5)
    assert "cannot be written" in refused("/proc/deepnight", free_port(), 5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(tmp_path / "home", free_port(), 5)


def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        assert "MiB free" in refused(small / "home", free_port(), 5)
        (small / "fill").write_bytes(bytes(shutil.disk_usage(small).free))
        assert "full" in refused(small / "other", free_port(), 5)
    finally:
        subprocess.run(["umount", small], check=True)


def test_other_machines_need_a_key(tmp_path):
    assert "deepnight keys create" in refused(tmp_path, free_port(), 3, host="0.0.0.0")


def test_a_wrong_setting_is_named(tmp_path):
    assert "DEEPNIGHT_QUEUE_LIMIT" in refused(tmp_path, free_port(), 2, queue_limit="many")


@pytest.mark.slow
def test_it_runs_beside_another_takes_over_a_stale_lock_and_stops_without_a_trace(stack, api, tmp_path):
    (tmp_path / "lock").write_text("4194304")
    beside = Stack(tmp_path).start().wait_ready()
    assert httpx.post(f"{beside.base_url}/v1/distances", json=DISTANCE, timeout=60).status_code == 200
    assert api.post("/v1/distances", json=DISTANCE).status_code == 200
    assert beside.pids("-m", "workers")
    ray = ray_folder(beside)
    status, seconds = beside.stop(signal.SIGINT)
    assert status == 0
    assert seconds < 15
    assert beside.gone(1) == []
    assert traces(beside, ray) == []
    assert api.post("/v1/distances", json=DISTANCE).status_code == 200


@pytest.mark.slow
def test_nothing_outlives_a_killed_make(tmp_path):
    killed = Stack(tmp_path, command=("make", "-o", "install", f"BIN={DEEPNIGHT.parent}", "serve")).start().wait_ready()
    ray = ray_folder(killed)
    killed.process.kill()
    assert killed.gone(15) == []
    assert traces(killed, ray) == []


@pytest.mark.slow
def test_nothing_outlives_a_killed_supervisor_and_it_starts_again(tmp_path):
    killed = Stack(tmp_path).start().wait_ready()
    ray = ray_folder(killed)
    killed.process.kill()
    again = Stack(tmp_path).start().wait_ready()
    assert not ray.exists()
    again.process.kill()
    assert again.gone(15) == []
    assert traces(again, ray_folder(again, must_exist=False)) == []


def ray_folder(stack, *, must_exist=True):
    """Ray's temporary folder, which lies outside the home, as its sockets need a short path."""
    note = stack.home / "ray-folder"
    assert note.exists() or not must_exist
    return Path(note.read_text()) if note.exists() else None


def traces(stack, ray):
    """Sockets and temporary folders of the instance that are still there."""
    listed = Path("/proc/net/unix").read_text().splitlines()
    folders = [str(stack.home), *([str(ray)] if ray else [])]
    left = [line.split()[-1] for line in listed if any(folder in line for folder in folders)]
    return left + stack.sockets() + ([ray] if ray and ray.exists() else [])
