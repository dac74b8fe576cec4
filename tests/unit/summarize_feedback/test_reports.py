"""The job kinds on a stored data set, end to end."""

import json

import numpy as np
import pytest

from models.core.dataset import Dataset
from models.core.feedback import Comparison
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.run import LocalRun
from models.summarize_feedback.bundle import read_bundle
from models.summarize_feedback.evaluate import evaluate_method, perplexity_rows
from models.summarize_feedback.examples import encode_pairs, pairs_of
from models.summarize_feedback.findings import PPO_TABLE, training_findings
from models.summarize_feedback.over_optimization import best_of_n_verdict, fit_curve, verdict
from models.summarize_feedback.reports import best_of_n, label_agreement, over_optimization
from models.summarize_feedback.schema import (
    BestOfNReport,
    Config,
    LabelAgreement,
    OverOptimizationReport,
    PolicyOptions,
)
from models.summarize_feedback.sft import perplexity
from models.summarize_feedback.train import train_stage


class Job(LocalRun, JobContext):
    """A job of one data set and one version, in a folder."""

    job_id, owner, model = "job_local", "tester", "summarize-feedback"

    def __init__(self, folder, data, version, people=()):
        super().__init__(folder, seed=4)
        self._data, self._version, self._people = data, version, list(people)
        self.dataset_id = None if data is None else "ds_1"

    def dataset(self, dataset_id):
        return self._data

    def dataset_file(self, dataset_id):
        raise KeyError(dataset_id)

    def register_dataset(self, path, name):
        raise KeyError(name)

    def checkpoint(self, model):
        if model.endswith("@none"):
            raise KeyError(model)
        return self._version

    def comparisons(self):
        return self._people


@pytest.fixture
def job(pairs, trained, tmp_path):
    return Job(tmp_path, pairs.select(range(24)), trained["ppo"])


def test_best_of_n(job, tmp_path):
    result = best_of_n(job, BestOfNReport(texts=16, samples=8))
    assert [row["n"] for row in result["curve"]] == [1, 2, 4, 8]
    rewards = [row["reward"] for row in result["curve"]]
    assert rewards == sorted(rewards)
    assert result["preference_source"] == "simulated"
    assert (tmp_path / "best-of-n.png").stat().st_size > 5000
    json.dumps(result, allow_nan=False)


def test_a_stage_starts_from_another_version_or_says_that_there_is_none(job, pairs):
    options = PolicyOptions(iterations=1, batch_size=8)
    tuned = train_stage(pairs, Config(stage="ppo", base="summarize-feedback@mine", ppo=options), job)
    assert tuned.config.outputs["policies"] == ["sft", "ppo"]
    with pytest.raises(MethodError, match="base: there is no version summarize-feedback@none"):
        train_stage(pairs, Config(stage="ppo", base="summarize-feedback@none"), job)


def test_evaluation_on_own_pairs_measures_every_way_to_summarise(pairs, trained, tmp_path):
    found = evaluate_method(trained["ppo"], LocalRun(tmp_path, seed=1), pairs.select(range(24)))
    names = [row["summaries"] for row in found.tables["summaries"]]
    assert {"lead, 15 words", "copy of the first sentence", "sft, greedy", "ppo, best of 16"} <= set(names)
    assert any(figure.headline and figure.subject == "method" for figure in found.figures)
    assert found.claims[0] == "preference_source: simulated."
    (one, *_, eight) = found.tables["long texts"]
    assert one["gain over one window"] == 0
    assert one["read whole"] < eight["read whole"]
    json.dumps(found.model_dump(), allow_nan=False)


def test_perplexity_by_split(pairs, trained):
    bundle, half = read_bundle(trained["ppo"]), pairs_of(pairs)[:12]
    rows = perplexity_rows(bundle, {"train": half, "test": half[::-1]})
    assert [(row["split"], row["pairs"]) for row in rows] == [("train", 12), ("test", 12)]
    expected = perplexity(bundle.encoder, bundle.sft, encode_pairs(bundle.tokenizer, half, bundle.shape))
    assert [row["perplexity"] for row in rows] == pytest.approx([expected] * 2)


def test_stored_trainings_give_figures_where_they_ended():
    def run(seed, beta, qualities):
        return [
            {"seed": seed, "learning rate": 1e-4, "texts": 30, "beta": beta, "iteration": 5 * i, "KL": 0.2 * i,
             "reward": float(i), "quality G": quality, "quality ±": 0.02, "win rate": 0.5 + 0.1 * i}
            for i, quality in enumerate(qualities)
        ]  # fmt: skip

    rows = run(0, 0.1, [0.2, 0.3]) + run(1, 0.1, [0.2, 0.4]) + run(0, 0.0, [0.2, 0.5, 0.1])
    figures, claims = training_findings({PPO_TABLE: rows, "other": []})
    found = {(figure.name.partition(" of one")[0], figure.setting): figure for figure in figures}
    setting = "rate 0.0001, 30 validation texts"
    assert found["quality G", f"beta 0.1, {setting}"].value == pytest.approx(0.35)
    assert found["quality G", f"beta 0.1, {setting}"].seeds == 2
    assert found["win rate", f"beta 0, {setting}"].value == pytest.approx(0.7)
    assert len(figures) == 6 and len(claims) == 3
    assert "peaks at iteration 5 and ends 0.400 below it, more than two" in claims[0]
    assert training_findings({}) == ([], [])


