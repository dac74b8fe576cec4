"""The job transfer-rank over uploaded data sets."""

import json

import pytest

from models.core.method import MethodError
from models.otdd.jobs import dataset_distance
from models.otdd.schema import DatasetDistance, TransferRank
from models.otdd.transfer import transfer_rank
from tests.unit.local_job import LocalJob


def start(folder, uploads, dataset=None, **reports):
    job = LocalJob(folder, uploads[0], **reports)
    job.dataset_id = uploads[1][dataset] if dataset else None
    return job


def ranking(job, uploads, names, **parameters):
    return transfer_rank(job, TransferRank(sources=[uploads[1][name] for name in names], **parameters))


def test_sources_are_ranked_by_distance(uploads, tmp_path):
    names = ["inverted", "garments", "digits", "other digits", "rotated"]
    result = ranking(start(tmp_path, uploads, "digits"), uploads, names, solver="exact")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["object"] == "transfer-rank" and result["target"] == uploads[1]["digits"]
    ranked = result["ranking"]
    assert [row["name"] for row in ranked] == ["other digits", "rotated", "garments", "inverted"]
    assert [row["rank"] for row in ranked] == [1, 2, 3, 4]
    assert [row["distance"] for row in ranked] == sorted(row["distance"] for row in ranked)
    both = DatasetDistance(datasets=[uploads[1][name] for name in ("other digits", "digits")], solver="exact")
    pair = dataset_distance(start(tmp_path / "pair", uploads), both)
    assert ranked[0]["distance"] == pytest.approx(pair["distances"][0][1], rel=1e-9)
    assert "gain" not in ranked[0] and ranked[0]["converged"]


def test_the_gain_of_pretraining_is_measured(uploads, tmp_path):
    stages = []
    job = start(tmp_path, uploads, "digits", report=lambda _, stage, __: stages.append(stage))
    result = ranking(job, uploads, ["other digits", "garments"], measure_gain=True, shots=2, gain_seeds=2)
    nearest, farthest = result["ranking"]
    assert nearest["name"] == "other digits" and -1 < farthest["gain"] < nearest["gain"] < 1
    assert nearest["gain"] > 0 and nearest["gain_spread"] >= 0
    assert stages.count("pretraining") == 2 * 2 * 4
    again = start(tmp_path, uploads, "digits")
    continued = ranking(again, uploads, ["other digits", "garments"], measure_gain=True, shots=2, gain_seeds=2)
    assert continued == result


@pytest.mark.parametrize(
    ("target", "names", "parameters", "message"),
    [
        ("digits", ["digits"], {}, "sources: name at least one data set that is not the target"),
        ("vectors", ["digits"], {}, "datasets: images and vectors cannot be compared"),
        ("digits", ["unlabelled"], {}, "a: has no labels"),
        (
            "digits",
            ["unlabelled"],
            {"unlabelled": "cluster", "measure_gain": True},
            "measure_gain: needs labelled data sets of pictures",
        ),
    ],
)
def test_rankings_that_cannot_be_made_are_named(uploads, tmp_path, target, names, parameters, message):
    with pytest.raises(MethodError, match=message):
        ranking(start(tmp_path, uploads, target), uploads, names, **parameters)
