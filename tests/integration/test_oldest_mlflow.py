"""A registry that keeps the aliases of deleted versions, as MLflow 3.10 to 3.15 do.

``AIRFLOW_MCP_TEST_MLFLOW`` names the program of such an MLflow; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from airflow_mcp.cli import main
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

PROGRAM = os.environ.get("AIRFLOW_MCP_TEST_MLFLOW", "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PROGRAM, reason="AIRFLOW_MCP_TEST_MLFLOW names no MLflow"),
]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path_factory.mktemp("oldest"), program=[PROGRAM]) as server:
        yield server


@pytest.fixture
def registry_server(oldest: MlflowServer) -> MlflowServer:
    return oldest


def promote(world: World, version: str, expected: str) -> str:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    return world.run(PromoteModelOperator, **arguments, dag_run_id=f"night-{version}-{expected}").state


@pytest.fixture
def orphaned(world: World) -> World:
    """Four versions; the third is champion and was deleted."""
    world.versions(4)
    for version, expected in (("1", "none"), ("2", "1"), ("3", "2")):
        assert promote(world, version, expected) == "success"
    world._post("DELETE", "model-versions/delete", {"name": world.model_name, "version": "3"})
    assert world.aliases == {"champion": "3", "previous_champion": "2"}, "this MLflow takes the alias away"
    return world


def test_after_the_champion_was_deleted_the_next_one_is_promoted(orphaned: World) -> None:
    assert promote(orphaned, "4", "3") == "failed"
    assert promote(orphaned, "4", "none") == "success"
    assert orphaned.aliases == {"champion": "4", "previous_champion": "2"}


def test_after_the_champion_was_deleted_the_button_goes_back(orphaned: World) -> None:
    outcome = orphaned.run(RollbackModelOperator, model_name=orphaned.model_name, dag_run_id="on-call")
    assert (outcome.state, outcome.result["version"], outcome.result["previous_version"]) == ("success", "2", "none")
    assert orphaned.aliases == {"champion": "2"}


def test_status_and_history_know_of_no_champion(orphaned: World, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--tracking-uri", orphaned.url]
    assert main(["status", orphaned.model_name, *server]) == 0
    said = capsys.readouterr().out
    assert "champion: none" in said
    assert "previous_champion: version 2" in said
    assert main(["registry", "history", orphaned.model_name, *server, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["champion"], document["changes"][-1]["action"]) == (None, "unrecorded")
    assert document["unrecorded_moves"] == [{"alias": "champion", "recorded": "3", "found": None}]
