"""How well a ranking finds the wrong labels, and the baselines of the proof."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture

from models.aum.network import Classifier
from models.aum.ranking import Bools
from models.core.classifiers import logits_of
from models.core.inputs import Float64, Int64
from models.core.parts import Row


def ranking_scores(name: str, score: Float64, wrong: Bools) -> Row:
    """``auroc``, ``ap`` (average precision) and ``f1_k`` of as many flags as there are wrong labels, each ``_name``.

    Args:
        score: higher means more suspicious. wrong: which labels are wrong; nothing can be scored where none is.
    """
    count = int(wrong.sum())
    if not count:
        return {}
    top = np.zeros_like(wrong)
    top[np.argsort(-score, kind="stable")[:count]] = True
    return {
        f"auroc_{name}": float(roc_auc_score(wrong, score)),
        f"ap_{name}": float(average_precision_score(wrong, score)),
        f"f1_k_{name}": float((top & wrong).sum() / count),
    }


def flag_scores(name: str, flagged: Bools, wrong: Bools) -> Row:
    """Share ``flagged`` and, where there are wrong labels, ``precision``, ``recall`` and ``f1`` of the flags."""
    row: Row = {f"flagged_{name}": float(flagged.mean())}
    count, flags, hits = int(wrong.sum()), int(flagged.sum()), int((flagged & wrong).sum())
    if count:
        row |= {
            f"precision_{name}": hits / max(flags, 1),
            f"recall_{name}": hits / count,
            f"f1_{name}": 2 * hits / (flags + count),
        }
    return row


def mixture(score: Float64) -> tuple[float, Bools]:
    """Share and members of the upper of two normal distributions fitted to ``score`` ``(N,)``.

    What the lower component claims beyond the upper one's mean belongs to the upper, whatever their widths.
    """
    found = GaussianMixture(2, random_state=0).fit(score[:, None])
    upper = int(found.means_[:, 0].argmax())
    likely = found.predict_proba(score[:, None])[:, upper] > 0.5
    low, high = np.sort(found.means_[:, 0])
    return float(found.weights_[upper]), np.asarray((likely & (score > low)) | (score > high))


def confident_learning(labels: Int64, probabilities: npt.NDArray[np.float64]) -> tuple[Float64, Bools]:
    """Label quality (higher is better) and issues by cleanlab from out-of-fold ``probabilities`` ``(N, classes)``.

    Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(labels, probabilities, n_jobs=1)
    return np.asarray(get_label_quality_scores(labels, probabilities)), np.asarray(issues, dtype=bool)


def losses(network: Classifier, inputs: torch.Tensor, labels: Int64) -> Float64:
    """Cross-entropy of each sample with the network in evaluation mode, float64 ``(N,)``."""
    logits = logits_of(network, inputs).double()
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()
