"""TransitionModelStageOperator, and MLflow's own stages that follow the aliases, against a real MLflow registry."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from mlflow import MlflowClient

from airflow_mcp.core import contract
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.core.registry.stages import read_stage_moves, read_stages
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator
from tests.support.fakes.faulty_server import FaultyServer, answer
from tests.support.mlflow_world import KillSwitch, World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def transition(world: World, version: str, stage: str, **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "version": version, "stage": stage, "reason": "why"}
    return world.run(TransitionModelStageOperator, **{**arguments, **options})


def promote(world: World, version: str, expected: str, **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    return world.run(PromoteModelOperator, **arguments, **options)


def stages(world: World) -> dict[str, str]:
    return {version: its.stage for version, its in sorted(read_stages(world.registered).items())}


def own_stages(world: World) -> dict[str, str]:
    return {version.version: version.current_stage for version in world.all_versions()}


def mirror(world: World) -> None:
    world.hook.set_registered_model_tag(world.model_name, contract.TAG_MIRROR_STAGES, "true")


def test_staging_is_the_challenger_and_production_the_champion(world: World) -> None:
    world.versions(2)
    first = transition(world, "1", "Staging")
    assert first.result == {
        "model_name": world.model_name,
        "version": "1",
        "stage": "Staging",
        "current_stage": "Staging",
        "archived": [],
        "moved": True,
    }
    assert world.aliases == {"challenger": "1"}
    assert transition(world, "1", "Production", expected_champion="none").state == "success"
    assert world.aliases == {"champion": "1"}
    second = transition(world, "2", "production", expected_champion="1", archive_existing="true", dag_run_id="run-2")
    assert (second.state, second.result["archived"]) == ("success", ["1"])
    assert world.aliases == {"champion": "2", "previous_champion": "1"}
    assert stages(world) == {"1": "Archived", "2": "Production"}
    assert [(move.action, move.champion_after) for move in read_history(world.registered.tags)] == [
        ("promote", "1"),
        ("promote", "2"),
    ]
    (move,) = read_stage_moves(world.registered)
    assert (move.stages, move.by, move.reason) == ({"1": "Staging"}, f"{world.dag_id}.task run-1", "why")
    assert world.claims == []


def test_archiving_the_existing_in_staging_is_told(world: World) -> None:
    world.versions(3)
    for number, version in enumerate(("1", "2")):
        assert transition(world, version, "Staging", dag_run_id=f"run-{number}").state == "success"
    assert stages(world) == {"1": "Staging", "2": "Staging"}
    outcome = transition(world, "3", "Staging", archive_existing=True, dag_run_id="run-3")
    assert sorted(outcome.result["archived"]) == ["1", "2"]
    assert stages(world) == {"1": "Archived", "2": "Archived", "3": "Staging"}


PRODUCTION: list[tuple[dict[str, Any], str]] = [
    ({"expected_champion": ""}, "expected_champion must be a version number or 'none'; got ''"),
    ({"expected_champion": "1"}, "archive_existing must be true because version 1 is in Production"),
    ({"expected_champion": "none"}, "was compared with no version, but alias 'champion' now points at version 1"),
    ({"expected_champion": "2", "archive_existing": True}, "was compared with version 2, but alias 'champion' now"),
]


@pytest.mark.parametrize(("options", "message"), PRODUCTION)
def test_production_is_no_second_door(world: World, options: dict[str, Any], message: str) -> None:
    world.versions(3)
    world.hook.set_alias(world.model_name, "champion", "1")
    outcome = transition(world, "3", "Production", **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert world.aliases == {"champion": "1"}


@pytest.mark.parametrize("verdict", [None, "failed", "inconclusive"])
def test_a_version_that_did_not_pass_its_gate_does_not_go_to_production(world: World, verdict: str | None) -> None:
    world.versions(1, verdict)
    outcome = transition(world, "1", "Production", expected_champion="none")
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} has gate verdict {verdict or 'none'}" in str(outcome.error)
    assert world.aliases == {}
    assert transition(world, "1", "Staging").state == "success"


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("Archived", {}, "version 1 is the champion, and a champion leaves Production only"),
        (
            "Archived",
            {"archive_existing": True},
            "stage must be Staging or Production when archive_existing is true; got 'Archived'",
        ),
        ("Live", {}, "stage must be one of None, Staging, Production, Archived; got 'Live'"),
    ],
)
def test_what_cannot_be_is_refused(world: World, stage: str, options: dict[str, Any], message: str) -> None:
    world.versions(1)
    world.hook.set_alias(world.model_name, "champion", "1")
    outcome = transition(world, "1", stage, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert world.aliases == {"champion": "1"}


@pytest.mark.parametrize(("stage", "expected"), [("Staging", ""), ("Production", "none")])
def test_a_dry_run_moves_nothing(world: World, stage: str, expected: str) -> None:
    world.versions(1)
    assert transition(world, "1", stage, expected_champion=expected, dry_run="true").state == "skipped"
    assert world.registered.tags == {}
    assert world.aliases == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_version_that_does_not_load_does_not_go_to_staging_and_a_dry_run_says_so(world: World, dry_run: bool) -> None:
    world.versions(1, check="failed")
    outcome = transition(world, "1", "Staging", dry_run=dry_run)
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} is unusable, its load check failed" in str(outcome.error)
    assert world.aliases == {}


def test_a_version_that_does_not_exist_is_told(world: World) -> None:
    world.versions(1)
    outcome = transition(world, "9", "Archived")
    assert "RESOURCE_DOES_NOT_EXIST" in str(outcome.error)
    assert stages(world) == {}


def test_a_retry_after_success_changes_nothing_even_if_others_have_moved_since(world: World) -> None:
    world.versions(2)
    transition(world, "1", "Staging")
    transition(world, "2", "Staging", archive_existing=True, dag_run_id="run-2")
    before = world.registered
    outcome = transition(world, "1", "Staging", try_number=2)
    assert (outcome.state, outcome.result["moved"]) == ("success", False)
    assert (outcome.result["stage"], outcome.result["current_stage"]) == ("Staging", "Archived")
    assert world.registered == before


@pytest.mark.parametrize("stage", ["Staging", "None", "Archived", "Production"])
def test_a_retry_after_success_reports_what_the_first_try_did(world: World, stage: str) -> None:
    world.versions(3)
    options: dict[str, Any] = {}
    if stage == "Production":
        transition(world, "1", "Production", expected_champion="none", dag_run_id="run-0")
        options = {"expected_champion": "1", "archive_existing": True}
    else:
        transition(world, "1", "Staging", dag_run_id="run-0")
        options = {"archive_existing": stage == "Staging"}
    first = transition(world, "2", stage, **options)
    second = transition(world, "2", stage, try_number=2, **options)
    assert second.result == {**first.result, "moved": False}
    assert first.result["archived"] == (["1"] if stage in ("Staging", "Production") else [])


def prepare(world: World, number: int) -> None:
    world.model_name = f"{world.model_name.split('.')[0]}.{number}"
    world.versions(3)
    world.hook.set_alias(world.model_name, "challenger", "1")


def test_a_move_killed_after_any_write_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        prepare(world, kills)
        mirror(world)
        first = transition(world, "2", "Staging", archive_existing=True, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert first.state != "success"
        world.let_claims_run_out()
        second = transition(world, "2", "Staging", archive_existing=True, try_number=2)
        assert second.state == "success", second.error
        assert second.result["archived"] == ["1"]
        assert world.aliases == {"challenger": "2"}
        assert stages(world) == {"1": "Archived", "2": "Staging"}
        assert own_stages(world) == {"1": "Archived", "2": "Staging", "3": "None"}
        assert len(read_stage_moves(world.registered)) == 1
        assert world.claims == []
    assert kills >= 7


def test_a_move_that_died_and_is_never_retried_is_recorded_by_whoever_moves_next(world: World) -> None:
    for number, switch in enumerate(itertools.islice(kill_points(), 6)):
        prepare(world, number)
        transition(world, "2", "Staging", archive_existing=True, before=switch.arm)
        was_made = world.aliases["challenger"] == "2"
        world.let_claims_run_out()
        assert promote(world, "3", "none", dag_run_id="run-2").state == "success"
        moves = read_stage_moves(world.registered)
        assert [move.stages for move in moves] == ([{"2": "Staging", "1": "Archived"}] if was_made else [])
        assert stages(world) == ({"1": "Archived", "2": "Staging"} if was_made else {"1": "Staging"}) | {
            "3": "Production"
        }


# --- MLflow's own stages ---------------------------------------------------------------------------------------------
def test_mlflows_own_stages_are_left_alone_unless_asked_for(world: World) -> None:
    world.versions(1)
    promote(world, "1", "none")
    assert own_stages(world) == {"1": "None"}


def test_old_tools_find_the_champion_by_its_stage_through_promotion_and_rollback(world: World) -> None:
    world.versions(3)
    mirror(world)
    client = MlflowClient(world.url)

    def in_production() -> list[str]:
        with pytest.warns(FutureWarning):
            found = client.get_latest_versions(world.model_name, stages=["Production"])
        return [version.version for version in found]

    promote(world, "1", "none")
    assert in_production() == ["1"]
    transition(world, "2", "Staging")
    promote(world, "2", "1", dag_run_id="run-2")
    assert in_production() == ["2"]
    assert own_stages(world) == {"1": "Archived", "2": "Production", "3": "None"}
    world.run(RollbackModelOperator, model_name=world.model_name, reason="bad", dag_run_id="run-3")
    assert in_production() == ["1"]
    assert own_stages(world) == {"1": "Production", "2": "Archived", "3": "None"}


def test_a_mirror_that_fails_is_made_good_by_the_retry(world: World) -> None:
    world.versions(2)
    mirror(world)
    promote(world, "1", "none")
    with FaultyServer(world.url) as server:
        server.fail("model-versions/transition-stage", answer(500, '{"error_code": "INTERNAL_ERROR"}'))
        outcome = promote(world, "2", "1", url=server.url, dag_run_id="run-2")
    assert outcome.state == "up_for_retry"
    assert world.aliases == {"champion": "2", "previous_champion": "1"}
    assert own_stages(world) == {"1": "Production", "2": "None"}
    assert promote(world, "2", "1", dag_run_id="run-2", try_number=2).state == "success"
    assert own_stages(world) == {"1": "Archived", "2": "Production"}
    assert [move.champion_after for move in read_history(world.registered.tags)] == ["1", "2"]


def test_a_promotion_that_is_killed_while_it_mirrors_is_completed_by_its_retry(world: World) -> None:
    unfinished = 0
    for after in itertools.count(4):  # the first three writes are those of a promotion without a mirror
        prepare(world, after)
        mirror(world)
        promote(world, "1", "none", dag_run_id="run-0")
        switch = KillSwitch(after, writes_only=True)
        promote(world, "2", "1", before=switch.arm)
        if not switch.has_fired:
            break
        unfinished += own_stages(world) != {"1": "Archived", "2": "Production", "3": "None"}
        world.let_claims_run_out()
        assert promote(world, "2", "1", try_number=2).state == "success"
        assert own_stages(world) == {"1": "Archived", "2": "Production", "3": "None"}
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
    assert unfinished >= 2
