"""Draws ``summarize-feedback.png`` beside this file: what PPO gains and loses, from the stored measurements."""

from pathlib import Path

from models.core.checkpoint import Checkpoint
from models.summarize_feedback.bundle import WEIGHTS
from models.summarize_feedback.plots import draw_over_optimization

if __name__ == "__main__":
    tables = Checkpoint(WEIGHTS).figures.tables
    path = Path(__file__).with_name("summarize-feedback.png")
    draw_over_optimization(path, tables["ppo on validation texts"], tables.get("best of n on validation texts", ()))
