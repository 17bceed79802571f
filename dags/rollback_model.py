"""By hand, at 3 a.m.: make the previous champion, or a named version, the champion again.

Press "Trigger", say why, done. The version is loaded first, and becomes the champion only if it answers; the one that
is left behind keeps the reason as a tag.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import RollbackModelOperator

with DAG(
    dag_id="rollback_model",
    description="Go back to the previous champion, if it still loads",
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
        "check_first": Param(
            True,
            type="boolean",
            title="Check first that it loads",
            description="Off: for the night when no pod can start. It is recorded with the move.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=2000,
            title="Reason",
            description="Recorded with the move and the version.",
        ),
    },
) as dag:
    # [START howto_check_before_rollback]
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name="{{ params.model_name }}",
        version="{{ params.to_version or '' }}",
        alias="previous_champion",  # when no version is given
        dry_run="{{ not params.check_first }}",
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_check_before_rollback]
    # [START howto_rollback_model]
    rollback = RollbackModelOperator(
        task_id="rollback",
        model_name="{{ params.model_name }}",
        to_version=load_check.output["version"],
        require_load_check="{{ params.check_first }}",
        reason="{{ params.reason or '' }}",
    )
    # [END howto_rollback_model]

    load_check >> rollback
