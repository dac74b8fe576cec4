import pytest

from tests.e2e.stack import Stack, free_port


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """The whole service, ready; shared by the end-to-end tests, so leave it as it was."""
    running = Stack(tmp_path_factory.mktemp("stack"), ray_metrics_port=free_port()).start()
    try:
        yield running.wait_ready()
    finally:
        if running.process.poll() is None:
            running.stop()
        left = running.gone(5)
        for process in left:
            process.kill()
        assert left == [], running.story()


@pytest.fixture
def api(stack):
    with stack.client() as client:
        yield client
