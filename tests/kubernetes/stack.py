"""A real Airflow whose Dags train in pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.airflow_stack import AirflowStack
from tests.kubernetes.cluster import IMAGE, SMALL, Cluster

_DAGS = """
import json

from airflow.sdk import DAG

from airflow_mcp.operators.training import TrainModelOperator

for dag_id, tasks in json.loads(TASKS).items():
    with DAG(dag_id, schedule=None):
        for task_id, command in tasks.items():
            TrainModelOperator(
                task_id=task_id,
                experiment=EXPERIMENT,
                model_name="model",
                runtime="kubernetes",
                command=command,
                kubernetes={**json.loads(POD), "deferrable": not task_id.startswith("sync")},
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
    """Start Airflow with Dags of training tasks.

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
    literals = {"TASKS": json.dumps(tasks), "POD": json.dumps(pod), "EXPERIMENT": experiment}
    (dags / "pods.py").write_text("".join(f"{name} = {text!r}\n" for name, text in literals.items()) + _DAGS)
    environment = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_url}),
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "12",
    }
    with AirflowStack(folder / "airflow", dags, env=environment) as stack:
        yield stack
