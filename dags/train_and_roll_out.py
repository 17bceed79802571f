"""By hand: train and judge as every night, and let production decide: the new model takes the traffic step by step.

A gate knows its own data only. A model that passes it may still fail for requests that this data does not hold; then
all requests go back to the champion, and the alias never moves. The model servers must follow the registry; the
connection model_server_default names their headless Service.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.training import TrainModelOperator

MODEL = "breast_cancer"
PROJECT = Path(__file__).parent / "breast_cancer"

with DAG(
    dag_id="train_and_roll_out",
    description="Train, judge and register the breast cancer model, and roll it out step by step",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
        "scaling": Param(
            "standard",
            type="string",
            enum=["standard", "box-cox"],
            title="Scaling",
            description="How the columns are scaled; box-cox takes numbers above 0 only.",
        ),
        "regularisation": Param(
            1.0,
            type="number",
            minimum=0.0001,
            title="Regularisation",
            description="C of the logistic regression; smaller is stronger.",
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
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="{{ params.data_version }}",
        files={"train": "train.csv", "evaluation": "evaluation.csv"},
    )
    train = TrainModelOperator(
        task_id="train",
        experiment_name=MODEL,
        model_name=MODEL,
        script=str(PROJECT / "train.py"),
        config=str(PROJECT / "config.yaml"),
        config_overrides={
            "scaling": "{{ params.scaling | tojson }}",
            "regularisation": "{{ params.regularisation | tojson }}",
        },
        dataset=pin_data.output["train"],
        reason="{{ params.reason or '' }}",
        workload_resources={"cpu": "1", "memory": "2Gi"},
        workload_timeout=timedelta(minutes=30),
    )
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
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id=train.output["run_id"],
        evidence_identity=evaluate.output["identity"],
        model_name=MODEL,
        thresholds=["accuracy >= 0.92", "roc_auc >= 0.95", "latency_ms <= 150", "accuracy > champion"],
    )
    register = RegisterModelOperator(task_id="register", model_name=MODEL, model_uri=train.output["model_uri"])
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name=MODEL,
        version=register.output["version"],
        workload_resources={"cpu": "1", "memory": "2Gi"},
        workload_timeout=timedelta(minutes=15),
    )
    # [START howto_roll_out_after_training]
    rollout = RolloutModelOperator(
        task_id="rollout",
        model_name=MODEL,
        version=load_check.output["version"],
        expected_champion=gate.output["champion_version"],
        experiment_name="rollouts",
        rules=["http_5xx_rate <= 0.01", "latency_p99_ms <= 200"],
        on_inconclusive="abort",  # nobody waits for it
        reason="{{ params.reason or '' }}",
        poll_interval=3,
        deferrable=True,
    )
    # [END howto_roll_out_after_training]

    pin_data >> train >> evaluate >> gate >> register >> load_check >> rollout
