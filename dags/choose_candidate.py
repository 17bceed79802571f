"""Train two candidates side by side, pick the better one, and let the gate judge it. Nothing is registered.

Press "Trigger" for a run by hand; the form explains each field.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.pipeline import BeginPipelineOperator
from airflow_mcp.operators.select import SelectModelOperator
from airflow_mcp.operators.training import TrainModelOperator

MODEL = "breast_cancer"
PROJECT = Path(__file__).parent / "breast_cancer"
STRENGTHS = {"strong": "0.1", "weak": "10.0"}

with DAG(
    dag_id="choose_candidate",
    description="Train two breast cancer models and judge the better one",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
        "reason": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            maxLength=2000,
            title="Reason",
            description="Why; recorded with the runs.",
        ),
    },
) as dag:
    # [START howto_begin_pipeline]
    begin = BeginPipelineOperator(
        task_id="begin",
        spec_hash="choose_candidate-1",
        code=None,
        model_name=MODEL,
        experiment_name=f"{MODEL}_candidates",
        stages=["train", "evaluate", "gate"],
        data_version="{{ params.data_version }}",
        reason="{{ params.reason or '' }}",
    )
    # [END howto_begin_pipeline]
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version=begin.output["data_version"],
        files={"train": "train.csv", "evaluation": "evaluation.csv"},
    )
    train, evaluate = {}, {}
    for name, strength in STRENGTHS.items():
        train[name] = TrainModelOperator(
            task_id=f"train_{name}",
            experiment_name=f"{MODEL}_candidates",
            model_name=MODEL,
            script=str(PROJECT / "train.py"),
            config=str(PROJECT / "config.yaml"),
            config_overrides={"regularisation": strength},
            dataset=pin_data.output["train"],
            reason=begin.output["reason"],
            workload_timeout=timedelta(minutes=30),
        )
        evaluate[name] = EvaluateModelOperator(
            task_id=f"evaluate_{name}",
            run_id=train[name].output["run_id"],
            model_uri=train[name].output["model_uri"],
            model_name=MODEL,
            dataset=pin_data.output["evaluation"],
            target="target",
            model_type="classifier",
            workload_timeout=timedelta(minutes=15),
        )
    # [START howto_select_model]
    select = SelectModelOperator(
        task_id="select",
        metric="roc_auc",
        candidates=[
            {
                "name": name,
                "run_id": train[name].output["run_id"],
                "model_uri": train[name].output["model_uri"],
                "identity": train[name].output["identity"],
                "evidence_identity": evaluate[name].output["identity"],
            }
            for name in STRENGTHS
        ],
    )
    # [END howto_select_model]
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id=select.output["run_id"],
        evidence_identity=select.output["evidence_identity"],
        model_name=MODEL,
        thresholds=["accuracy >= 0.92", "roc_auc >= 0.95"],
    )
