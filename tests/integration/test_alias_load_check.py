"""No alias for a version that does not load: promotion and rollback against a real MLflow registry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.load_check import LoadVerdict
from airflow_mcp.core.registry.moves import read_last_move
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from tests.support.mlflow_world import World, kill_points, load_check_tags
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def promote(world: World, version: str, expected: str, **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    return world.run(PromoteModelOperator, **arguments, **options)


def roll_back(world: World, to_version: str = "", **options: Any) -> TaskOutcome:
    return world.run(RollbackModelOperator, model_name=world.model_name, to_version=to_version, **options)


def tag(world: World, version: str, verdict: LoadVerdict, at: datetime | None = None) -> None:
    """Do what a load check does at its end."""
    for name, value in load_check_tags(verdict, at, "the file is torn").items():
        world.hook.set_model_version_tag(world.model_name, version, name, value)


def last_load_check(world: World) -> str:
    last = read_last_move(world.registered.tags)
    assert last is not None
    return last.load_check


@pytest.mark.parametrize("require_load_check", [True, False, "false"])
def test_a_version_whose_check_failed_never_becomes_champion(world: World, require_load_check: Any) -> None:
    world.versions(1, check="failed")
    outcome = promote(world, "1", "none", require_load_check=require_load_check)
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} is unusable, its load check failed at" in str(outcome.error)
    assert world.aliases == {}
    assert world.claims == []


@pytest.mark.parametrize(("check", "says"), [(None, "has never passed"), ("inconclusive", "has not passed")])
def test_a_version_that_has_not_passed_becomes_champion_only_when_that_is_said_and_recorded(
    world: World, check: LoadVerdict | None, says: str
) -> None:
    world.versions(1, check=check)
    refused = promote(world, "1", "none")
    assert refused.state == "failed"
    assert f"{says} a load check" in str(refused.error).replace("its load check", "a load check")
    assert world.aliases == {}
    assert promote(world, "1", "none", require_load_check=False).state == "success"
    assert last_load_check(world).startswith("not required; ")


def test_what_was_known_of_the_load_check_is_recorded_with_the_move(world: World) -> None:
    world.versions(1)
    assert promote(world, "1", "none").state == "success"
    assert last_load_check(world).startswith("passed at 20")


def test_the_check_is_read_again_under_the_claim(world: World) -> None:
    world.versions(2)
    world.hook.set_alias(world.model_name, "champion", "1")

    def meddle(operator: Any) -> None:
        """Let a check fail after the operator has looked, and before it holds the claim."""
        set_tag = operator.hook.set_registered_model_tag

        def claim(*arguments: str) -> None:
            tag(world, "2", "failed")
            set_tag(*arguments)

        operator.hook.set_registered_model_tag = claim

    outcome = promote(world, "2", "1", before=meddle)
    assert outcome.state == "failed"
    assert "version 2" in str(outcome.error)
    assert "is unusable" in str(outcome.error)
    assert world.aliases == {"champion": "1"}
    assert world.claims == []


def test_a_later_check_that_passes_makes_a_version_usable_again(world: World) -> None:
    world.versions(1, check="failed")
    assert promote(world, "1", "none").state == "failed"
    tag(world, "1", "passed")
    assert promote(world, "1", "none").state == "success"


# --- the way back ------------------------------------------------------------------------------------------------
def test_a_champion_that_does_not_load_is_not_kept_as_the_way_back(world: World) -> None:
    world.versions(3)
    for version, before in (("1", "none"), ("2", "1")):
        assert promote(world, version, before, dag_run_id=f"run-{version}").state == "success"
    tag(world, "2", "failed")
    assert promote(world, "3", "2", dag_run_id="run-3").state == "success"
    assert world.aliases == {"champion": "3", "previous_champion": "1"}
    assert unrecorded_moves(world.registered) == ()
    assert roll_back(world, dag_run_id="run-4").result["version"] == "1"


def test_no_way_back_is_left_when_the_way_back_itself_is_promoted_over_a_champion_that_does_not_load(
    world: World,
) -> None:
    world.versions(2)
    for version, before in (("1", "none"), ("2", "1")):
        assert promote(world, version, before, dag_run_id=f"run-{version}").state == "success"
    tag(world, "2", "failed")
    assert promote(world, "1", "2", dag_run_id="run-3").state == "success"
    assert world.aliases == {"champion": "1"}
    assert unrecorded_moves(world.registered) == ()


def test_a_promotion_over_a_broken_champion_that_is_killed_anywhere_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        world.model_name = f"{world.model_name.split('.')[0]}.{kills}"
        world.versions(2)
        world.hook.set_alias(world.model_name, "champion", "1")
        world.hook.set_alias(world.model_name, "previous_champion", "2")
        tag(world, "1", "failed")
        first = promote(world, "2", "1", before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        world.let_claims_run_out()
        second = promote(world, "2", "1", try_number=2)
        assert second.state == "success", second.error
        assert world.aliases == {"champion": "2"}
        assert unrecorded_moves(world.registered) == ()
    assert kills >= 6


# --- rollback ----------------------------------------------------------------------------------------------------
def test_a_rollback_to_a_version_that_does_not_load_names_those_that_do(world: World) -> None:
    world.versions(3)
    for version, before in (("1", "none"), ("2", "1"), ("3", "2")):
        assert promote(world, version, before, dag_run_id=f"run-{version}").state == "success"
    tag(world, "2", "failed")
    for options in ({}, {"require_load_check": False}):
        outcome = roll_back(world, dag_run_id="run-back", **options)
        assert outcome.state == "failed"
        assert "the file is torn" in str(outcome.error)
        assert "Usable earlier champions, the latest first: 1" in str(outcome.error)
    assert world.aliases == {"champion": "3", "previous_champion": "2"}
    assert roll_back(world, "1", dag_run_id="run-back-1").state == "success"


def test_a_rollback_asks_for_a_check_of_late_unless_told_otherwise(world: World) -> None:
    world.versions(2)
    world.hook.set_alias(world.model_name, "champion", "2")
    tag(world, "1", "passed", datetime.now(UTC) - timedelta(hours=30))
    stale = roll_back(world, "1")
    assert stale.state == "failed"
    assert "longer ago than 1 day, 0:00:00, so it may no longer load" in str(stale.error)
    assert world.aliases == {"champion": "2"}
    assert roll_back(world, "1", max_load_check_age=timedelta(hours=31)).state == "success"
    assert roll_back(world, "2", require_load_check="false", dag_run_id="run-2").state == "success"
    assert last_load_check(world).startswith("not required; passed at")


def test_a_rollback_of_the_night_when_nothing_can_be_checked_is_recorded_as_such(world: World) -> None:
    world.versions(2, check=None)
    world.hook.set_alias(world.model_name, "champion", "2")
    assert roll_back(world, "1").state == "failed"
    assert roll_back(world, "1", require_load_check=False).state == "success"
    assert last_load_check(world) == "not required; never checked"
