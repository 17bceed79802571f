"""For the publisher API, or by hand: register a model that was uploaded, or that an MLflow run has logged.

An uploaded ONNX file is wrapped in MLflow's format first. The version is loaded and asked its example at the end; one
that fails stays registered, is tagged as unusable, and gets no alias. Nothing is promoted here.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.publish import PublishModelOperator
from airflow_mcp.operators.registry import RegisterModelOperator

with DAG(
    dag_id="publish_model",
    description="Register an uploaded or logged model, and check that it loads",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, maxLength=250, title="Registered model"),
        "source": Param(
            "uploads:/00000000000000000000000000000000",
            type="string",
            pattern="^(uploads:/[0-9a-f]{32}|models:/m-[0-9a-f]{32}|runs:/[0-9a-f]{32}/[^/].*)$",
            title="Source",
            description="uploads:/<upload>, models:/<model id> or runs:/<run id>/<name of the logged model>.",
        ),
        "description": Param("", type="string", maxLength=5000, title="Description", description="For its page."),
        "input_example": Param(
            None,
            type=["null", "object"],
            title="Input example",
            description="For ONNX: values by the names of the inputs. Empty: zeros.",
        ),
        "provenance": Param(
            None,
            type=["null", "object"],
            title="Origin",
            description="code_url, code_commit, data_uri, data_version, data_hash; recorded as reported.",
        ),
        "reason": Param(None, type=["null", "string"], maxLength=2000, title="Reason"),
        "request_id": Param("", type="string", maxLength=128, title="Request ID"),
    },
) as dag:
    # [START howto_publish_model]
    publish = PublishModelOperator(
        task_id="publish",
        model_name="{{ params.model_name }}",
        source="{{ params.source }}",
        input_example="{{ params.input_example | tojson }}",
        provenance="{{ params.provenance | tojson }}",
        request_id="{{ params.request_id }}",
        workload_timeout=timedelta(minutes=30),
    )
    register = RegisterModelOperator(
        task_id="register",
        model_name="{{ params.model_name }}",
        model_uri=publish.output["model_uri"],
        require_gate=False,  # a promotion asks for the gate
        tags={"airflow_mcp.reason": "{{ params.reason or '' }}", "airflow_mcp.request_id": "{{ params.request_id }}"},
        description="{{ params.description }}",
    )
    load_check = LoadCheckOperator(
        task_id="load_check",
        model_name="{{ params.model_name }}",
        version=register.output["version"],
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_publish_model]

    publish >> register >> load_check
