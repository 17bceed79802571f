"""A real Airflow whose Dags train in pods."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.cluster import IMAGE, SMALL, Cluster, wait_for
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import AirflowService, AirflowStack
from tests.support.paths import ROOT

_DAGS = """
import json

from airflow.sdk import DAG

from airflow_mcp.operators.training import TrainModelOperator

for dag_id, tasks in json.loads(TASKS).items():
    with DAG(dag_id, schedule=None):
        for task_id, command in tasks.items():
            TrainModelOperator(
                task_id=task_id,
                experiment_name=EXPERIMENT,
                model_name="model",
                runtime="kubernetes",
                command=command,
                kubernetes={"deferrable": not task_id.startswith("sync")},
            )
"""


@contextmanager
def airflow_with_pods(
    cluster: Cluster,
    mlflow_url: str,
    folder: Path,
    tasks: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    experiment: str,
    **pod_options: Any,
) -> Iterator[AirflowStack]:
    """Start Airflow with Dags of training tasks, and with the Dag that sweeps up; pods are configured by a file.

    :param cluster: where pods run.
    :param mlflow_url: MLflow server, here and in pods.
    :param folder: folder for Dags and Airflow's home.
    :param tasks: Dag id to task id to command; a task whose name begins with ``sync`` is not deferred.
    :param experiment: where runs go.
    :param pod_options: options of the pods, beside those of small ones.
    """
    dags = folder / "dags"
    dags.mkdir()
    pod = {**SMALL, "image": IMAGE, "namespace": cluster.namespace, "kubernetes_conn_id": None, **pod_options}
    defaults = folder / "kubernetes.yaml"
    defaults.write_text(yaml.safe_dump(pod))
    shutil.copy(ROOT / "dags" / "pod_maintenance.py", dags)
    literals = {"TASKS": json.dumps(tasks), "EXPERIMENT": experiment}
    (dags / "pods.py").write_text("".join(f"{name} = {text!r}\n" for name, text in literals.items()) + _DAGS)
    environment = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_url}),
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__AIRFLOW_MCP__KUBERNETES_DEFAULTS": str(defaults),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # the API server is slow while everything starts
    }
    with AirflowStack(folder / "airflow", dags, env=environment) as stack:
        yield stack


@contextmanager
def killed(service: AirflowService) -> Iterator[None]:
    """Kill a component of Airflow for good, and start it again afterwards."""
    for pid in service.processes():
        os.kill(pid, signal.SIGKILL)
    service.stop()
    try:
        yield
    finally:
        service.start()


def wait_until_watched(api: AirflowClient, dag_id: str, run_id: str, task_id: str) -> None:
    """Wait until the triggerer has taken up a deferred task: what a person does before that, it never hears of."""
    wait_for(lambda: "Checking pod" in api.task_log(dag_id, run_id, task_id), f"the trigger of {task_id}")


def wait_until_deferred(api: AirflowClient, dag_id: str, run_id: str) -> None:
    """Wait until every task of a Dag run is deferred."""

    def all_are() -> bool:
        return {*api.task_states(dag_id, run_id).values()} == {"deferred"}

    wait_for(all_are, f"the deferral of every task of {dag_id}")
