"""What the doctor concludes about an MLflow server, case by case."""

from __future__ import annotations

import pytest

from airflow_mcp.core.doctor.mlflow_server import (
    judge_address,
    judge_artifacts,
    judge_load_checks,
    judge_mlflow_version,
    judge_moves,
    judge_store,
)
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.registry.moves import MoveRecord


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("3.17.2", "ok"),
        ("3.10.0", "ok"),
        ("3.9.4", "problem"),
        ("2.12.1", "problem"),
        ("4.0.0", "warning"),
        ("", "warning"),
    ],
)
def test_a_server_that_is_too_old_is_a_problem(version: str, level: str) -> None:
    assert judge_mlflow_version(version).level == level


@pytest.mark.parametrize(
    ("store", "level"), [("SqlStore", "ok"), ("FileStore", "problem"), (None, "warning"), ("X", "warning")]
)
def test_runs_belong_into_a_database(store: str | None, level: str) -> None:
    finding = judge_store(store)
    assert finding.level == level
    assert ("--backend-store-uri" in finding.advice) is (level != "ok")


@pytest.mark.parametrize(
    ("location", "level"),
    [
        ("mlflow-artifacts:/0", "ok"),
        ("mlflow-artifacts://host:5000/0", "ok"),
        ("./mlruns/0", "problem"),
        ("/var/mlruns/0", "problem"),
        ("file:///var/mlruns/0", "problem"),
        ("s3://bucket/0", "warning"),
    ],
)
def test_artifacts_belong_behind_the_server(location: str, level: str) -> None:
    assert judge_artifacts(location).level == level


@pytest.mark.parametrize(
    "url", ["http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000", "http://0.0.0.0:5000"]
)
def test_an_address_of_this_machine_is_none_for_a_pod(url: str) -> None:
    finding = judge_address(url)
    assert finding is not None
    assert "workload_url" in finding.advice


@pytest.mark.parametrize("url", ["http://mlflow:5000", "https://10.0.0.1", "http://localhosting.example.com"])
def test_any_other_address_may_be_one(url: str) -> None:
    assert judge_address(url) is None


def test_aliases_are_compared_with_the_moves_that_were_recorded() -> None:
    move = MoveRecord("promote", "m1", None, "1", "2026-11-21T08:00:00+00:00", "churn.promote run-1")
    tags = {move.done_tag: move.to_tag()}
    moved = RegisteredModel("moved", tags=tags, aliases={"champion": "4"})
    gone = RegisteredModel("gone", tags=tags)
    kept = RegisteredModel("kept", tags=tags, aliases={"champion": "1"})
    by_hand = RegisteredModel("by-hand", aliases={"champion": "1"})
    (one, other) = judge_moves([moved, gone, kept, by_hand])
    assert (one.subject, one.level) == ("MLflow alias of moved", "warning")
    assert "'champion' is at 4, but the last recorded move (promote by churn.promote run-1 at 2026-11-21" in one.says
    assert "left it at 1" in one.says
    assert "airflow-mcp registry history moved" in one.advice
    assert "'champion' is at no version" in other.says
    (fine,) = judge_moves([kept, by_hand])
    assert (fine.level, fine.says[:8]) == ("ok", "1 models")


def test_an_alias_at_a_version_that_does_not_load_is_a_problem_where_it_is_the_champion() -> None:
    failed = [ModelVersion("a", "3", "READY", tags=LoadCheck("failed", "torn", "2026-11-25T00:00:00+00:00").to_tags())]
    model = RegisteredModel("a", aliases={"champion": "3", "previous_champion": "3", "challenger": "4"})
    other = RegisteredModel("b", aliases={"champion": "3"})
    found = judge_load_checks([model, other], failed)
    assert [(one.level, one.says.partition(" is at")[0]) for one in found] == [
        ("problem", "'champion'"),
        ("warning", "'previous_champion'"),
    ]
    assert "its load check failed at 2026-11-25T00:00:00+00:00: torn" in found[0].says
    (fine,) = judge_load_checks([other], failed)
    assert fine.level == "ok"
