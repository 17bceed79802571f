"""By hand, or from the page: make a version that the gate accepted the champion.

The version is loaded first, and becomes the champion only if it answers and the champion is still the expected one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator

with DAG(
    dag_id="promote_model",
    description="Promote a version, if its gate accepted it and it loads",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "version": Param("1", type="string", pattern="^[1-9][0-9]*$", title="Version"),
        "expected_champion": Param(
            "none",
            type="string",
            pattern="^([1-9][0-9]*|none)$",
            title="Champion now",
            description="A number, or none.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            maxLength=2000,
            title="Reason",
            description="Recorded with the move.",
        ),
    },
) as dag:
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        workload_timeout=timedelta(minutes=15),
    )
    promote = PromoteModelOperator(
        task_id="promote",
        model_name="{{ params.model_name }}",
        version=load_check.output["version"],
        expected_champion="{{ params.expected_champion }}",
        reason="{{ params.reason or '' }}",
    )

    load_check >> promote
