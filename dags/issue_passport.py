"""Give a version its passport: a signed statement of what it was made from.

Needs a signing key: set [airflow_mcp] signing_conn_id.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.passport import IssuePassportOperator

with DAG(
    dag_id="issue_passport",
    description="Sign what a version was made from",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "version": Param("1", type="string", pattern=r"^[1-9]\d*$", title="Version"),
    },
) as dag:
    # [START howto_issue_passport]
    IssuePassportOperator(
        task_id="issue_passport",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
    )
    # [END howto_issue_passport]
