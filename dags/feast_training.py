"""Train on features of a Feast feature store, after checking that serving reads the same values.

The work plane of these tasks needs Feast: pip install 'airflow-mcp[feast]'.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.features import FeatureSkewCheckOperator, GetHistoricalFeaturesOperator
from airflow_mcp.operators.training import TrainModelOperator

MODEL = "fraud"
REPOSITORY = "{{ var.value.get('feast_repository', '/data/feast') }}"

with DAG(
    dag_id="feast_training",
    description="Read features from Feast, compare online with offline values, train",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
    },
) as dag:
    pin_entities = PinDatasetOperator(
        task_id="pin_entities",
        root="{{ var.value.get('fraud_data', '/data/fraud') }}",
        version="{{ params.data_version }}",
        files={"labels": "labels.csv", "customers": "customers.csv"},
    )
    # [START howto_feature_skew_check]
    check_skew = FeatureSkewCheckOperator(
        task_id="check_skew",
        experiment_name=f"{MODEL}-features",
        model_name=MODEL,
        feature_repo=REPOSITORY,
        feature_service=MODEL,
        entities=pin_entities.output["customers"],
        policy={"largest_skewed": 0.0, "largest_stale": 0.05},
        on_inconclusive="continue",
    )
    # [END howto_feature_skew_check]
    # [START howto_get_historical_features]
    get_features = GetHistoricalFeaturesOperator(
        task_id="get_features",
        experiment_name=f"{MODEL}-features",
        model_name=MODEL,
        feature_repo=REPOSITORY,
        feature_service=MODEL,
        entities=pin_entities.output["labels"],  # customer_id, event_timestamp and the label
        output_uri="{{ var.value.get('fraud_features', '/data/fraud_features') }}",
    )
    # [END howto_get_historical_features]
    train = TrainModelOperator(
        task_id="train",
        experiment_name=MODEL,
        model_name=MODEL,
        script="{{ var.value.get('fraud_script', '/code/train.py') }}",
        dataset=get_features.output["dataset"],
    )

    pin_entities >> check_skew >> train
    pin_entities >> get_features >> train
