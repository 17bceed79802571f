"""What runs in the work plane, described."""

from __future__ import annotations

from airflow_mcp.core.workload.definition import Workload, WorkloadFile


def test_neither_credentials_nor_contents_are_shown_in_logs() -> None:
    workload = Workload(
        "train",
        ("python", "train.py"),
        env={"MLFLOW_RUN_ID": "r"},
        secret_env={"MLFLOW_TRACKING_PASSWORD": "hunter2"},
        files=(WorkloadFile("AIRFLOW_MCP_CONFIG_PATH", "config.json", '{"token": "hunter2"}'),),
    )
    assert "hunter2" not in repr(workload)
    assert "MLFLOW_RUN_ID" in repr(workload)
    assert "config.json" in repr(workload)


def test_workloads_do_not_share_what_they_are_given_by_default() -> None:
    first, second = Workload("a", ("x",)), Workload("b", ("x",))
    assert first.env is not second.env
    assert first.labels is not second.labels
