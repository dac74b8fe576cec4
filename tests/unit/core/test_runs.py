"""Resume points: what is packed comes back, and training goes on as if nothing had happened."""

import numpy as np
import torch

from models.core.run import LocalRun, read_state, write_state
from models.core.training import pack_training, unpack_training


def test_state_round_trip_without_pickle(tmp_path):
    arrays = {"a/b": np.arange(6).reshape(2, 3), "half": np.ones(2, dtype=np.float16)}
    write_state(tmp_path / "state.npz", arrays, {"epoch": 3, "name": "ü"})
    read, meta = read_state(tmp_path / "state.npz")
    assert meta == {"epoch": 3, "name": "ü"}
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


def test_a_local_run_keeps_curves_and_its_state(tmp_path):
    seen = []
    run = LocalRun(tmp_path, seed=3, report=lambda *report: seen.append(report))
    assert run.load_state() is None
    run.progress(0.5, "train", "half")
    run.metric("loss", 0.25, 7)
    run.save_state({"x": np.zeros(1)}, {"step": 1})
    assert seen == [(0.5, "train", "half")]
    assert run.metrics == {"loss": [(7, 0.25)]}
    assert LocalRun(tmp_path).load_state()[1] == {"step": 1}


def build():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return net, torch.optim.Adam(net.parameters(), 1e-2, amsgrad=True), torch.Generator().manual_seed(5)


def step(net, optimizer, generator):
    x = torch.randn(16, 4, generator=generator) + torch.randn(16, 4)  # its own and the global generator
    loss = net(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_resumed_training_equals_an_undisturbed_run(tmp_path):
    net, optimizer, generator = build()
    for _ in range(3):
        step(net, optimizer, generator)
    arrays, meta = pack_training({"net": net}, {"adam": optimizer}, {"data": generator})
    write_state(tmp_path / "s.npz", arrays, meta)
    for _ in range(3):
        step(net, optimizer, generator)

    other, other_optimizer, other_generator = build()
    torch.manual_seed(99)
    arrays, meta = read_state(tmp_path / "s.npz")
    unpack_training(arrays, meta, {"net": other}, {"adam": other_optimizer}, {"data": other_generator})
    for _ in range(3):
        step(other, other_optimizer, other_generator)
    for mine, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
