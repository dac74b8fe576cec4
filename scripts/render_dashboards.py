"""Draw what Grafana would show from a live Prometheus: ``python scripts/render_dashboards.py URL FOLDER``.

For looking at them where there is no Grafana: the same queries, one picture a dashboard.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parent.parent / "docker" / "grafana" / "dashboards"
LOOK_BACK_S, POINTS = 180, 180


def lines(url: str, target: dict[str, Any], interval: str) -> list[tuple[str, list[float], list[float]]]:
    """Legend, times and values of each line of a query."""
    now = time.time()
    answer = httpx.get(
        f"{url}/api/v1/query_range",
        params={
            "query": target["expr"].replace("$__rate_interval", interval),
            "start": now - LOOK_BACK_S,
            "end": now,
            "step": LOOK_BACK_S / POINTS,
        },
        timeout=30,
    )
    answer.raise_for_status()
    drawn = []
    for series in answer.json()["data"]["result"]:
        labels = series["metric"]
        legend = re.sub(r"\{\{(\w+)\}\}", lambda found, labels=labels: labels.get(found[1], ""), target["legendFormat"])
        drawn.append(
            (legend, [at - now for at, _ in series["values"]], [float(value) for _, value in series["values"]])
        )
    return drawn


def draw(url: str, path: Path, interval: str) -> plt.Figure:
    """One dashboard."""
    content = json.loads(path.read_text(encoding="utf-8"))
    figure, axes = plt.subplots(3, 3, figsize=(21, 12), layout="constrained")
    figure.suptitle(content["title"])
    for axis, panel in zip(axes.flat, content["panels"], strict=False):
        axis.set_title(f"{panel['title']} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=9)
        for target in panel["targets"]:
            for legend, times, values in lines(url, target, interval):
                axis.plot(times, values, label=f"{legend}: {values[-1]:.4g}")
        if axis.lines:
            axis.legend(fontsize=7)
    return figure


def main() -> None:
    """Draw every dashboard."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    interval = sys.argv[3] if len(sys.argv) > 3 else "1m"
    for path in sorted(FOLDER.glob("*.json")):
        draw(url, path, interval).savefig(folder / f"{path.stem}.png", dpi=70)


if __name__ == "__main__":
    main()
