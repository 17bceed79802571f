"""Ask people before a model goes back to an earlier version, where the policy has a rule for rollbacks.

It takes the parameters of rollback_model, so the page can use it: set the option rollback_dag. While the audit log is
down nobody can be asked: then use rollback_model, which goes on and is recorded later.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, BaseOperator, Param

from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import RollbackModelOperator

SEATS = 2
"""At least as many as the longest rollback chain of the policy asks for; seats that are not needed ask nobody."""

with DAG(
    dag_id="rollback_with_approval",
    description="Ask people, then go back to an earlier version, if it still loads",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    # Airflow can lose the state of a task that was answered right after it began to wait; a retry finds the answer.
    default_args={"retries": 5, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "to_version": Param("1", type="string", pattern="^[1-9][0-9]*$", title="Version"),
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
    # [START howto_request_rollback]
    last: BaseOperator = RequestReleaseOperator(
        task_id="request",
        model_name="{{ params.model_name }}",
        version="{{ params.to_version }}",
        seats=SEATS,
        act="rollback",
    )
    for number in range(1, SEATS + 1):
        seat = ApprovalSeatOperator(
            task_id=f"seat_{number}",
            model_name="{{ params.model_name }}",
            version="{{ params.to_version }}",
            seat=number,
            seats=SEATS,
            act="rollback",
        )
        last >> seat
        last = seat
    # [END howto_request_rollback]
    load_check = LoadCheckOperator(  # after the answers: a check from before could be too old by then
        task_id="load_check",
        model_name="{{ params.model_name }}",
        version="{{ params.to_version }}",
        dry_run="{{ not params.check_first }}",
        workload_timeout=timedelta(minutes=15),
    )
    rollback = RollbackModelOperator(
        task_id="rollback",
        model_name="{{ params.model_name }}",
        to_version="{{ params.to_version }}",
        require_load_check="{{ params.check_first }}",
        reason="{{ params.reason or '' }}",
    )
    last >> load_check >> rollback
