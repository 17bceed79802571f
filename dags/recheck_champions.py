"""Every morning: do the champion, and the version to go back to, still load?

Files get lost and images change. Better to hear of it now than when the server restarts, or at 3 a.m.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.load_check import LoadCheckOperator

with DAG(
    dag_id="recheck_champions",
    description="Load the champion and the previous champion, and ask them",
    doc_md=__doc__,
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
    },
) as dag:
    # [START howto_recheck_champions]
    for alias in ("champion", "previous_champion"):
        LoadCheckOperator(
            task_id=f"check_{alias}",
            model_name="{{ params.model_name }}",
            alias=alias,
            on_missing_alias="skip",
            workload_timeout=timedelta(minutes=15),
        )
    # [END howto_recheck_champions]
