"""Write Grafana's dashboards, ``docker/grafana/dashboards/*.json``, from ``scripts/panels.py``; commit both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.panel import Panel  # noqa: E402
from scripts.panels import CAPACITY, JOBS, MODELS, OVERVIEW  # noqa: E402 - run as a script, like its neighbours

FOLDER = ROOT / "docker" / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT, PER_ROW = 8, 8, 3

DASHBOARDS = {
    "overview": ("Deepnight: overview", OVERVIEW),
    "models": ("Deepnight: models", MODELS),
    "jobs": ("Deepnight: jobs and workers", JOBS),
    "capacity": ("Deepnight: capacity", CAPACITY),
}


def panel(number: int, content: Panel) -> dict[str, Any]:
    """One panel as Grafana keeps it."""
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": SOURCE,
            "expr": expr,
            "legendFormat": legend,
            "instant": content.stat,
        }
        for i, (expr, legend) in enumerate(content.queries)
    ]
    place = {"x": number % PER_ROW * WIDTH, "y": number // PER_ROW * HEIGHT, "w": WIDTH, "h": HEIGHT}
    return {
        "id": number + 1,
        "type": "stat" if content.stat else "timeseries",
        "title": content.title,
        "description": content.looks,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": content.unit, "min": None if content.stat else 0}, "overrides": []},
        "options": {} if content.stat else {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """One dashboard as Grafana keeps it."""
    return {
        "uid": f"deepnight-{uid}",
        "title": title,
        "tags": ["deepnight"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "tags": ["deepnight"], "title": "Deepnight", "keepTime": True}],
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertstate="firing", alertname=~"Deepnight.*"}',
                    "titleFormat": "{{alertname}}",
                }
            ]
        },
        "panels": [panel(number, content) for number, content in enumerate(panels)],
    }


def documents() -> dict[str, str]:
    """The text of each file, by name."""
    return {
        f"{uid}.json": json.dumps(dashboard(uid, title, panels), indent=2) + "\n"
        for uid, (title, panels) in DASHBOARDS.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
