import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.preflight import (
    ALREADY_RUNNING,
    HOME_UNUSABLE,
    INSECURE,
    PORT_TAKEN,
    StartError,
    check_keys,
    check_port,
    check_space,
    home_lock,
    make_home,
)
from service.settings import Settings

HOLD = """
import sys, time
from pathlib import Path
from service.preflight import home_lock
with home_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_live_lock_names_its_process(tmp_path):
    with home_lock(tmp_path) as left_behind, pytest.raises(StartError) as error, home_lock(tmp_path):
        pytest.fail("two instances held one home")
    assert not left_behind
    assert error.value.code == ALREADY_RUNNING
    assert f"process {os.getpid()}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lock_is_free_again_after_its_block(tmp_path):
    with home_lock(tmp_path):
        pass
    with home_lock(tmp_path) as left_behind:
        assert not left_behind


def test_the_lock_of_a_killed_holder_is_taken_over_and_noticed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StartError), home_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with home_lock(tmp_path) as left_behind:
        assert left_behind


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is taken") as error:
            check_port("127.0.0.1", port)
    assert error.value.code == PORT_TAKEN
    check_port("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine():
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        check_port("192.0.2.1", 8000)


def test_a_home_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for home in (file / "home", Path("/proc/deepnight")):
        with pytest.raises(StartError, match="cannot be written") as error:
            make_home(home)
        assert error.value.code == HOME_UNUSABLE
    make_home(tmp_path / "new" / "home")
    assert list((tmp_path / "new" / "home").iterdir()) == []


def test_a_full_disk(tmp_path):
    with pytest.raises(StartError, match="MiB free") as error:
        check_space(tmp_path, needed=1 << 60)
    assert error.value.code == HOME_UNUSABLE
    check_space(tmp_path, needed=1)


@pytest.mark.parametrize(
    ("host", "keys", "refused"),
    [("0.0.0.0", "", True), ("0.0.0.0", " , ", True), ("0.0.0.0", "dn_secret", False), ("127.0.0.1", "", False)],
)
def test_other_machines_need_a_key(tmp_path, monkeypatch, host, keys, refused):
    monkeypatch.setenv("DEEPNIGHT_HOME", str(tmp_path))
    settings = Settings(host=host, api_keys=keys, home=tmp_path)
    if refused:
        with pytest.raises(StartError, match="deepnight keys create") as error:
            check_keys(settings)
        assert error.value.code == INSECURE
    else:
        check_keys(settings)


def test_a_stored_key_is_enough(tmp_path):
    from models.core.store import BlobStore
    from service.keys import KeyStore

    settings = Settings(host="0.0.0.0", home=tmp_path)
    KeyStore(BlobStore(settings.store)).create("somebody", ["infer"])
    check_keys(settings)