def test_over_optimization_and_its_resumption(job, tmp_path):
    parameters = OverOptimizationReport(
        texts=24, betas=[0.1, 0.0], checkpoints=2, ppo=PolicyOptions(iterations=2, batch_size=8, max_tokens=8)
    )
    result = over_optimization(job, parameters)
    assert [(row["beta"], row["iteration"]) for row in result["curve"]] == [
        (b, i) for b in (0.1, 0.0) for i in (0, 1, 2)
    ]
    assert result["curve"][0]["KL"] == 0
    assert len(result["verdicts"]) == 2
    assert (tmp_path / "over-optimization.png").stat().st_size > 5000
    state, meta = job.load_state()
    job.save_state(state, {"rows": meta["rows"][:3], "verdicts": meta["verdicts"][:1]})
    assert over_optimization(job, parameters)["curve"] == result["curve"]


def test_label_agreement(pairs, trained, tmp_path):
    people = [
        Comparison(
            input=text, candidates=("short", reference), preferred=int(number != 0), annotator=name, shown_first=0
        )
        for name in ("ann", "bob")
        for number, (text, reference) in enumerate(pairs.inputs[:10])
        if name == "ann" or number
    ]
    people.append(
        Comparison(input=pairs.inputs[0][0], candidates=(pairs.inputs[0][1], "short"), preferred=0, annotator="bob")
    )
    job = Job(tmp_path, pairs, trained["ppo"], people)
    result = label_agreement(job, LabelAgreement(simulated=60))
    assert result["human"]["comparisons"] == 20
    assert result["human"]["judged_twice"] == 10
    assert result["human"]["agreement_between_annotators"] == 0.9
    assert result["human"]["annotators"] == {"ann": 10, "bob": 10}
    assert 0 <= result["simulated"]["agreement"]["reward model"] <= 1


def test_reports_name_what_is_missing(pairs, trained, tmp_path):
    with pytest.raises(MethodError, match="no reward model"):
        best_of_n(Job(tmp_path / "a", pairs, trained["sft"]), BestOfNReport())
    with pytest.raises(MethodError, match="no comparisons are stored"):
        label_agreement(Job(tmp_path / "b", None, trained["ppo"]), LabelAgreement())
    with pytest.raises(MethodError, match="it holds text"):
        best_of_n(Job(tmp_path / "c", Dataset("text", ["a"]), trained["ppo"]), BestOfNReport())


def test_the_fit_recovers_its_own_curve():
    kl = np.array([0.0, 0.5, 1.0, 4.0, 9.0])
    d = np.sqrt(kl[1:])
    gain = np.concatenate([[0.0], d * (0.4 - 0.1 * np.log(d))])
    assert fit_curve(kl, gain, logarithmic=True) == pytest.approx((0.4, 0.1))
    gain = np.concatenate([[0.0], d * (0.4 - 0.1 * d)])
    assert fit_curve(kl, gain, logarithmic=False) == pytest.approx((0.4, 0.1))
    with pytest.raises(ValueError, match="two points"):
        fit_curve(kl[:2], kl[:2], logarithmic=True)


def test_the_verdict_sees_a_fall_beyond_the_noise():
    rows = [
        {"beta": 0, "iteration": i, "quality G": g, "quality ±": 0.0196, "reward": i}
        for i, g in enumerate((0.1, 0.3, 0.2))
    ]
    assert "peaks at iteration 1 and ends 0.100 below it, more than" in verdict(rows)
    assert "reward is highest" in verdict(rows)
    rows[-1] |= {"quality G": 0.29, "reward": 0.5}
    assert "less than two standard errors; reward is not highest" in verdict(rows)


def test_the_verdict_on_best_of_n_compares_the_same_texts():
    rows = [
        {"n": n, "quality G": 0.4 - fall, "fall from the best n": fall, "fall ±": 0.004}
        for n, fall in ((1, 0.05), (8, 0.0), (64, 0.02))
    ]
    assert "peaks at n = 8 and is 0.0200 ± 0.0040 below that at n = 64, more than" in best_of_n_verdict(rows)
    assert "less than" in best_of_n_verdict(rows[:2])
