"""Every morning: does the champion still answer well, as far as the labels of its predictions have arrived?

Labels come later than predictions, so each day is judged a week after it has ended. If the champion has degraded, the
retrain is triggered with the reason, once for each version of the data.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.quality import CheckQualityOperator
from airflow_mcp.operators.retrain import RetrainTriggerOperator

MODEL = "breast_cancer"

with DAG(
    dag_id="quality_watch",
    description="Judge the champion's logged predictions by late labels and trigger nightly_retrain",
    doc_md=__doc__,
    schedule="0 5 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "label_delay": Param(
            "P7D",
            type="string",
            pattern=r"^P",
            title="Label delay",
            description="How long after the end of a day its labels have arrived; ISO 8601.",
        ),
    },
) as dag:
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="latest",
        files={"train": "train.csv"},
    )
    # [START howto_check_quality]
    check_quality = CheckQualityOperator(
        task_id="check_quality",
        experiment_name=f"{MODEL}-quality",
        model_name=MODEL,
        requests="{{ var.value.get('breast_cancer_log', '/data/predictions') }}/model=breast_cancer",
        labels="{{ var.value.get('breast_cancer_labels', '/data/labels') }}",
        model_type="classifier",
        policy={
            "window": "P1D",
            "label_delay": "{{ params.label_delay }}",
            "min_labelled": 0.9,
            "limits": [{"metric": "accuracy", "largest_loss": 0.03}],  # against the champion's own evaluation
        },
        on_inconclusive="continue",  # the ledger of retrains knows what to do about it
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_check_quality]
    retrain = RetrainTriggerOperator(
        task_id="retrain",
        trigger_dag_id="nightly_retrain",
        model_name=MODEL,
        experiment_name=MODEL,
        dataset=pin_data.output["train"],
        quality_windows=check_quality.output["windows"],
        policy={"on_drift": False, "on_quality": True, "violations": 2, "window_count": 3},
    )

    [pin_data, check_quality] >> retrain
