"""A selection of the tests once more, on a server of the oldest MLflow that is supported.

It answers 500 for a missing artifact in a local folder, and keeps the aliases of a deleted version.
"""

from __future__ import annotations

import json

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from tests.integration import test_artifacts_in_s3 as artifacts
from tests.integration import test_mlflow_hook as hooks
from tests.integration import test_operators_copy as copies
from tests.integration import test_operators_gate as gate
from tests.integration import test_operators_promotion as promotion
from tests.integration import test_operators_registry as registration
from tests.integration import test_registry_history as history
from tests.integration import test_sensors_registry as sensors
from tests.support import old_mlflow
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # MLflow's own, about types


hook, do, name, run = hooks.hook, hooks.do, hooks.name, gate.run


@pytest.fixture(scope="session")
def mlflow_server(oldest_mlflow_server: MlflowServer) -> MlflowServer:
    return oldest_mlflow_server


def test_the_server_of_this_module_is_the_oldest_that_is_supported(world: World) -> None:
    with MlflowHook("mlflow_tests") as hook:
        assert hook.test_connection() == (True, f"MLflow {old_mlflow.VERSION} answers at {world.url}")


class TestHook:
    @pytest.fixture
    def run(self, hook: MlflowHook, name: str) -> Run:
        return hook.create_run(hook.get_or_create_experiment(name), "a run", {"who": "test"}, hooks.NOW)

    test_experiments = staticmethod(hooks.test_experiments)
    test_a_run_from_its_start_to_its_end = staticmethod(hooks.test_a_run_from_its_start_to_its_end)
    test_searching_runs_pages_and_cannot_be_broken_out_of = staticmethod(
        hooks.test_searching_runs_pages_and_cannot_be_broken_out_of
    )
    test_what_is_not_there = staticmethod(hooks.test_what_is_not_there)
    test_the_registry = staticmethod(hooks.test_the_registry)


class TestArtifacts:
    test_a_missing_artifact_is_none_and_an_existing_one_is_read = staticmethod(
        artifacts.test_a_missing_artifact_is_none_and_an_existing_one_is_read
    )
    test_a_candidate_that_keeps_every_rule_passes = staticmethod(gate.test_a_candidate_that_keeps_every_rule_passes)
    test_a_run_without_evidence_is_an_error_with_a_report = staticmethod(
        gate.test_a_run_without_evidence_is_an_error_with_a_report
    )
    test_the_verdict_of_a_copys_own_gate_is_written_to_the_version_once = staticmethod(
        copies.test_the_verdict_of_a_copys_own_gate_is_written_to_the_version_once
    )


test_a_judged_model_becomes_a_version_with_its_provenance = (
    registration.test_a_judged_model_becomes_a_version_with_its_provenance
)
test_a_model_that_eight_tasks_register_at_once_becomes_one_version = (
    registration.test_a_model_that_eight_tasks_register_at_once_becomes_one_version
)
test_the_second_champion_keeps_the_way_back = promotion.test_the_second_champion_keeps_the_way_back
test_a_rollback_goes_to_the_previous_champion_and_says_why = (
    promotion.test_a_rollback_goes_to_the_previous_champion_and_says_why
)
test_what_was_in_production_when_is_answered_from_the_registry = (
    history.test_what_was_in_production_when_is_answered_from_the_registry
)
TestVersions = sensors.TestVersions


# --- aliases of deleted versions, which this server keeps -----------------------------------------------------------
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


def test_the_list_of_models_and_the_doctor_see_an_alias_of_a_deleted_version(
    orphaned: World, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--tracking-uri", orphaned.url, "--format", "json"]
    assert main(["status", "--limit", "100000", *server]) == 0
    listed = {each["model_name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert (found := listed[orphaned.model_name])["champion"] is None
    assert found["concerns"] == [
        {
            "kind": "champion_deleted",
            "level": "problem",
            "says": "alias champion points at version 3, which was deleted",
        }
    ]
    assert main(["doctor", "--no-cluster", *server]) == 1
    findings = {each["subject"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    finding = findings[f"MLflow alias of {orphaned.model_name}"]
    assert (finding["level"], finding["says"]) == ("problem", "'champion' is at version 3, which was deleted")
    assert f"airflow-mcp rollback {orphaned.model_name} --reason TEXT" in finding["advice"]
