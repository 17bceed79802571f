"""Judge the code by its tests and the model by its numbers; ask a person when the gate cannot decide by itself.

Press "Trigger" for a run by hand; the form explains each field. When the gate is inconclusive, "Required actions" in
Airflow has the question.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.gate_approval import RecordApprovalOperator
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator

MODEL = "breast_cancer"
PROJECT = Path(__file__).parent / "breast_cancer"
COPY = f"cp '{PROJECT}'/*.py ."  # steps write beside the code, and the Dag folder is not theirs

with DAG(
    dag_id="quality_gates",
    description="Train a breast cancer model, judge model and code, and ask a person when in doubt",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
        ),
        "gate_mode": Param(
            "enforce",
            type="string",
            enum=["enforce", "warn"],
            title="Mode of the gate",
            description="warn registers what does not hold too, marked as warned.",
        ),
    },
) as dag:
    # [START howto_step_reports]
    tests = RunStepOperator(
        task_id="tests",
        experiment_name=f"{MODEL}_quality",
        command=["sh", "-ec", f"{COPY}; coverage run --branch --source=. -m pytest -q; coverage xml"],
        reports=["coverage.xml"],
    )
    lint = RunStepOperator(
        task_id="lint",
        experiment_name=f"{MODEL}_quality",
        command=[
            "sh",
            "-ec",
            f"{COPY}; ruff check --isolated --exit-zero --select E,F,S --output-format sarif -o ruff.sarif",
        ],
        reports=["ruff.sarif"],
    )
    # [END howto_step_reports]
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="{{ params.data_version }}",
        files={"train": "train.csv", "evaluation": "evaluation.csv"},
    )
    train = TrainModelOperator(
        task_id="train",
        experiment_name=f"{MODEL}_quality",
        model_name=MODEL,
        script=str(PROJECT / "train.py"),
        config=str(PROJECT / "config.yaml"),
        dataset=pin_data.output["train"],
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
        comparisons=["accuracy"],
        workload_timeout=timedelta(minutes=15),
    )
    # [START howto_gate_ask]
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id=train.output["run_id"],
        evidence_identity=evaluate.output["identity"],
        model_name=MODEL,
        thresholds=["accuracy >= 0.92", "warn: latency_ms <= 50"],
        significance=[{"metric": "accuracy", "min_effect": -0.01}],
        policy={
            "coverage": {
                "report": {"run_id": tests.output["run_id"], "path": "reports/coverage.xml"},
                "min_line_rate": 0.6,
            },
            "findings": {
                "report": {"run_id": lint.output["run_id"], "path": "reports/ruff.sarif"},
                "max_by_rule": {"F401": 0, "S602": 0},  # unused imports, shells with input from outside
            },
        },
        mode="{{ params.gate_mode }}",
        escalation={"ask": "approve"},
    )
    # [END howto_gate_ask]
    # [START howto_record_approval]
    approve = ApprovalOperator(
        task_id="approve",
        subject="The gate cannot decide. Register the model all the same?",
        body="{{ ti.xcom_pull(task_ids='gate', key='reason') }}",
        params={"reason": Param("", type="string", title="Why")},
        response_timeout=timedelta(days=2),
        ignore_downstream_trigger_rules=True,  # a no skips the registration too
    )
    record_approval = RecordApprovalOperator(
        task_id="record_approval",
        run_id=gate.output["run_id"],
        model_name=MODEL,
        report_hash=gate.output["report_hash"],
        answer=approve.output,
    )
    # [END howto_record_approval]
    # [START howto_register_after_approval]
    register = RegisterModelOperator(
        task_id="register",
        model_name=MODEL,
        model_uri=train.output["model_uri"],
        trigger_rule="none_failed_min_one_success",
    )
    # [END howto_register_after_approval]

    [tests, lint] >> train
    pin_data >> train >> evaluate >> gate >> approve >> record_approval >> register
    gate >> register
