"""By hand: what would change for the customers if this candidate were the champion?

The newest requests that production logged are run through the candidate and the champion. The gate lets the candidate
pass only if, for certain, few answers change, in every region too. Nothing is registered.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.replay import ReplayModelOperator

MODEL = "breast_cancer"

with DAG(
    dag_id="replay_requests",
    description="Replay logged requests through a candidate and the champion",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "run_id": Param("0" * 32, type="string", pattern="^[0-9a-f]{32}$", title="MLflow run of the candidate"),
        "model_uri": Param("models:/m-0", type="string", pattern="^models:/", title="Address of the candidate"),
        "requests": Param(
            "/data/breast_cancer/requests",
            type="string",
            minLength=1,
            title="Logged requests",
            description="File, folder or glob of Parquet or JSON Lines.",
        ),
        "last": Param(10_000, type="integer", minimum=1, title="How many of the newest requests"),
    },
) as dag:
    pin_data = PinDatasetOperator(
        task_id="pin_data",
        root="{{ var.value.get('breast_cancer_data', '/data/breast_cancer') }}",
        files={"evaluation": "evaluation.csv"},
    )
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        run_id="{{ params.run_id }}",
        model_uri="{{ params.model_uri }}",
        model_name=MODEL,
        dataset=pin_data.output["evaluation"],
        target="target",
        model_type="classifier",
        workload_timeout=timedelta(minutes=15),
    )
    # [START howto_replay_model]
    replay = ReplayModelOperator(
        task_id="replay",
        run_id="{{ params.run_id }}",
        model_uri="{{ params.model_uri }}",
        model_name=MODEL,
        requests="{{ params.requests }}",
        model_type="classifier",
        last="{{ params.last }}",
        timestamp_column="requested_at",
        request_id_column="request_id",
        prediction_column="prediction",
        segments=["region"],
        workload_timeout=timedelta(minutes=30),
    )
    # [END howto_replay_model]
    # [START howto_gate_replay]
    gate = EvaluationGateOperator(
        task_id="gate",
        run_id="{{ params.run_id }}",
        evidence_identity=evaluate.output["identity"],
        model_name=MODEL,
        thresholds=["accuracy >= 0.92"],
        replay_identity=replay.output["identity"],
        replay={"max_flip_rate": 0.05, "segments": ["region"], "max_segment_flip_rate": 0.1},
    )
    # [END howto_gate_replay]

    evaluate >> replay >> gate
