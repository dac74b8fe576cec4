"""Writes ``weights/`` from trained generators: ``python -m models.robust_ot.ship FOLDER...``

The folders are those of :mod:`models.robust_ot.gan_trainings`. Their generators for polluted digits, robust of two
radii and plain, are shipped for the proof to judge.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.inputs import SidesSpec
from models.robust_ot.gan import weight_facts
from models.robust_ot.gan_proof import polluted_digits
from models.robust_ot.gan_trainings import ARMS

WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = ("robust", "plain", "wide")


def ship(folders: Sequence[Path]) -> Checkpoint:
    """Replace the shipped checkpoint by the generators in ``folders``."""
    kept: dict[str, torch.Tensor] = {}
    proof: dict[str, Any] = {}
    for folder in folders:
        for row in json.loads((folder / "rows.json").read_text(encoding="utf-8")):
            name = f"{row['cell']}-{row['seed']}"
            if row["cell"] not in SHIPPED:
                continue
            found = load_file(folder / f"{name}.safetensors")
            kept |= {f"{name}.{key}": tensor for key, tensor in found.items()}
            config = ARMS[row["arm"]].model_copy(update={"steps": row["steps"]})
            proof[name] = {
                "subject": row["arm"],
                "seed": row["seed"],
                "device": row["device"],
                "config": config.model_dump(mode="json"),
                "weights": weight_facts(found["sample_weights"].double().numpy(), config.rho),
                "data_sha256": polluted_digits(row["seed"])[0].sha256,
            }
    return Checkpoint.write(
        WEIGHTS,
        CheckpointConfig(
            method="robust-ot",
            input=SidesSpec(),
            outputs={"proof": dict(sorted(proof.items()))},
            command="python -m models.robust_ot.ship",
        ),
        kept,
    )


def main() -> None:
    """Ship, and say what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    print(*ship(parser.parse_args().folders).config.outputs["proof"], sep="\n")


if __name__ == "__main__":
    main()
