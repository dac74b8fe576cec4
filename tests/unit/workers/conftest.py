import shutil
import tempfile
from pathlib import Path

import pytest

from tests.unit.workers.stack import Stack


@pytest.fixture
def home():
    """A short path, as the address of a Unix socket is."""
    folder = Path(tempfile.mkdtemp(prefix="queue-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(home):
    running = Stack(home)
    yield running
    running.close()


@pytest.fixture(scope="module")
def shared():
    """A stack with one worker, for tests that disturb nothing."""
    folder = Path(tempfile.mkdtemp(prefix="queue-", dir="/tmp"))
    running = Stack(folder)
    running.start_worker()
    running.wait_for_workers(1)
    yield running
    running.close()
    shutil.rmtree(folder, ignore_errors=True)
