"""The three job kinds: best-of-n, over-optimization and agreement of labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.core.dataset import Dataset
from models.core.feedback import Comparison
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.run import Run, State
from models.summarize_feedback.bundle import SLUG, Bundle, read_bundle
from models.summarize_feedback.comparisons import Preferences, simulate, stored_preferences
from models.summarize_feedback.evaluate import best_of_n_rows
from models.summarize_feedback.examples import encode_sources, pairs_of
from models.summarize_feedback.judges import preference_margins
from models.summarize_feedback.measure import sample
from models.summarize_feedback.over_optimization import Row, Yardstick, fit_curve, tune_and_measure, verdict
from models.summarize_feedback.plots import draw_best_of_n, draw_over_optimization
from models.summarize_feedback.schema import BestOfNReport, LabelAgreement, OverOptimizationReport
from models.summarize_feedback.tokenizer import clean

_TRAINED_SHARE = 0.5  # of the texts of an over-optimization report; the others measure


def best_of_n(job: JobContext, parameters: BestOfNReport) -> dict[str, Any]:
    """Expected reward and quality of the best of 1, 2, 4, ... samples, from ``samples`` of each text.

    Raises:
        MethodError: the data set or the version does not fit; names it.
        Cancelled: the user asked for it.
    """
    bundle = _judged(job)
    pairs = pairs_of(_dataset(job))[: parameters.texts]
    if len(pairs) < 2:
        raise MethodError("dataset: at least two pairs are needed")
    policy = bundle.sft if parameters.policy == "sft" else bundle.ppo
    if policy is None:
        raise MethodError("policy: this version has no policy tuned by PPO")
    job.progress(0.05, "sample", f"{parameters.samples} summaries of {len(pairs)} texts")
    drawn = sample(
        bundle,
        policy,
        [text for text, _ in pairs],
        n=parameters.samples,
        temperature=parameters.temperature,
        seed=job.seed,
    )
    rows = best_of_n_rows(pairs, drawn)
    job.progress(0.95, "report")
    draw_best_of_n(job.artifact("best-of-n.png", "image/png"), rows)
    return {
        "object": "best-of-n-report",
        "preference_source": bundle.preference_source,
        "texts": len(pairs),
        "curve": rows,
        "has_more": False,
    }


def over_optimization(job: JobContext, parameters: OverOptimizationReport) -> dict[str, Any]:
    """Run PPO with each beta on half of the texts, and measure reward and quality on the other half.

    Resumes with the first beta that had not finished.

    Raises:
        MethodError: the data set or the version does not fit; names it.
        Cancelled: the user asked for it.
        FloatingPointError: a run went wrong.
    """
    bundle = _judged(job)
    pairs = pairs_of(_dataset(job))[: parameters.texts]
    if len(pairs) < 4:
        raise MethodError("dataset: at least four pairs are needed")
    half = max(2, round(_TRAINED_SHARE * len(pairs)))
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs[:half]], bundle.shape)
    yardstick = Yardstick(bundle, pairs[half:], parameters.ppo, job.seed)
    state = job.load_state()
    done: dict[str, Any] = {"rows": [], "verdicts": []} if state is None else state[1]
    rows: list[Row] = list(done["rows"])
    verdicts: list[str] = list(done["verdicts"])
    for number, beta in enumerate(parameters.betas[len(verdicts) :], start=len(verdicts)):
        options = parameters.ppo.model_copy(update={"beta": beta})
        points = min(parameters.checkpoints, options.iterations)
        _, found, _ = tune_and_measure(
            bundle, sources, yardstick, options, points, _OneBeta(job),
            partial(_report, job, beta, number, len(parameters.betas)),
        )  # fmt: skip
        rows += found
        verdicts.append(verdict(found))
        job.save_state({}, {"rows": rows, "verdicts": verdicts})
    job.progress(0.98, "report")
    draw_over_optimization(job.artifact("over-optimization.png", "image/png"), rows)
    return {
        "object": "over-optimization-report",
        "preference_source": bundle.preference_source,
        "texts": len(pairs),
        "verdicts": verdicts,
        "fit": _fit(rows),
        "curve": rows,
        "has_more": False,
    }


def label_agreement(job: JobContext, parameters: LabelAgreement) -> dict[str, Any]:
    """Agreement of the reward model with people and with the simulated labeller, and of people with each other.

    Raises:
        MethodError: there is nothing to compare, or the version does not fit; names it.
        Cancelled: the user asked for it.
    """
    bundle = _judged(job)
    comparisons = job.comparisons()
    human = stored_preferences(comparisons)
    sets: dict[str, Preferences] = {"human": human} if len(human) else {}
    if job.dataset_id is not None and parameters.simulated:
        job.progress(0.1, "simulate")
        pairs = pairs_of(_dataset(job))
        count = min(parameters.simulated, 2 * len(pairs))
        sets["simulated"], _ = simulate(bundle, pairs, count=count, seed=job.seed)
    sets = {name: preferences for name, preferences in sets.items() if len(preferences)}
    if not sets:
        raise MethodError("dataset: no comparisons are stored; give a data set of pairs to simulate some")
    result: dict[str, Any] = {"object": "label-agreement", "preference_source": bundle.preference_source}
    for number, (name, preferences) in enumerate(sets.items()):
        job.progress(0.4 + 0.5 * number / len(sets), "reward model", f"{len(preferences)} {name} comparisons")
        margins = preference_margins(bundle, preferences)
        result[name] = {
            "comparisons": len(preferences),
            "agreement": {judge: float((margin > 0).mean()) for judge, margin in margins.items()},
        }
    if len(human):
        result["human"] |= between_people(comparisons)
    return result


def between_people(comparisons: list[Comparison]) -> dict[str, Any]:
    """Agreement of annotators on the same two summaries, and how often the one shown first is preferred."""
    choices: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for item in comparisons:
        choices[(clean(item.input), *sorted(item.candidates))][item.annotator or ""] = item.candidates[item.preferred]
    both = [a == b for chosen in choices.values() for a, b in combinations(chosen.values(), 2)]
    shown = [item.shown_first == item.preferred for item in comparisons if item.shown_first is not None]
    return {
        "annotators": dict(Counter(item.annotator or "unnamed" for item in comparisons)),
        "judged_twice": len(both),
        "agreement_between_annotators": float(np.mean(both)) if both else None,
        "first_shown_preferred": float(np.mean(shown)) if shown else None,
    }


def _report(job: JobContext, beta: float, number: int, count: int, fraction: float, text: str) -> None:
    job.progress(0.97 * (number + fraction) / count, f"beta {beta}", text)


class _OneBeta(Run):
    """One training of the report: its resume point is the report's, which keeps whole trainings only."""

    def __init__(self, job: JobContext) -> None:
        super().__init__(seed=job.seed, device=job.device, scratch=job.scratch)
        self._job = job

    def progress(self, fraction: float, stage: str, message: str = "") -> None:
        self._job.progress(fraction, stage, message)

    def metric(self, name: str, value: float, step: int) -> None:
        self._job.metric(name, value, step)

    def log(self, message: str) -> None:
        self._job.log(message)

    def save_state(self, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Nothing: see the class."""

    def load_state(self) -> State | None:
        return None

    def artifact(self, name: str, media_type: str) -> Path:
        return self._job.artifact(name, media_type)


def _dataset(job: JobContext) -> Dataset:
    if job.dataset_id is None:
        raise MethodError("dataset: pairs of a text and its summary are needed")
    return job.dataset(job.dataset_id)


def _judged(job: JobContext) -> Bundle:
    checkpoint = job.checkpoint(job.model or SLUG)
    bundle = read_bundle(checkpoint).to(torch.device(job.device))
    if bundle.reward is None:
        raise MethodError("model: this version has no reward model")
    return bundle


def _fit(rows: list[Row]) -> dict[str, float] | None:
    """``a`` and ``b`` of Gao et al.'s form, from all measurements that moved."""
    divergence = np.array([float(str(row["KL"])) for row in rows])
    start = float(str(rows[0]["quality G"]))
    gain = np.array([float(str(row["quality G"])) for row in rows]) - start
    try:
        a, b = fit_curve(divergence, gain, logarithmic=True)
    except ValueError:
        return None
    return {"a": a, "b": b}
