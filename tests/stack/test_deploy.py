"""``deploy/local.sh`` as a person meets it: start, press a Dag, apply again, remove. Needs the cluster of KUBECONFIG.

The tests share one deployment and run in the order of this file.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.mlflow_client import registry_api
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from tests.support.airflow_api import AirflowClient
from tests.support.paths import ROOT
from tests.support.services import LOOPBACK, free_port

NAMESPACE = "airflow-mcp"
POSTGRES = "airflow-mcp/postgres-stand-in:test"
OWNERS = {"data-postgres-0": "999", "data": "10001", "airflow-logs": "10001", "mlflow-artifacts": "10001"}
"""Claims, and the user that writes into the volume."""
_START_SECONDS = 1200
_DAG_SECONDS = 1200


def kubectl(*arguments: str, check: bool = True, text: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", *arguments], check=False, capture_output=True, text=True, input=text, timeout=_START_SECONDS
    )
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def objects(kind: str) -> list[Any]:
    return list(json.loads(kubectl("--namespace", NAMESPACE, "get", kind, "--output=json"))["items"])


def our_secrets() -> list[Any]:
    """Return the Secrets of the deployment, without the tokens that older clusters make for service accounts."""
    return [one for one in objects("secrets") if one["type"] == "Opaque"]


def volume(claim: str, folder: Path) -> dict[str, Any]:
    """Return a volume in a folder of this machine, which is the node, for a cluster that makes no volumes."""
    folder.mkdir()
    os.chown(folder, int(OWNERS[claim]), int(OWNERS[claim]))
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{NAMESPACE}-{claim}", "labels": {"made-by": "test-deploy"}},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": NAMESPACE, "name": claim},
        },
    }


@contextmanager
def forwarded(service: str, port: int) -> Iterator[str]:
    """Reach a Service as the printed command does."""
    ours = free_port()
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"service/{service}", f"{ours}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "Forwarding" in process.stdout.readline()
        yield f"http://{LOOPBACK}:{ours}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An overlay on the trial with the stand-in of PostgreSQL; what was started is removed afterwards."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")
    if kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
        pytest.skip(f"the cluster has a namespace {NAMESPACE}, which these tests would remove")
    folder = tmp_path_factory.mktemp("overlay")
    local = os.path.relpath(ROOT / "deploy" / "kustomize" / "local", folder)
    name, tag = POSTGRES.split(":")
    images = [{"name": "postgres", "newName": name, "newTag": tag}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [local], "images": images}))
    classes = json.loads(kubectl("get", "storageclass", "--output=json"))["items"]
    if not classes:
        volumes = tmp_path_factory.mktemp("volumes")
        made = [volume(claim, volumes / claim) for claim in OWNERS]
        kubectl("apply", "--filename=-", text=yaml.safe_dump_all(made))
    try:
        yield folder
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=10m")
        kubectl("delete", "persistentvolume", "--selector=made-by=test-deploy", "--ignore-not-found")


def start(overlay: Path) -> str:
    done = subprocess.run(
        [str(ROOT / "deploy" / "local.sh"), str(overlay)],
        check=False,
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr + kubectl("--namespace", NAMESPACE, "get", "pods")
    return done.stdout


def test_one_command_starts_everything(overlay: Path) -> None:
    printed = start(overlay)
    assert "Everything runs" in printed
    for kind in ("deployments", "statefulsets"):
        for one in objects(kind):
            assert one["status"]["readyReplicas"] == 1, one["metadata"]["name"]


def test_no_value_of_a_secret_is_in_a_pod_or_in_the_output(overlay: Path) -> None:
    values = {base64.b64decode(value).decode() for one in our_secrets() for value in one["data"].values()}
    assert len(values) >= len(OWNERS)
    described = json.dumps(objects("pods")) + json.dumps(objects("configmaps")) + start(overlay)
    assert not [value for value in values if len(value) > 8 and value in described]


def test_applying_again_changes_no_secret_and_restarts_nothing(overlay: Path) -> None:
    def state() -> dict[str, Any]:
        secrets = {one["metadata"]["name"]: one["data"] for one in our_secrets()}
        return secrets | {one["metadata"]["name"]: one["metadata"]["uid"] for one in objects("pods")}

    before = state()
    start(overlay)
    assert state() == before


def test_a_pressed_dag_trains_in_pods_and_its_model_becomes_the_champion(overlay: Path) -> None:
    encoded = kubectl(
        "--namespace", NAMESPACE, "get", "secret", "airflow-login", r"--output=jsonpath={.data.passwords\.json}"
    )
    password = json.loads(base64.b64decode(encoded))["admin"]
    with forwarded("airflow-api-server", 8080) as url:
        api = AirflowClient(url, "admin", password)
        try:
            api.wait_for_dag("nightly_retrain", timeout=300)
            assert api.import_errors() == {}
            api.unpause("nightly_retrain")
            run_id = api.trigger("nightly_retrain")
            state = api.wait_for_run("nightly_retrain", run_id, timeout=_DAG_SECONDS)
            assert state == "success", api.task_states("nightly_retrain", run_id)
        finally:
            api.close()
    with forwarded("mlflow", 5000) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        driver = SyncDriver(MlflowSettings("deploy", url, url))
        try:
            model = driver.perform(registry_api.get_registered_model("breast_cancer"))
        finally:
            driver.close()
    assert model.aliases[ALIAS_CHAMPION] == "1"
