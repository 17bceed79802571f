"""By hand, or from the page: pause, resume or abort the rollout of a model.

The task of the rollout finds the change at its next look. After an abort all requests go back to the champion.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.steer_rollout import SteerRolloutOperator

with DAG(
    dag_id="steer_rollout",
    description="Pause, resume or abort a rollout",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "action": Param("pause", enum=["pause", "resume", "abort"], title="Action"),
        "reason": Param(
            "by hand",
            type="string",
            minLength=1,
            maxLength=2000,
            title="Reason",
            description="Recorded with the rollout.",
        ),
        "rollout": Param("", type="string", title="Rollout", description="Its identity. Empty: the one in progress."),
        "generation": Param(
            "",
            type="string",
            pattern="^[0-9]*$",
            title="Generation",
            description="Of the document that you looked at. Empty: not compared.",
        ),
    },
) as dag:
    # [START howto_steer_rollout]
    SteerRolloutOperator(
        task_id="steer",
        model_name="{{ params.model_name }}",
        action="{{ params.action }}",
        reason="{{ params.reason }}",
        rollout="{{ params.rollout }}",
        generation="{{ params.generation }}",
    )
    # [END howto_steer_rollout]
