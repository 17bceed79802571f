"""Every night: train on the newest data, judge against the champion, promote only what is better and loads.

Press "Trigger" for a run by hand; the form explains each field.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mcp.operators.retrain import RetrainOutcomeOperator
from airflow_mcp.operators.training import TrainModelOperator

MODEL = "breast_cancer"
PROJECT = Path(__file__).parent / "breast_cancer"

with DAG(
    dag_id="nightly_retrain",
    description="Train, judge, register and promote the breast cancer model",
    doc_md=__doc__,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
        "force": Param(
            False,
            type="boolean",
            title="Train anyway",
            description="Train even if nothing has changed since the last training.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Train and judge, but register and promote nothing.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            maxLength=2000,
            title="Reason",
            description="Why; recorded with the run and the promotion.",
        ),
    },
) as dag:
    # [START howto_pin_dataset]
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="{{ params.data_version }}",
        files={"train": "train.csv", "evaluation": "evaluation.csv"},
    )
    # [END howto_pin_dataset]
    # [START howto_train_model]
    train = TrainModelOperator(
        task_id="train",
        experiment_name=MODEL,
        model_name=MODEL,
        script=str(PROJECT / "train.py"),
        config=str(PROJECT / "config.yaml"),
        dataset=pin_data.output["train"],
        on_unchanged="{{ 'train' if params.force else 'reuse' }}",
        reason="{{ params.reason or '' }}",
        workload_resources={"cpu": "1", "memory": "2Gi"},
        workload_timeout=timedelta(minutes=30),
    )
    # [END howto_train_model]
    # [START howto_evaluate_model]
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        run_id=train.output["run_id"],
        model_uri=train.output["model_uri"],
        model_name=MODEL,
        dataset=pin_data.output["evaluation"],
        target="target",
        model_type="classifier",
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_evaluate_model]
    # [START howto_gate]
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id=train.output["run_id"],
        evidence_identity=evaluate.output["identity"],
        model_name=MODEL,
        thresholds=[
            "accuracy >= 0.92",
            "roc_auc >= 0.95",
            "latency_ms <= 150",
            "accuracy > champion",
        ],
    )
    # [END howto_gate]
    # [START howto_register_model]
    register = RegisterModelOperator(
        task_id="register",
        model_name=MODEL,
        model_uri=train.output["model_uri"],
        dry_run="{{ params.dry_run }}",
    )
    # [END howto_register_model]
    # [START howto_load_check]
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name=MODEL,
        version=register.output["version"],
        workload_resources={"cpu": "1", "memory": "2Gi"},
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_load_check]
    # [START howto_promote_model]
    promote = PromoteModelOperator(
        task_id="promote",
        model_name=MODEL,
        version=load_check.output["version"],
        expected_champion=gate.output["champion_version"],
        reason="{{ params.reason or '' }}",
    )
    # [END howto_promote_model]
    # [START howto_retrain_outcome]
    outcome = RetrainOutcomeOperator(
        task_id="outcome",
        model_name=MODEL,
        run_id="{{ ti.xcom_pull(task_ids='train', key='run_id') or '' }}",
    )
    # [END howto_retrain_outcome]

    pin_data >> train >> evaluate >> gate >> register >> load_check >> promote >> outcome
