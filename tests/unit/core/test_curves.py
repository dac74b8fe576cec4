"""The picture of a training's curves."""

import numpy as np
from PIL import Image

from models.core.curves import draw_curves


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_every_metric_has_a_panel_and_gaps_are_allowed(tmp_path):
    one = {"train_loss": [(step, 1 / (1 + step)) for step in range(100)]}
    draw_curves(one, tmp_path / "one.png")
    four = one | {"held_out_accuracy": [(0, 0.1), (1, None), (2, 0.4)], "lr": [(0, 1.0)], "norm": []}
    draw_curves(four, tmp_path / "four.png")
    single, several = pixels(tmp_path / "one.png"), pixels(tmp_path / "four.png")
    assert several.shape[1] == 3 * single.shape[1]
    assert several.shape[0] == 2 * single.shape[0]
    assert (single < 128).mean() > 0.002


def test_a_training_without_metrics_leaves_an_empty_picture(tmp_path):
    draw_curves({}, tmp_path / "none.png")
    assert (pixels(tmp_path / "none.png") == 255).all()
