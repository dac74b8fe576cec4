"""A run that is killed continues to the result of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from models.aum.detection import run
from models.aum.schema import MislabeledDetection
from tests.unit.local_job import LocalJob

ROOT = Path(__file__).parents[3]
UPLOAD = ROOT / "tests" / "data" / "fashion-mnist-600.npz"
PARAMETERS = {"epochs": 4, "retrain": False, "augment": True}
SCRIPT = f"""
import json, sys, torch
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from models.aum.detection import run
from models.aum.schema import MislabeledDetection
from tests.unit.local_job import LocalJob
torch.set_num_threads(1)
job = LocalJob(Path(sys.argv[1]), upload=Path({str(UPLOAD)!r}), seed=5)
result = run(job, MislabeledDetection(**json.loads(sys.argv[2])))
(job.folder / "result.json").write_text(json.dumps(result))
"""


def start(folder):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), json.dumps(PARAMETERS)])


def kill_at_each_new_state(folder, times):
    """Kill -9 the job as soon as it has left a further resume point, again and again."""
    state, seen = folder / "state.npz", 0
    for _ in range(times):
        process = start(folder)
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == seen):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the job ended before it could be killed"
        seen = state.stat().st_mtime_ns


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    del result["usage"]["seconds"]
    return result, pq.read_table(folder / "ranking.parquet").to_pydict()


def test_killed_runs_end_as_if_nothing_had_happened(tmp_path):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    assert start(plain).wait() == 0
    kill_at_each_new_state(killed, 1)
    assert start(killed).wait() == 0
    # Text keeps null apart from NaN, which compares unequal to itself.
    assert json.dumps(outcome(killed)) == json.dumps(outcome(plain))


def test_every_resume_point_of_a_run_leads_to_the_same_end(tmp_path):
    """Start again from each state that an undisturbed run left, in folds and in retraining."""
    parameters = MislabeledDetection(epochs=2, retrain_seeds=1)
    states = []

    class Recording(LocalJob):
        def save_state(self, tensors, meta):
            states.append(({k: np.array(v) for k, v in tensors.items()}, json.loads(json.dumps(dict(meta)))))

        def load_state(self):
            return self.initial

    def ranking_from(initial, name):
        job = Recording(tmp_path / name, upload=UPLOAD, seed=1)
        job.initial = initial
        result = run(job, parameters)
        return [(item["index"], item["aum"]) for item in result["ranking"]], result["retrain"]

    expected = ranking_from(None, "whole")
    recorded = list(states)
    # Two folds of 2 epochs and three trainings of 4: a state an epoch, the last one of each being its result.
    assert len(recorded) == 2 * 2 + 3 * 4
    for number, state in list(enumerate(recorded))[::3]:
        assert ranking_from(state, str(number)) == expected
