import os
import time

import torch
from torch.nn.functional import cross_entropy

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.figures import Figure, Figures
from models.core.inputs import VectorSpec
from models.core.method import Method
from models.core.training import pack_training, unpack_training

from .jobs import note


class Linear(Method):
    def __init__(self, network):
        self.network = network

    @classmethod
    def load(cls, checkpoint, device):
        network = torch.nn.Linear(checkpoint.config.input.size, len(checkpoint.config.class_names))
        checkpoint.load_into(network)
        return cls(network.to(device).eval())

    def predict(self, inputs, params):
        return self.network(torch.from_numpy(inputs)).softmax(1).numpy()

    @classmethod
    def train(cls, dataset, config, run):
        x, y = torch.from_numpy(dataset.vectors()), torch.from_numpy(dataset.require_labels())
        torch.manual_seed(run.seed)
        network = torch.nn.Linear(x.shape[1], len(dataset.class_names))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        shuffle = torch.Generator().manual_seed(run.seed)
        parts = {"network": network}, {"adam": optimizer}, {"shuffle": shuffle}
        state, first = run.load_state(), 0
        if state is not None:
            unpack_training(state[0], state[1]["training"], *parts)
            first = state[1]["epoch"]
        note(config.trace, "start", os.getpid(), first)
        for epoch in range(first, config.epochs):
            for batch in torch.randperm(len(x), generator=shuffle).split(16):
                loss = cross_entropy(torch.dropout(network(x[batch]), 0.1, train=True), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            time.sleep(config.pause)
            note(config.trace, "step", os.getpid(), epoch)
            run.metric("loss", float(loss.detach()), epoch)
            tensors, facts = pack_training(*parts)
            run.save_state(tensors, {"epoch": epoch + 1, "training": facts})
            run.progress((epoch + 1) / config.epochs, "training", f"epoch {epoch + 1}")
        note(config.trace, "end", os.getpid(), config.epochs)
        described = CheckpointConfig(
            method="test-steps", input=VectorSpec(size=x.shape[1]), class_names=dataset.class_names, seed=run.seed
        )
        return Checkpoint.write(
            run.scratch / "checkpoint", described, network.state_dict(), cls._figures(network, x, y)
        )

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        method = cls.load(checkpoint, torch.device(run.device))
        return cls._figures(method.network, torch.from_numpy(dataset.vectors()), torch.from_numpy(dataset.labels))

    @staticmethod
    def _figures(network, x, y):
        with torch.inference_mode():
            accuracy = float((network(x).argmax(1) == y).float().mean())
        return Figures(figures=[Figure(name="accuracy", value=accuracy)])
