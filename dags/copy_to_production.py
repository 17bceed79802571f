"""By hand: bring a version that proved itself in another environment here, judge it here, and make it the champion.

It runs in the Airflow of the environment that is copied to. `mlflow_dev` is the connection to the other MLflow; without
one, set `source_mlflow_conn_id=None` and copy between two registered models of one server.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator

MODEL = "breast_cancer_production"

with DAG(
    dag_id="copy_to_production",
    description="Copy a model version from another environment, judge it here, promote it",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model to copy from"),
        "version": Param("1", type="string", pattern="^[1-9][0-9]*$", title="Version"),
        "data_version": Param(
            "latest", type="string", title="Data version", description="A version's name, or latest."
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
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        version="{{ params.data_version }}",
        files={"evaluation": "evaluation.csv"},
    )
    # [START howto_copy_model_version]
    copy = CopyModelVersionOperator(
        task_id="copy",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        source_mlflow_conn_id="mlflow_dev",
        target_model_name=MODEL,
        experiment_name=MODEL,
        workload_timeout=timedelta(minutes=30),
    )
    # [END howto_copy_model_version]
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        run_id=copy.output["run_id"],
        model_uri=copy.output["model_uri"],
        model_name=MODEL,
        dataset=pin_data.output["evaluation"],
        target="target",
        model_type="classifier",
        workload_timeout=timedelta(minutes=15),
    )
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id=copy.output["run_id"],
        evidence_identity=evaluate.output["identity"],
        model_name=MODEL,
        thresholds=["accuracy >= 0.92", "latency_ms <= 150"],
    )
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name=MODEL,
        version=copy.output["version"],
        workload_timeout=timedelta(minutes=15),
    )
    promote = PromoteModelOperator(
        task_id="promote",
        model_name=MODEL,
        version=load_check.output["version"],
        expected_champion=gate.output["champion_version"],
        reason="{{ params.reason or '' }}",
    )

    [pin_data, copy] >> evaluate >> gate >> load_check >> promote
