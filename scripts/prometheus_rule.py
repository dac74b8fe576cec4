"""Write the alerts of ``docker/prometheus`` as a PrometheusRule for ``k8s/``; commit both."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "docker" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
TARGET = ROOT / "k8s" / "components" / "monitoring" / "prometheus-rule.yaml"
HEADER = "# Written by scripts/prometheus_rule.py from docker/prometheus; do not edit.\n"


def document() -> str:
    """The text of the file."""
    groups = [group for path in SOURCES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "deepnight", "labels": {"release": "prometheus"}},
        "spec": {"groups": groups},
    }
    return HEADER + yaml.safe_dump(rule, sort_keys=False, width=120)


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
