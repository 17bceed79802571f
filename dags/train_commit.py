"""Check one commit of a Git repository and train with its `train.py`. Nothing is judged or registered.

Press "Trigger" and name the repository and the commit.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator

CODE = {"repo_url": "{{ params.repository }}", "revision": "{{ params.commit }}"}

with DAG(
    dag_id="train_commit",
    description="Train with the code of one Git commit",
    doc_md=__doc__,
    schedule=None,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "repository": Param(
            "https://git.example.com/team/model",
            type="string",
            title="Repository",
            description="Address of a Git repository that needs no login.",
        ),
        "commit": Param("0" * 40, type="string", pattern="^[0-9a-f]{40}$", title="Commit", description="Full id."),
    },
) as dag:
    # [START howto_run_step]
    build = RunStepOperator(
        task_id="build",
        experiment_name="train_commit",
        command=["python", "-m", "py_compile", "train.py"],
        code=CODE,
    )
    # [END howto_run_step]
    # [START howto_train_code]
    train = TrainModelOperator(task_id="train", experiment_name="train_commit", code=CODE, script="train.py")
    # [END howto_train_code]
    build >> train
