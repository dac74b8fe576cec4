"""The proof in the small: its cells, what they are compared with, and what is said of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.core.checkpoint import Checkpoint
from models.core.run import LocalRun
from models.guided_diffusion import evaluate, ship
from models.guided_diffusion.baselines import clean_guide, simple_twin
from models.guided_diffusion.cells import Bench, from_json, measure_cells, to_json
from models.guided_diffusion.evaluate import Proof, real_against_real
from models.guided_diffusion.findings import bound_claims, claims, summary
from models.guided_diffusion.plan import PLANS, Cell, cells_of
from models.guided_diffusion.schema import Params
from tests.unit.guided_diffusion.conftest import TINY, halves

SHORT = TINY.model_copy(update={"steps": 60, "classifier_steps": 60, "judge_steps": 20, "batch_size": 16})
PLAN = replace(
    PLANS["full"], samples=40, seeds=(0, 1), other_seeds=(0, 1), scales=(0, 8), told_scales=(0,), guide_scales=(8,),
    ddim_steps=(5, 25), ddpm_steps=(5,), bound_pictures=10, bound_steps=20, batch=20, precision="float32",
)  # fmt: skip


@pytest.fixture
def proof(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(evaluate.sources, "load", lambda name, split: halves(80, seed=len(split)))
    monkeypatch.setitem(evaluate.FID, "halves", "fid_halves64")
    opened = Proof.open(trained[0], LocalRun(tmp_path), PLAN)
    return replace(opened, config=SHORT)


@pytest.mark.parametrize("name", PLANS)
def test_cells_have_names_of_their_own(name):
    plan = PLANS[name]
    cells = cells_of(plan, 10_000)
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {cell.samples for cell in cells} == {plan.samples}
    assert {cell.samples for cell in cells_of(plan, 100)} == {100}
    assert plan.samples % plan.batch == 0  # so that nothing is compiled for a remainder


def test_the_whole_proof(proof, tmp_path):
    cells = proof.cells
    assert {cell.group for cell in cells} == {
        "guidance", "conditional", "blind guide", "clean guide", "gradient at", "steps",
    }  # fmt: skip
    measured = measure_cells(proof.bench(), cells, proof.run)
    figures = proof.figures(measured)
    subjects = {figure.subject for figure in figures.figures}
    assert {"real against real", "unconditional, no guidance", "L_simple, large variance"} <= subjects
    assert len(figures.tables["cells"]) == len(cells)
    assert {row["device"] for row in figures.tables["cells"]} == {"CPU"}
    for name in ("trade-off.png", "classes.png", "nearest.png"):
        assert (tmp_path / name).stat().st_size > 500
    by_scale = {(row["told"], row["guide"], row["guidance scale"]): row for row in figures.tables["by scale"]}
    assert by_scale["nothing", "noisy", 8]["consistency"] > by_scale["nothing", "noisy", 0]["consistency"] + 0.1
    assert by_scale["nothing", "clean", 8]["seeds"] == 2
    steps = [(row["sampler"], row["steps"]) for row in figures.tables["without guidance by steps"]]
    assert steps == [("DDIM", 5), ("DDIM", 25), ("large", 5), ("learned", 5), ("small", 5)]


def test_what_was_measured_is_not_measured_again(proof):
    bench, cells = proof.bench(()), proof.cells[:2]
    first = measure_cells(bench, cells, proof.run)
    bench.measure = None
    assert measure_cells(bench, cells, proof.run) == first
    kept = json.loads(json.dumps({m.cell.name: to_json(m) for m in first[1:]}))
    assert list(from_json(cells, kept)) == first[1:]
    assert claims(first[:1], real_against_real(proof.method.networks, proof.train, proof.test, 40))
    assert summary(first)["without guidance by steps"] == []


def test_a_blind_guide_sees_no_noise(proof):
    steps = []
    own = proof.method.networks.classifier

    def classify(x, t):
        steps.extend(t.tolist())
        return own(x, t)

    bench = Bench(replace(proof.method.networks, classifier=classify), proof.test, PLAN)
    params = Params(guidance_scale=1, steps=5)
    for guide in ("blind", "noisy"):
        steps.clear()
        bench.samples(Cell("any", params, samples=2, guide=guide), lambda share: None)
        assert (max(steps) == 0) is (guide == "blind")


def test_baselines_are_trained_once(tmp_path):
    data, run = halves(60), LocalRun(tmp_path)
    guide, twin = clean_guide(SHORT, data, run), simple_twin(SHORT, data, run)
    pictures = torch.from_numpy(data.inputs).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = guide(pictures, torch.zeros(60, dtype=torch.int64)).argmax(dim=1).numpy()
    assert np.mean(found == data.labels) > 0.9
    assert not twin.learned_variance
    assert twin.denoiser.output.out_channels == 1
    refused = SHORT.model_copy(update={"steps": -1})
    assert torch.equal(clean_guide(refused, data, run)(pictures, torch.zeros(60, dtype=torch.int64)).argmax(1), guide(
        pictures, torch.zeros(60, dtype=torch.int64)).argmax(1))  # fmt: skip
    assert simple_twin(refused, data, run).class_names == twin.class_names


def test_the_hybrid_loss_is_compared_with_the_best_fixed_variance():
    bits = {"method": torch.full((4,), 3.0), "L_simple, large variance": torch.tensor([3.4, 3.6, 3.5, 3.5]),
            "L_simple, small variance": torch.full((4,), 9.0)}  # fmt: skip
    (claim,) = bound_claims(bits)
    assert "3.500 by L_simple, large variance" in claim
    assert "0.500 ± 0.041" in claim
    assert bound_claims({"method": bits["method"]}) == []


def test_a_new_version_keeps_the_judge(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(ship, "shipped", lambda version: trained[0].folder)
    monkeypatch.setattr(ship, "load", lambda name, split: halves(60))
    monkeypatch.setitem(ship.RECIPES, "digits", ("halves", SHORT))
    ship.train(tmp_path, "digits", "cpu", {"steps": 5})
    old, new = trained[0], Checkpoint(tmp_path / "checkpoint")
    same = {name for name, value in new.tensors().items() if torch.equal(value, old.tensors()[name])}
    assert {name for name in new.tensors() if name.startswith("judge.")} <= same
    assert not any(name.startswith("denoiser.output") for name in same)
    assert (new.config.version, new.config.config["steps"]) == ("digits", 5)
    assert new.config.config["judge_steps"] == old.config.config["judge_steps"]
