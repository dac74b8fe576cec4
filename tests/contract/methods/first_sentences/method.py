"""A text's sentences, ranked by a Bradley-Terry reward of two features."""

import math
import re

import torch

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.figures import Figures
from models.core.inputs import TextSpec
from models.core.method import Method
from models.core.outputs import Candidate, Summary

from .schema import Config, Params

READ = 1000


def features(text, candidate):
    """Logarithm of the length in words, share of the words that the text's start has, too."""
    words, start = candidate.lower().split(), set(text.lower().split()[:20])
    return [math.log1p(len(words)), sum(word in start for word in words) / max(1, len(words))]


class FirstSentences(Method[Params, Config]):
    """The candidates are sentences."""

    def __init__(self, weights):
        self.weights = weights

    @classmethod
    def load(cls, checkpoint, device):
        """The reward's two weights."""
        return cls(checkpoint.tensors(device)["weights"])

    def predict(self, inputs, params):
        """One summary a text."""
        return [self._summary(text, params) for text in inputs]

    def _summary(self, text, params):
        words = text.split()
        read = " ".join(words[:READ])
        sentences = [part for part in re.split(r"(?<=[.!?])\s+", read) if part][: params.best_of] or [""]
        candidates = []
        for sentence in sentences:
            kept = sentence.split()[: params.max_tokens]
            whole = len(kept) == len(sentence.split())
            reward = float(torch.tensor(features(read, " ".join(kept))) @ self.weights)
            reason = "stop" if whole else "length"
            candidates.append(Candidate(" ".join(kept), reward, -math.log(len(sentences)), reason))
        candidates.sort(key=lambda candidate: -candidate.reward)
        written = sum(len(candidate.text.split()) for candidate in candidates)
        return Summary(candidates[: params.n], min(len(words), READ), written, len(words) > READ)

    @classmethod
    def train(cls, dataset, config, run):
        """Fit the weights to the run's comparisons, and to each pair's summary against its text's last sentence."""
        dataset.require_kind("pairs")
        wins = [(text, summary, text.rpartition(". ")[2]) for text, summary in dataset.inputs]
        stated = run.comparisons()
        wins += [(item.input, item.candidates[item.preferred], item.candidates[1 - item.preferred]) for item in stated]
        run.log(f"{len(stated)} comparisons of people")
        differences = torch.tensor([features(t, a) for t, a, _ in wins]) - torch.tensor(
            [features(t, b) for t, _, b in wins]
        )
        weights = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.SGD([weights], lr=0.5)
        for _ in range(config.steps):
            optimiser.zero_grad()
            (-torch.nn.functional.logsigmoid(differences @ weights).mean() + 1e-3 * weights.square().sum()).backward()
            optimiser.step()
        run.metric("comparisons", len(stated), 0)
        return Checkpoint.write(
            run.scratch / "checkpoint",
            CheckpointConfig(method=cls.card.slug, input=TextSpec(), data_sha256=dataset.sha256),
            {"weights": weights.detach()},
        )

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        """Nothing is measured."""
        return Figures(figures=[])
