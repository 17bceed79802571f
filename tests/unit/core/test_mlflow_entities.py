"""What MLflow returns, as values."""

from __future__ import annotations

import pytest

from airflow_mcp.core.mlflow_entities import LoggedModel, ModelVersion, Run, RunStatus


@pytest.mark.parametrize(
    ("status", "live"),
    [("RUNNING", True), ("SCHEDULED", True), ("FINISHED", False), ("FAILED", False), ("KILLED", False)],
)
def test_a_run_is_live_until_it_ends_or_is_deleted(status: RunStatus, live: bool) -> None:
    assert Run("r", "1", status).is_live is live
    assert not Run("r", "1", status, lifecycle_stage="deleted").is_live


def test_models_are_addressed_as_mlflow_does() -> None:
    assert LoggedModel("m-1", "model", "READY", "r").uri == "models:/m-1"
    assert ModelVersion("churn", "3", "READY").uri == "models:/churn/3"
