"""By hand: deploy the model server of a model to Kubernetes, wait until its pods are ready, and then send it requests.

When the pods do not become ready, the revision before answers again and the run fails.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.model_server import DeployModelServerOperator

with DAG(
    dag_id="deploy_model_server",
    description="Deploy a model server to Kubernetes",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "image": Param("airflow-mcp/serving:dev", type="string", minLength=1, title="Image of the server"),
        "namespace": Param("ml", type="string", minLength=1, title="Namespace"),
        "replicas": Param(2, type="integer", minimum=1, title="Pods"),
        "dry_run": Param(False, type="boolean", title="Only let Kubernetes check it"),
    },
) as dag:
    # [START howto_deploy_model_server]
    deploy = DeployModelServerOperator(
        task_id="deploy",
        model_name="{{ params.model_name }}",
        image="{{ params.image }}",
        namespace="{{ params.namespace }}",
        server={
            "replicas": "{{ params.replicas }}",
            "resources": {"cpu": "500m", "memory": "2Gi"},
            "secrets": [{"env": "MLFLOW_TRACKING_PASSWORD", "secret": "mlflow", "key": "password"}],
        },
        dry_run="{{ params.dry_run }}",
        deferrable=True,
    )
    # [END howto_deploy_model_server]
