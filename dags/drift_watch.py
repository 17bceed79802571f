"""Every night, before the retrain: has the data moved away from what the champion was trained on?

If it has, the retrain is triggered with the reason, once for each version of the data; the ledger says what was decided
and why (airflow-mcp retrain status breast_cancer).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.retrain import RetrainTriggerOperator

MODEL = "breast_cancer"

with DAG(
    dag_id="drift_watch",
    description="Check the newest data for drift and trigger nightly_retrain",
    doc_md=__doc__,
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
        "cooldown_hours": Param(
            20,
            type="integer",
            minimum=0,
            title="Cooldown (hours)",
            description="No retrain within this time after the last training started.",
        ),
        "evidently_rows": Param(
            1000,
            type="integer",
            minimum=0,
            title="Rows for Evidently",
            description="Rows of each dataset that Evidently's report shows; 0 makes no such report and is faster.",
        ),
    },
) as dag:
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="{{ params.data_version }}",
        files={"train": "train.csv", "recent": "recent.csv"},
    )
    # [START howto_drift_check]
    drift_check = DriftCheckOperator(
        task_id="drift_check",
        experiment_name=f"{MODEL}-drift",
        model_name=MODEL,
        current=pin_data.output["recent"],
        reference="champion",  # the profile that its training stored
        ignored_columns=["target"],
        drift_share=0.25,  # a quarter of the columns, where chance alone would give one in twenty
        min_rows=100,
        policy={"numerical_method": "ks", "numerical_threshold": 0.05},
        evidently_rows="{{ params.evidently_rows }}",  # Evidently's report beside our own
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_drift_check]
    # [START howto_retrain_trigger]
    retrain = RetrainTriggerOperator(
        task_id="retrain",
        trigger_dag_id="nightly_retrain",
        model_name=MODEL,
        experiment_name=MODEL,
        dataset=pin_data.output["train"],
        drift_verdict=drift_check.output["verdict"],
        max_model_age=timedelta(days=30),
        cooldown="PT{{ params.cooldown_hours }}H",
        daily_budget=2,
        max_rejections=3,  # then a person looks, and resumes it
    )
    # [END howto_retrain_trigger]

    pin_data >> drift_check >> retrain
