import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Batches this small gain nothing from threads, which fight over the cores of a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
