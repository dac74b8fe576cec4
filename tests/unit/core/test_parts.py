"""Parts of a run: progress, curves and resume points of their own, and nothing measured twice."""

import numpy as np
import pytest

from models.core.parts import measure_parts
from models.core.run import LocalRun


class Killed(Exception):
    pass


def test_rows_in_order_with_progress_curves_and_logs(tmp_path):
    reports, lines = [], []
    run = LocalRun(tmp_path, seed=4, report=lambda *report: reports.append(report), log=lines.append)

    def measure(number, part):
        assert (part.seed, part.device, part.load_state()) == (4, "cpu", None)
        part.progress(0.5, "train", "epoch 1")
        part.metric("loss", 2.0 + number, 1)
        part.log("half")
        part.artifact("picture.png", "image/png").write_bytes(b"x")
        return {"number": number}

    assert measure_parts(run, ["a", "b"], measure) == [{"number": 0}, {"number": 1}]
    assert reports == [(0.25, "a", "train: epoch 1"), (0.75, "b", "train: epoch 1")]
    assert run.metrics == {"loss, a": [(1, 2.0)], "loss, b": [(1, 3.0)]}
    assert lines == ["a: half", "b: half"] and (tmp_path / "picture.png").exists()


def test_a_killed_run_goes_on_inside_the_part(tmp_path):
    asked = []

    def measure(number, part):
        state = part.load_state()
        asked.append((number, None if state is None else (state[0]["w"].tolist(), state[1])))
        if number == 1 and state is None:
            part.save_state({"w": np.arange(3)}, {"epoch": 7})
            assert part.load_state()[1] == {"epoch": 7}
            raise Killed
        return {"number": number}

    with pytest.raises(Killed):
        measure_parts(LocalRun(tmp_path), ["a", "b", "c"], measure)
    assert measure_parts(LocalRun(tmp_path), ["a", "b", "c"], measure) == [{"number": n} for n in range(3)]
    assert asked == [(0, None), (1, None), (1, ([0, 1, 2], {"epoch": 7})), (2, None)]
    assert len(measure_parts(LocalRun(tmp_path), ["a", "b", "c"], measure)) == 3 and len(asked) == 4


def test_the_resume_point_of_other_titles_is_left(tmp_path):
    measure_parts(LocalRun(tmp_path), ["a", "b"], lambda number, part: {"title": "ab"[number]})
    for titles in (["b", "a"], ["b"], ["b", "a", "c"]):
        lines, states = [], []

        def measure(number, part, titles=titles, states=states):
            states.append(part.load_state())
            part.save_state({}, {"epoch": 1})
            return {"title": titles[number]}

        rows = measure_parts(LocalRun(tmp_path, log=lines.append), titles, measure)
        assert [row["title"] for row in rows] == titles and states == [None] * len(titles)
        assert len(lines) == 1 and "starting anew" in lines[0]
