"""The rules of ``deploy/``, checked without a cluster: what kustomize renders is valid, closed and without secrets.

``tests/stack/test_deploy.py`` starts it. Rendering needs ``kubectl`` 1.27 or newer.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from airflow_mcp.core.quantity import amount_of
from tests.support.paths import DOCS, ROOT

DEPLOY = ROOT / "deploy"
OVERLAYS = ("local", "production")
VERSIONS = ("1.25", kubernetes_validate.latest_version())
Manifest = dict[str, Any]


@cache
def _renders() -> bool:
    """Whether kubectl is here, and its kustomize knows the fields of our files."""
    if shutil.which("kubectl") is None:
        return False
    done = subprocess.run(
        ["kubectl", "version", "--client", "--output=json"], check=False, capture_output=True, text=True
    )
    found = re.search(r'"kustomizeVersion": "v(\d+)', done.stdout)
    return found is not None and int(found[1]) >= 5


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return what ``kubectl kustomize`` makes of an overlay."""
    if not _renders():
        pytest.skip("kubectl 1.27 or newer is not installed here: nothing renders the overlays")
    text = subprocess.check_output(["kubectl", "kustomize", str(DEPLOY / "kustomize" / overlay)], text=True)
    return tuple(yaml.safe_load_all(text))


def pod_specs(overlay: str) -> Iterator[tuple[str, Manifest]]:
    for manifest in rendered(overlay):
        template = manifest.get("spec", {}).get("template", {}) if manifest["kind"] != "ConfigMap" else {}
        if "spec" in template:
            yield f"{manifest['kind']}/{manifest['metadata']['name']}", template["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def named(overlay: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in rendered(overlay) if one["kind"] == kind}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(overlay: str, version: str) -> None:
    manifests = rendered(overlay)
    assert {"Deployment", "Service", "Role", "NetworkPolicy"} <= {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = deepcopy(next(one for one in rendered("local") if one["kind"] == "Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_restricted_standard_and_says_what_it_needs(overlay: str) -> None:
    for name, spec in pod_specs(overlay):
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]["type"]) == (True, "RuntimeDefault"), name
        for container in containers(spec):
            where = f"{name}, container {container['name']}"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            resources = container["resources"]
            assert {*resources["requests"]} == {"cpu", "memory"}, where
            assert "memory" in resources["limits"], where
            assert not container["image"].endswith(":latest"), where
    namespaces = named(overlay, "Namespace")
    assert namespaces
    for namespace in namespaces.values():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_what_starts_pods_has_an_account_of_the_cluster(overlay: str) -> None:
    with_token = {name for name, spec in pod_specs(overlay) if spec.get("automountServiceAccountToken", True)}
    assert with_token == {"Deployment/airflow-scheduler", "Deployment/airflow-triggerer"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_brings_the_tables_up_to_date_and_the_other_parts_wait(overlay: str) -> None:
    commands = {
        name: " ".join(container["command"])
        for name, spec in pod_specs(overlay)
        for container in spec.get("initContainers", [])
        if container["name"] == "tables"
    }
    assert "airflow db migrate" in commands.pop("Deployment/airflow-api-server")
    waiting = {f"Deployment/airflow-{part}" for part in ("scheduler", "dag-processor", "triggerer")}
    assert set(commands) == waiting
    assert all(command.startswith("airflow db check-migrations") for command in commands.values())


def test_the_trial_leaves_a_cpu_for_a_training_on_a_node_of_two() -> None:
    def asked(group: list[Manifest]) -> list[float]:
        return [amount_of(one["resources"]["requests"]["cpu"]) for one in group]

    # A pod asks for its containers together, or for the first step that needs more.
    pods = [
        max(sum(asked(spec["containers"])), *asked(spec.get("initContainers", [])), 0.0)
        for name, spec in pod_specs("local")
        if not name.startswith("Job/")
    ]
    assert len(pods) == 6
    assert sum(pods) <= 1.0


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_a_manifest(overlay: str) -> None:
    manifests = rendered(overlay)
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    text = yaml.safe_dump_all(manifests)
    assert not re.search(r"://[^/@\s]*:[^/@\s]+@", text)
    literals = {
        variable["name"]: variable["value"]
        for _, spec in pod_specs(overlay)
        for container in containers(spec)
        for variable in container.get("env", [])
        if "value" in variable
    } | {name: value for one in named(overlay, "ConfigMap").values() for name, value in one["data"].items()}
    pointers = re.compile(r"(_CMD|_FILE)$")
    suspicious = re.compile(r"(?i)password|secret|token|fernet|sql_alchemy_conn|credential")
    assert any(suspicious.search(name) for name in literals)
    for name, value in literals.items():
        if suspicious.search(name) and not pointers.search(name):
            assert value.startswith(("/", "airflow.secrets.")) or "/secrets/" in value, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_secret_and_volume_that_a_pod_names_is_made_somewhere(overlay: str) -> None:
    page = (DOCS / "deploy.md").read_text()
    script = (DEPLOY / "secrets.sh").read_text()
    claims, maps = named(overlay, "PersistentVolumeClaim"), named(overlay, "ConfigMap")
    for name, spec in pod_specs(overlay):
        for volume in spec["volumes"]:
            if secret := volume.get("secret", {}).get("secretName"):
                assert f"`{secret}`" in page, name
                assert overlay != "local" or f"exists {secret} " in script, name
            if claim := volume.get("persistentVolumeClaim", {}).get("claimName"):
                assert claim in claims, name
            if map_name := volume.get("configMap", {}).get("name"):
                assert map_name in maps, name


def test_production_has_two_of_each_part_digests_and_no_database() -> None:
    kinds = [manifest["kind"] for manifest in rendered("production")]
    assert "StatefulSet" not in kinds
    assert "Job" not in kinds
    deployments, budgets = named("production", "Deployment"), named("production", "PodDisruptionBudget")
    assert {*deployments} == {*budgets}
    assert {one["spec"]["replicas"] for one in deployments.values()} == {2}
    for name, budget in budgets.items():
        assert budget["spec"]["selector"]["matchLabels"].items() <= deployments[name]["metadata"]["labels"].items()
    for _, spec in pod_specs("production"):
        assert {re.sub(r"\w{64}$", "", container["image"].partition("@")[2]) for container in containers(spec)} == {
            "sha256:"
        }
    namespaces = {
        kind: {one["metadata"]["namespace"] for one in named("production", kind).values()}
        for kind in ("Role", "Deployment")
    }
    assert namespaces == {"Role": {"airflow-mcp-workloads"}, "Deployment": {"airflow-mcp"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("page", ["kubernetes.md", "serving/kubernetes.md"])
def test_airflow_has_the_rights_that_the_docs_list(overlay: str, page: str) -> None:
    found = re.search(r"<!-- rbac: start -->\n```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found is not None
    (documented,) = [one for one in yaml.safe_load_all(found[1]) if one["kind"] == "Role"]
    role = named(overlay, "Role")[documented["metadata"]["name"]]
    assert role["rules"] == documented["rules"]
    binding = named(overlay, "RoleBinding")[role["metadata"]["name"]]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "airflow", "namespace": "airflow-mcp"}]


# --- Helm -----------------------------------------------------------------------------------------------------------


@cache
def helm(name: str) -> Any:
    text = (DEPLOY / "helm" / name).read_text()
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def refusals(values: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(helm("values.schema.json")).iter_errors(values)]


def test_every_chart_that_is_used_is_pinned_and_can_be_switched_off() -> None:
    dependencies = {one["name"]: one for one in helm("Chart.yaml")["dependencies"]}
    assert {*dependencies} == {*helm("values.yaml")} == {*helm("values.example.yaml")}
    for name, one in dependencies.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", one["version"]), name
        assert one["condition"] == f"{name}.enabled"
        assert one["repository"].startswith("https://")


@pytest.mark.parametrize("name", ["values.yaml", "values.example.yaml"])
def test_the_values_are_allowed(name: str) -> None:
    assert refusals(helm(name)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kube-prometheus-stack.grafana.adminPassword", "changeme123"),
        ("mlflow.backendStore.uri", "postgresql://mlops:xxx@postgres:5432/mlflow"),
        ("mlflow.backendStore.postgres.password", "hunter2"),
        ("mlflow.artifactRoot.s3.awsSecretAccessKey", "abc"),
        ("mlflow.artifactRoot.s3.awsAccessKeyId", "abc"),
        ("mlflow.auth.adminPassword", "password"),
        ("airflow.fernetKey", "abc"),
        ("airflow.jwtSecret", "abc"),
        ("airflow.apiSecretKey", "abc"),
        ("airflow.data.metadataConnection.pass", "postgres"),
        ("airflow.createUserJob.defaultUser.password", "admin"),
        ("airflow.extra", [{"name": "x", "token": "abc"}]),
        ("airflow.redis.password", 12345),
        ("grafana", {}),
    ],
)
def test_a_credential_or_an_unknown_chart_is_refused(path: str, value: Any) -> None:
    values = deepcopy(helm("values.example.yaml"))
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    assert len(refusals(values)) >= 1


def test_an_empty_credential_and_the_name_of_a_secret_are_allowed() -> None:
    values = deepcopy(helm("values.example.yaml"))
    values["mlflow"]["auth"] = {
        "adminPassword": "",
        "existingAdminSecret": {"name": "admin", "passwordKey": "password"},
    }
    values["airflow"]["fernetKey"] = None
    assert refusals(values) == []
