"""Every Sunday: would the way back work, and how long would it take?

Nobody wants to find out at 3 a.m. that the version to go back to does not load, or takes twenty minutes to answer.
Nothing is moved; airflow-mcp status and airflow-mcp doctor show a way back that is not ready.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.rehearsal import RehearseRollbackOperator

with DAG(
    dag_id="rehearse_rollback",
    description="Load the versions that a rollback leads to, ask them, and measure how long it takes",
    doc_md=__doc__,
    schedule="0 5 * * 0",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
    },
) as dag:
    # [START howto_rehearse_rollback]
    for way in ("previous_champion", "stable"):
        RehearseRollbackOperator(
            task_id=f"rehearse_{way}",
            model_name="{{ params.model_name }}",
            way=way,
            budget=timedelta(minutes=5),
            workload_timeout=timedelta(minutes=15),
        )
    # [END howto_rehearse_rollback]
