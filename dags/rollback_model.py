"""By hand, at 3 a.m.: make the previous champion, or a named version, the champion again.

Press "Trigger", say why, done. The version that is left behind keeps the reason as a tag.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.registry import RollbackModelOperator

with DAG(
    dag_id="rollback_model",
    description="Go back to the previous champion",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "to_version": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            pattern="^[1-9][0-9]*$",
            title="Version",
            description="Empty: the previous champion.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description="Recorded with the move and the version.",
        ),
    },
) as dag:
    # [START howto_rollback_model]
    RollbackModelOperator(
        task_id="rollback",
        model_name="{{ params.model_name }}",
        to_version="{{ params.to_version or '' }}",
        reason="{{ params.reason or '' }}",
    )
    # [END howto_rollback_model]
