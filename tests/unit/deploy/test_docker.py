"""The files of docker/, checked by the programs that read them where there are any: promtool, hadolint, schemas."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import prometheus_rule
from scripts.dashboards import documents

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
PROMETHEUS = DOCKER / "prometheus"
GRAFANA = DOCKER / "grafana"


def program(name):
    """Its path beside this Python or on the PATH; skips where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command, folder=ROOT):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts():
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def compose(name="compose.yaml"):
    return yaml.safe_load((DOCKER / name).read_text())


def test_promtool_takes_the_configuration_and_the_rules():
    promtool = program("promtool")
    run(promtool, "check", "config", "prometheus.yml", folder=PROMETHEUS)
    run(promtool, "check", "rules", "recording.yml", "alerts.yml", folder=PROMETHEUS)


@pytest.mark.slow
def test_the_rules_pass_their_own_tests():
    run(program("promtool"), "test", "rules", "alerts.test.yml", folder=PROMETHEUS)


def test_every_alert_is_seen_firing_in_the_tests_of_the_rules():
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    checked = [check for test in tests for check in test["alert_rule_test"]]
    fired = {check["alertname"] for check in checked if check["exp_alerts"]}
    silent = {check["alertname"] for check in checked if not check["exp_alerts"]}
    names = {rule["alert"] for rule in alerts()}
    assert fired == names
    assert len(names - silent) <= 3, f"never seen silent: {names - silent}"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook_that_names_it(rule):
    text = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert f"`{rule['alert']}`" in text
    for part in ("What it means", "What users see", "Look", "Do", "It is over when"):
        assert f"\n## {part}\n" in text
    assert rule["alert"] in (ROOT / "docs" / "runbooks" / "README.md").read_text()
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_runbooks_name_settings_and_services_that_exist():
    from service.settings import Settings

    settings = {f"DEEPNIGHT_{name.upper()}" for name in Settings.model_fields}
    services = set(compose()["services"])
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        text = page.read_text()
        assert set(re.findall(r"DEEPNIGHT_[A-Z_]+", text)) <= settings, page
        for words in re.findall(r"compose\.yaml (?:exec|stop|restart|logs|up|ps)([^\n`|#]*)", text):
            named = [word for word in re.split(r"[ =)]", words) if word in services]
            assert named or words == " -d", (page, words)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), (page, link)


def test_the_dashboards_are_what_their_list_says():
    written = {path.name: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}
    assert written == documents(), "run scripts/dashboards.py"
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    for text in written.values():
        board = json.loads(text)
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
        assert all(panel["description"] and panel["targets"] for panel in board["panels"])


def test_the_rules_of_kubernetes_are_the_same():
    assert prometheus_rule.TARGET.read_text() == prometheus_rule.document(), "run scripts/prometheus_rule.py"


def test_hadolint_has_nothing_to_say():
    run(program("hadolint"), "docker/Dockerfile")


def test_compose_files_follow_the_schema_and_are_not_insecure(monkeypatch):
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker/compose.cuda.yaml")
    for name in ("DEEPNIGHT_API_KEYS", "VALKEY_PASSWORD", "GRAFANA_PASSWORD"):
        monkeypatch.setenv(name, "x")
    run(program("compose-lint"), "docker/compose.yaml")


@pytest.mark.parametrize("name", compose()["services"])
def test_every_container_is_confined_pinned_and_watched(name):
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["user"].partition(":")[0] not in ("", "0")
    assert re.search(r":(\d+\.\d+|\$\{IMAGE_TAG|v\d)", service["image"]), service["image"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "mem_limit" in service and "pids_limit" in service
    assert "healthcheck" in service or name == "gateway", "the gateway's is the image's"


def test_what_compose_mounts_and_names_is_there():
    document = compose()
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in document["volumes"]
    secrets = set(re.findall(r"\$\{([A-Z_]+):\?", (DOCKER / "compose.yaml").read_text()))
    assert secrets == set(re.findall(r"^([A-Z_]+)=", (DOCKER / "example.env").read_text(), re.MULTILINE))
    override = compose("compose.cuda.yaml")["services"]
    assert set(override) <= set(document["services"])


def test_the_image_holds_what_the_dockerfile_copies():
    dockerfile = (DOCKER / "Dockerfile").read_text()
    kept = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert "HEALTHCHECK" in dockerfile
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-bookworm$", dockerfile, re.MULTILINE)
