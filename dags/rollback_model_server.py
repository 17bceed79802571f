"""By hand: change the Deployment of a model server back to an earlier revision.

Image and environment go back, not the alias champion: for that there is the Dag rollback_model.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.model_server import RollbackModelServerOperator

with DAG(
    dag_id="rollback_model_server",
    description="Change a model server back to an earlier revision",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "deployment": Param("breast-cancer", type="string", minLength=1, title="Deployment"),
        "namespace": Param("ml", type="string", minLength=1, title="Namespace"),
        "to_revision": Param(
            0,
            type="integer",
            minimum=0,
            title="Revision",
            description="As kubectl rollout history shows it; 0 is the one before the present one.",
        ),
    },
) as dag:
    # [START howto_rollback_model_server]
    rollback = RollbackModelServerOperator(
        task_id="rollback",
        deployment="{{ params.deployment }}",
        namespace="{{ params.namespace }}",
        to_revision="{{ params.to_revision }}",
        deferrable=True,
    )
    # [END howto_rollback_model_server]
