"""Each overlay of k8s/, built by kustomize: valid by Kubernetes' schemas, safe by default, and true about this code."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[3]
CRDS = {
    (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
    for schema in map(json.loads, (path.read_text() for path in (ROOT / "tests/data/crds").glob("*.json")))
}
VERSION = "1.33"
OVERLAYS = ["cpu", "gpu", "production"]
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kustomize comes with kubectl, which is not here")


@pytest.fixture(scope="module")
def built():
    return {overlay: build(overlay) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def manifests(request, built):
    return built[request.param]


def build(overlay):
    done = subprocess.run(
        ["kubectl", "kustomize", ROOT / "k8s/overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(manifests, kind, name="deepnight"):
    return next(each for each in manifests if each["kind"] == kind and each["metadata"]["name"].startswith(name))


def templates(manifests):
    """Every pod template with a name for messages."""
    for each in manifests:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]
        if each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            yield "head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield group["groupName"], group["template"]


def test_every_manifest_is_valid(manifests):
    for each in manifests:
        schema = CRDS.get((each["apiVersion"], each["kind"]))
        if schema is None:
            kubernetes_validate.validate(each, VERSION, strict=True)
        else:
            jsonschema.validate(each, schema)
    for name, template in templates(manifests):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_a_misspelt_field_of_a_custom_resource_is_found(built):
    service = json.loads(json.dumps(one(built["cpu"], "RayService")))
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(service, CRDS["ray.io/v1", "RayService"])


def test_no_pod_may_do_more_than_it_must(manifests):
    for name, template in templates(manifests):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert container["livenessProbe"], name
            assert ":" in container["image"], f"{name}: no version of {container['image']}"


def test_secrets_are_referenced_and_never_there(manifests):
    assert not [each for each in manifests if each["kind"] == "Secret"]
    text = json.dumps(manifests)
    assert '"secretKeyRef"' in text
    for name, template in templates(manifests):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("KEY", "PASSWORD", "TOKEN", "REDIS_URL")):
                    assert "secretKeyRef" in variable["valueFrom"], f"{name}: {variable['name']} has a value"


def test_every_pod_is_behind_a_network_policy(manifests):
    selected = [each["spec"]["podSelector"]["matchLabels"] for each in manifests if each["kind"] == "NetworkPolicy"]
    ray = {"ray.io/is-ray-node": "yes"}
    for name, template in templates(manifests):
        labels = template.get("metadata", {}).get("labels", {}) | (ray if name in ("head", "serving") else {})
        assert any(wanted.items() <= labels.items() for wanted in selected), name


def test_the_settings_are_settings(manifests, monkeypatch):
    values = one(manifests, "ConfigMap")["data"]
    own = {name for name in values if name.startswith("DEEPNIGHT_")}
    known = {f"DEEPNIGHT_{name.upper()}" for name in Settings.model_fields}
    assert own <= known, own - known
    for name in own:
        monkeypatch.setenv(name, values[name])
    settings = Settings()
    assert settings.placement == {"*": "dedicated"}
    assert settings.ray_address != "local"


def test_a_change_of_settings_rolls_every_pod_that_reads_them(manifests):
    name = one(manifests, "ConfigMap")["metadata"]["name"]
    for pod, template in templates(manifests):
        for container in template["spec"]["containers"]:
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] == name, pod


def test_what_serve_is_told_can_be_deployed(manifests):
    from ray.serve.schema import ServeDeploySchema

    told = ServeDeploySchema.model_validate(yaml.safe_load(one(manifests, "RayService")["spec"]["serveConfigV2"]))
    assert {application.name for application in told.applications} == {"models", "gateway"}
    for application in told.applications:
        module, builder = application.import_path.split(":")
        assert callable(getattr(importlib.import_module(module), builder))


def test_ray_is_the_version_that_is_installed(manifests):
    pins = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    assert one(manifests, "RayService")["spec"]["rayClusterConfig"]["rayVersion"] == pins["ray"]


def test_a_worker_may_drain_before_it_is_killed(manifests):
    worker = one(manifests, "Deployment", "deepnight-worker")
    drain = float(one(manifests, "ConfigMap")["data"]["DEEPNIGHT_DRAIN_S"])
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain


def test_gpus_are_asked_for_where_the_settings_share_them(built):
    for overlay, manifests in built.items():
        shared = float(one(manifests, "ConfigMap")["data"].get("DEEPNIGHT_NUM_GPUS", 0))
        asked = {
            name: "nvidia.com/gpu" in container["resources"]["limits"]
            for name, template in templates(manifests)
            for container in template["spec"]["containers"]
        }
        assert asked["serving"] == asked["deepnight-worker"] == (shared > 0), overlay
        assert not asked["head"]


def test_certificates_of_a_redis_are_where_its_url_can_name_them(built):
    for name, template in templates(built["production"]):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        (container,) = template["spec"]["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        secret = volumes[mounts["/etc/deepnight/redis"]]["secret"]
        assert (secret["secretName"], secret["optional"]) == ("deepnight-redis-tls", True), name
