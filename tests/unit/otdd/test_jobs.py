"""The job dataset-distance over uploaded data sets, and its end after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.core.method import MethodError
from models.core.outputs import Sides
from models.core.run import Cancelled
from models.core.sources import load
from models.core.transport.clouds import side
from models.otdd.distance import otdd
from models.otdd.jobs import dataset_distance
from models.otdd.schema import DatasetDistance, Params
from tests.unit.local_job import LocalJob

DATA = Path(__file__).parents[2] / "data"
SIZE = 200
NAMES = ["digits", "other digits", "rotated", "inverted"]


def start(folder, uploads, dataset=None, **reports):
    job = LocalJob(folder, uploads[0], **reports)
    job.dataset_id = uploads[1][dataset] if dataset else None
    return job


def distances(job, uploads, names, **parameters):
    return dataset_distance(job, DatasetDistance(datasets=[uploads[1][name] for name in names], **parameters))


def untimed(result):
    pairs = [{**pair, "stats": {k: v for k, v in pair["stats"].items() if k != "seconds"}} for pair in result["pairs"]]
    return {**result, "pairs": pairs}


def test_all_pairs_of_data_sets(uploads, tmp_path):
    reports = []
    job = start(tmp_path, uploads, "digits", report=lambda *report: reports.append(report))
    names = ["digits", "other digits", "rotated", "garments"]
    result = distances(job, uploads, names, solver="exact")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    matrix = np.array(result["distances"])
    assert (matrix == matrix.T).all() and (np.diag(matrix) == 0).all() and (matrix + np.eye(4) > 0).all()
    assert matrix[0, 1] < matrix[0, 2] < matrix[0, 3]
    assert [entry["name"] for entry in result["datasets"]] == names
    assert result["datasets"][3] == {
        "id": uploads[1]["garments"],
        "name": "garments",
        "samples": 600,
        "classes": 10,
    }
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]][:2] == [
        (uploads[1]["digits"], uploads[1][name]) for name in names[1:3]
    ]
    a, b = (side(job.dataset(uploads[1][name])) for name in ("digits", "garments"))
    alone = otdd(Sides(a, b), Params(solver="exact"))
    pair = result["pairs"][2]
    assert pair["distance"] == matrix[0, 3] == pytest.approx(alone.distance, rel=1e-9)
    assert np.shape(pair["label_distances"]) == np.shape(pair["class_coupling"]) == (10, 10)
    assert pair["classes"]["b"] == job.dataset(uploads[1]["garments"]).class_names
    with Image.open(tmp_path / "distances.png") as picture:
        assert picture.format == "PNG" and picture.width > 400
    fractions = [fraction for fraction, _, _ in reports]
    assert fractions == sorted(fractions) and fractions[0] == 0 and len(fractions) == 6
    assert reports[0][1:] == ("distances", "digits and other digits")


def test_couplings_are_written_where_asked(uploads, tmp_path):
    result = distances(start(tmp_path, uploads), uploads, ["digits", "rotated"], solver="exact", return_coupling=True)
    pair = result["pairs"][0]
    table = pq.read_table(tmp_path / f"coupling-{pair['a']}-{pair['b']}.parquet")
    assert table.column_names == ["row", "column", "mass"]
    rows = np.bincount(table.column("row").to_numpy(), table.column("mass").to_numpy(), SIZE)
    np.testing.assert_allclose(rows, 1 / SIZE, atol=1e-9)
    assert "class_coupling" in pair and "coupling" not in pair


def test_pictures_of_unequal_size_meet_in_the_smaller(uploads, tmp_path):
    path = tmp_path / "small.npz"
    small = load("digits-8x8", "all").select(range(150))
    np.savez(path, images=small.inputs, labels=small.labels, class_names=np.array(small.class_names))
    job = start(tmp_path, uploads)
    small_id = job.register_dataset(path, "small")
    result = dataset_distance(job, DatasetDistance(datasets=[uploads[1]["digits"], small_id]))
    assert 0 < result["distances"][0][1] < 8


def test_embeddings_as_features(uploads, tmp_path):
    names = ["digits", "other digits", "garments"]
    raw = np.array(distances(start(tmp_path / "raw", uploads), uploads, names)["distances"])
    result = distances(start(tmp_path / "embedded", uploads), uploads, names, features="align-uniform")
    embedded = np.array(result["distances"])
    assert embedded[0, 1] < embedded[0, 2] < 3 < raw[0, 2]


def test_models_that_do_not_embed_the_data_are_named(uploads, tmp_path):
    with pytest.raises(MethodError, match="features: `robust-ot` does not embed"):
        distances(start(tmp_path, uploads), uploads, NAMES, features="robust-ot")
    job = start(tmp_path, uploads, "vectors")
    more = DatasetDistance(datasets=[job.register_dataset(_other_vectors(tmp_path), "more")], features="align-uniform")
    with pytest.raises(MethodError, match="features: `align-uniform` does not take these vectors"):
        dataset_distance(job, more)


def _other_vectors(folder):
    path = folder / "more.csv"
    lines = (DATA / "digits-8x8-600.csv").read_text().splitlines()
    path.write_text("\n".join(lines[:200]) + "\n")
    return path


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        (["digits"], {}, "datasets: name at least two data sets"),
        (["digits", "vectors"], {}, "datasets: images and vectors cannot be compared"),
        (["text", "text"], {}, "datasets: name at least two"),
        (["digits", "unlabelled"], {}, "b: has no labels; send them, or set unlabelled to cluster"),
    ],
)
def test_what_cannot_be_compared_is_named(uploads, tmp_path, names, parameters, message):
    with pytest.raises(MethodError, match=message):
        distances(start(tmp_path, uploads), uploads, names, **parameters)


def test_text_is_refused(uploads, tmp_path):
    job = start(tmp_path, uploads, "text")
    path = tmp_path / "more.jsonl"
    path.write_text("\n".join((DATA / "docstrings-300.jsonl").read_text().splitlines()[:100]))
    with pytest.raises(MethodError, match="the data set holds text; a distance needs images or vectors"):
        dataset_distance(job, DatasetDistance(datasets=[job.register_dataset(path, "more")]))


def test_unlabelled_data_sets_are_clustered_or_compared_without_labels(uploads, tmp_path):
    names = ["garments", "unlabelled"]
    clustered = distances(start(tmp_path / "a", uploads), uploads, names, unlabelled="cluster")
    assert clustered["pairs"][0]["stats"]["clustered"] == [False, True]
    plain = distances(start(tmp_path / "b", uploads), uploads, names, label_distance="none")
    assert 0 < plain["distances"][0][1] < clustered["distances"][0][1]


def test_dropped_classes_become_warnings(uploads, tmp_path):
    result = distances(start(tmp_path, uploads), uploads, ["digits", "garments"], min_label_count=20)
    dropped = result["pairs"][0]["stats"]["dropped_classes"]
    assert dropped and all(entry["side"] == "a" and entry["samples"] < 20 for entry in dropped)
    first = dropped[0]
    expected = f"class {first['class']} of {uploads[1]['digits']} has {first['samples']} samples and was left out"
    assert result["warnings"][0] == expected and len(result["warnings"]) == len(dropped)


def test_continues_from_every_saved_state_to_the_same_result(uploads, tmp_path):
    states = []

    class Recording(LocalJob):
        initial = None

        def save_state(self, tensors, meta):
            states.append((dict(tensors), json.loads(json.dumps(dict(meta)))))

        def load_state(self):
            return self.initial

    def outcome(initial, name):
        job = Recording(tmp_path / name, uploads[0])
        job.initial = initial
        return untimed(distances(job, uploads, NAMES, solver="exact"))

    expected = outcome(None, "whole")
    recorded = list(states)
    assert [len(meta["pairs"]) for _, meta in recorded] == [1, 2, 3, 4, 5, 6]
    for number, state in list(enumerate(recorded))[::2]:
        states.clear()
        assert outcome(state, str(number)) == expected
        assert len(states) == 5 - number


ROOT = Path(__file__).parents[3]
SCRIPT = f"""
import json, sys, torch
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from models.otdd.jobs import dataset_distance
from models.otdd.schema import DatasetDistance
from tests.unit.local_job import LocalJob
torch.set_num_threads(1)
job = LocalJob(Path(sys.argv[1]), Path(sys.argv[2]))
result = dataset_distance(job, DatasetDistance(datasets=json.loads(sys.argv[3])))
(job.folder / "result.json").write_text(json.dumps(result))
"""


def test_a_killed_job_ends_as_if_nothing_had_happened(uploads, tmp_path):
    ids = json.dumps([uploads[1][name] for name in NAMES])
    command = [sys.executable, "-c", SCRIPT]

    def run(folder):
        return subprocess.Popen([*command, str(folder), str(uploads[0]), ids])

    folder = tmp_path / "killed"
    process = run(folder)
    while process.poll() is None and not (folder / "state.npz").exists():
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    before = len(LocalJob(folder, uploads[0]).load_state()[1]["pairs"])
    assert 1 <= before < 6 and run(folder).wait() == 0
    plain = distances(start(tmp_path / "plain", uploads), uploads, NAMES)
    assert untimed(json.loads((folder / "result.json").read_text())) == untimed(plain)


def test_cancel_stops_before_the_next_pair(uploads, tmp_path):
    def cancel(fraction, stage, message):
        if fraction > 0:
            raise Cancelled

    job = start(tmp_path, uploads, report=cancel)
    with pytest.raises(Cancelled):
        distances(job, uploads, NAMES)
    assert len(job.load_state()[1]["pairs"]) == 1 and not (tmp_path / "distances.png").exists()
