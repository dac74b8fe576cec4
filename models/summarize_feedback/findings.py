"""What the stored measurements of trainings say: PPO's runs and the best of n on the same validation texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.core.figures import Figure
from models.summarize_feedback.over_optimization import Row, best_of_n_verdict, verdict

PPO_TABLE, BEST_TABLE = "ppo on validation texts", "best of n on validation texts"


def training_findings(tables: Mapping[str, Sequence[Row]]) -> tuple[list[Figure], list[str]]:
    """Figures over the seeds of each setting of PPO where its run ended, and a sentence on every run."""
    runs: dict[tuple[float, float], dict[int, list[Row]]] = {}
    for row in tables.get(PPO_TABLE, ()):
        key = float(str(row["beta"])), float(str(row["learning rate"]))
        runs.setdefault(key, {}).setdefault(int(str(row["seed"])), []).append(row)
    figures: list[Figure] = []
    claims: list[str] = []
    for (beta, rate), seeds in sorted(runs.items()):
        claims += [f"Seed {seed}, rate {rate:g}, {verdict(measured)}" for seed, measured in seeds.items()]
        last = [measured[-1] for measured in seeds.values()]
        setting = f"beta {beta:g}, rate {rate:g}, {last[0]['texts']} validation texts"
        for name in ("quality G", "win rate", "KL"):
            values = [float(str(row[name])) for row in last]
            figures.append(Figure.over_seeds(f"{name} of one sample after PPO", values, setting=setting))
    if BEST_TABLE in tables:
        claims.append(best_of_n_verdict(tables[BEST_TABLE]))
    return figures, claims
