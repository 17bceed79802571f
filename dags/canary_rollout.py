"""By hand: send a growing share of the requests to a version that the gate has accepted, and promote it if it is sound.

The model servers must follow the registry; the connection model_server_default names their headless Service. Pause,
resume or abort from any terminal: airflow-mcp rollout.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.sensors.serving import ModelServedSensor

with DAG(
    dag_id="canary_rollout",
    description="Move the traffic of a model to a new version step by step",
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
            description="The version that the gate compared with, or none.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            maxLength=2000,
            title="Reason",
            description="Recorded with the promotion.",
        ),
    },
) as dag:
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        workload_timeout=timedelta(minutes=15),
    )
    # [START howto_rollout_model]
    rollout = RolloutModelOperator(
        task_id="rollout",
        model_name="{{ params.model_name }}",
        version=load_check.output["version"],
        expected_champion="{{ params.expected_champion }}",
        experiment_name="rollouts",
        steps=[
            {"setWeight": 5},
            {"analysis": "10m"},
            {"setWeight": 25},
            {"analysis": "10m"},
            {"setWeight": 50},
            {"pause": {}},  # until a person resumes: airflow-mcp rollout resume
        ],
        rules=["http_5xx_rate <= 0.01", "http_5xx_rate <= champion + 0.005", "latency_p99_ms <= champion * 1.2"],
        rollback={"metric": "http_5xx_rate", "threshold": "0.05", "duration": "2m"},
        bake=timedelta(minutes=30),
        reason="{{ params.reason or '' }}",
        deferrable=True,
    )
    # [END howto_rollout_model]
    # [START howto_model_served]
    served = ModelServedSensor(
        task_id="served",
        model_name="{{ params.model_name }}",
        version=rollout.output["version"],
        deferrable=True,
        timeout=15 * 60,
    )
    # [END howto_model_served]

    load_check >> rollout >> served
