"""What MLflow returns, as values."""

from __future__ import annotations

import pytest

from airflow_mcp.core.mlflow_entities import LoggedModel, ModelVersion, RegisteredModel, Run, RunStatus


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


def test_the_newest_version_has_the_highest_number_not_the_last_text() -> None:
    versions = tuple(ModelVersion("churn", number, "READY") for number in ("9", "10", "2"))
    assert RegisteredModel("churn", latest_versions=versions).newest == 10
    assert RegisteredModel("churn").newest == 0
