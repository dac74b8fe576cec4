"""Debian's Prometheus with the configuration of docker/prometheus, scraping an instance of the tests every second."""

import json
import re
import subprocess
import time
from pathlib import Path

import httpx
import yaml

from tests.e2e.stack import ROOT, free_port

FOLDER = ROOT / "docker" / "prometheus"
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
METRIC = re.compile(r"\b(?:deepnight[a-z0-9_:]*_[a-z0-9_:]+|ray_[a-z_]+|up)\b")


class Prometheus:
    """One server.

    Attributes:
        url: of its API.
    """

    def __init__(self, folder, gateway, ray):
        self.folder = Path(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        targets = {"deepnight": gateway, "ray": ray, "prometheus": self.port}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
        config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self):
        with (self.folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.folder}/prometheus.yml",
                    f"--storage.tsdb.path={self.folder}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        self.until(lambda: httpx.get(f"{self.url}/-/ready").status_code == 200, "start")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)

    def until(self, condition, what, seconds=30):
        """Wait for a condition whose server may not answer yet; if it never holds, ``what`` (or its value) is said."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline:
                said = what() if callable(what) else what
                raise AssertionError(f"{said}\n{(self.folder / 'prometheus.log').read_text()[-2000:]}")
            time.sleep(0.25)

    def query(self, expression):
        """The samples of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=20).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def value(self, expression):
        """The one sample's value; None where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def rules(self):
        """Every rule with its health."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=20).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def panels():
    """Dashboard, panel and expression of every query, with an interval that suits a scrape a second."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["expr"].replace("$__rate_interval", "10s")
