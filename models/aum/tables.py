"""The ranking as a table, as Parquet, and as the list in the job's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from models.aum.duplicates import sample_id
from models.aum.folds import FoldRuns
from models.aum.ranking import Ranking
from models.core.dataset import Dataset
from models.core.inputs import Int64


def ranking_table(dataset: Dataset, labels: Int64, ranking: Ranking, runs: FoldRuns, counted_epochs: int) -> pa.Table:
    """One row a sample, lowest AUM first; ``aum_fold_r`` is null where the sample was a threshold sample."""
    order = ranking.order
    names = np.array([*dataset.class_names, None], dtype=object)
    folds = {}
    for number, (row, chosen) in enumerate(zip(runs.aum, runs.sets, strict=True), start=1):
        masked = row.copy()
        masked[chosen] = np.nan
        folds[f"aum_fold_{number}"] = _nullable(masked[order])
    return pa.table(
        {
            "sample_id": pa.array([sample_id(dataset, index) for index in order], pa.string()),
            "index": order,
            "assigned_label": pa.array(names[labels[order]], pa.string()),
            "aum": _nullable(ranking.aum[order]),
            "rank": ranking.rank[order],
            "flagged": ranking.suspect[order],
            "votes": ranking.votes[order],
            "measurements": ranking.eligible[order] * counted_epochs,
            "suggested_label": pa.array(names[ranking.suggested[order]], pa.string()),
            "suggested_share": _nullable(ranking.suggested_share[order].astype(np.float64)),
            "threshold_percentile": _nullable(ranking.threshold_percentile[order]),
            **folds,
            "final_margin": _nullable(ranking.final_margin[order]),
        }
    )


def _nullable(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> pa.Array:
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write the ranking as Parquet."""
    pyarrow.parquet.write_table(table, path, compression="zstd")


def ranking_items(table: pa.Table) -> list[dict[str, Any]]:
    """The ranking as the job's result lists it."""
    columns = {
        "index": "index",
        "id": "sample_id",
        "label": "assigned_label",
        "aum": "aum",
        "rank": "rank",
        "suspect": "flagged",
        "suggested_label": "suggested_label",
        "suggested_share": "suggested_share",
        "threshold_percentile": "threshold_percentile",
        "votes": "votes",
    }
    selected: list[dict[str, Any]] = table.select(list(columns.values())).rename_columns(list(columns)).to_pylist()
    return selected
