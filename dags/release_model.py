"""Ask people before a model version is released, then make it the champion.

Needs an audit log with a policy in force, a connection to Airflow's own REST API, and a version with a passport.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, BaseOperator, Param

from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from airflow_mcp.operators.registry import PromoteModelOperator

SEATS = 5
"""At least as many as the longest chain of the policy asks for; seats that are not needed ask nobody."""

with DAG(
    dag_id="release_model",
    description="Ask people, then make a version the champion",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    # Airflow can lose the state of a task that was answered right after it began to wait; a retry finds the answer.
    default_args={"retries": 5, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "version": Param("1", type="string", pattern=r"^[1-9]\d*$", title="Version"),
        "expected_champion": Param(
            "none", type="string", pattern=r"^([1-9]\d*|none)$", title="Champion that the gate compared with"
        ),
    },
) as dag:
    # [START howto_request_release]
    last: BaseOperator = RequestReleaseOperator(
        task_id="request",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        seats=SEATS,
        risk="high",
    )
    # [END howto_request_release]
    for number in range(1, SEATS + 1):
        # [START howto_approval_seat]
        seat = ApprovalSeatOperator(
            task_id=f"seat_{number}",
            model_name="{{ params.model_name }}",
            version="{{ params.version }}",
            seat=number,
            seats=SEATS,
        )
        # [END howto_approval_seat]
        last >> seat
        last = seat
    last >> PromoteModelOperator(
        task_id="promote",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        expected_champion="{{ params.expected_champion }}",
    )
