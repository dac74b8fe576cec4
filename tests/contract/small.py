"""The methods of the folder beside this file: a generator of digits and a summariser, trained in a second."""

import shutil
from pathlib import Path

from models.core import sources
from models.core.dataset import Dataset
from models.core.registry import Registry
from models.core.run import LocalRun

PAIRS = [(f"{head} Then it is said how. It ends.", head) for head in ("A shell for text.", "Plays all the games.")]


def train_small_methods(root, scratch):
    """Copy the folder to ``root`` and train its methods there."""
    shutil.copytree(Path(__file__).parent / "methods", root, dirs_exist_ok=True)
    registry = Registry(root)
    data = {"langevin": sources.load("digits-8x8", "all"), "first-sentences": Dataset("pairs", PAIRS)}
    for slug, dataset in data.items():
        entry = registry[slug]
        trained = entry.method.train(dataset, entry.presets["cpu"], LocalRun(scratch / slug))
        trained.folder.rename(entry.folder / "weights")
    return root
