"""The nightly example on KubernetesExecutor: every task is a pod of the image ``airflow``, and one is killed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from demo.data import write_version
from tests.kubernetes.cluster import HOST, Cluster, kubeconfig_of_account, wait_for
from tests.support.airflow_stack import AirflowStack
from tests.support.object_store import xcom_settings
from tests.support.paths import ROOT
from tests.support.postgresql import PostgresServer, programs
from tests.support.services import MlflowServer

pytestmark = [
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG names no cluster"),
    pytest.mark.skipif(programs() is None, reason="not installed: PostgreSQL"),
]

IMAGE = os.environ.get("AIRFLOW_MCP_TEST_AIRFLOW_IMAGE", "airflow-mcp/airflow:dev")
DAG, MODEL = "nightly_retrain", "breast_cancer"
TASKS = ("pin_data", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome")
_DAG_SECONDS = 1200


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of the image may read, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="kubernetes-executor-"))
    made.chmod(0o755)
    for name in ("logs", "xcom"):  # pods and Airflow's components, of different users, write here
        (made / name).mkdir()
        (made / name).chmod(0o777)
    yield made
    shutil.rmtree(made)


def documented(name: str) -> Any:
    """Return a marked block of the docs page."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    block = page.split(f"<!-- {name}: start -->")[1].split(f"<!-- {name}: end -->")[0].strip()
    return yaml.safe_load(block.removeprefix("```yaml").removesuffix("```"))


def xcom_address(folder: Path) -> str:
    """Return where XComs are: in a folder that all pods mount."""
    return f"file://{folder / 'xcom'}"


def documented_pod(folder: Path, url: str) -> dict[str, Any]:
    """Return the pod template of the docs page, with this machine's image, folders and address."""
    pod: dict[str, Any] = documented("task pod")
    spec = pod["spec"]
    (container,) = spec["containers"]
    container["image"] = IMAGE
    env = {each["name"]: each for each in container["env"]}
    env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]["value"] = f"{url}/execution/"
    container["env"] += [{"name": name, "value": value} for name, value in xcom_settings(xcom_address(folder)).items()]
    spec["volumes"] = [volume for volume in spec["volumes"] if "persistentVolumeClaim" not in volume]
    for name, place, path in (
        ("logs", "/opt/airflow/logs", "logs"),
        ("dags", "/opt/airflow/dags", "dags"),
        ("data", "/data", "data"),
        ("xcom", str(folder / "xcom"), "xcom"),
    ):
        spec["volumes"].append({"name": name, "hostPath": {"path": str(folder / path)}})
        if name != "logs":
            container["volumeMounts"].append({"name": name, "mountPath": place})
    return pod


def executor_settings(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Return the settings of Airflow's own components, whose account has the rights of the docs page."""
    rules = documented("executor rights")
    return {
        "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": cluster.namespace,
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(folder / "pod.yaml"),
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": kubeconfig_of_account(cluster, "executor", rules, folder),
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # only the run that the test triggers
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
    }


def started_pods(cluster: Cluster) -> Counter[str]:
    """Return how many pods each task had."""
    events = cluster.api.list_namespaced_event(cluster.namespace, field_selector="reason=Started").items
    names = {event.involved_object.name for event in events}
    prefix = DAG.replace("_", "-")
    return Counter(name.removeprefix(f"{prefix}-").rpartition("-")[0].replace("-", "_") for name in names)


def run_statuses(client: MlflowClient) -> list[str]:
    """Return the statuses of the runs of the model's experiment; none before the first run."""
    experiment = client.get_experiment_by_name(MODEL)
    return [] if experiment is None else [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_night_runs_with_a_pod_for_every_task_while_the_training_is_killed(folder: Path) -> None:
    found = programs()
    assert found is not None
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / f"{DAG}.py", dags)
    shutil.copytree(ROOT / "dags" / MODEL, dags / MODEL)
    write_version(folder / "data" / MODEL, "night-1")
    mlflow = MlflowServer(folder / "mlflow", host=HOST)
    with Cluster() as cluster, PostgresServer(folder / "postgresql", found) as database, mlflow:
        env = {
            **executor_settings(cluster, folder),
            **xcom_settings(xcom_address(folder)),
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow.url}),
        }
        stack = AirflowStack(folder / "airflow", dags, env=env, database=database.uri, host=HOST)
        (folder / "pod.yaml").write_text(yaml.safe_dump(documented_pod(folder, stack.url)))
        client = MlflowClient(mlflow.url)
        with stack, stack.api() as api:
            api.wait_for_dag(DAG, timeout=300)
            assert api.import_errors() == {}
            run_id = api.trigger(DAG)
            wait_for(lambda: run_statuses(client) == ["RUNNING"], "a training that runs", _DAG_SECONDS)
            (training,) = cluster.pods(DAG)
            cluster.delete(training.metadata.name)
            state = api.wait_for_run(DAG, run_id, timeout=_DAG_SECONDS)
            assert state == "success", api.task_states(DAG, run_id)
            log = api.task_log(DAG, run_id, "train", 2)
            moved = api.xcom(DAG, run_id, "promote")["moved"]
        pods = started_pods(cluster)
        trainings = run_statuses(client)
        model = client.get_registered_model(MODEL)
        versions = client.search_model_versions(f"name = '{MODEL}'")
    assert pods == Counter({**dict.fromkeys(TASKS, 1), "train": 2})
    assert sorted(trainings) == ["FINISHED", "KILLED"]
    assert model.aliases["champion"] == "1"
    assert [version.version for version in versions] == ["1"]
    assert "accuracy on the training data" in log
    assert moved is True
    assert {path.name for path in (folder / "xcom" / DAG / run_id).iterdir()} == set(TASKS)
