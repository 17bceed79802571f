"""PromoteModelOperator and RollbackModelOperator against a real MLflow registry."""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.registry.history import read_timeline, unrecorded_moves
from airflow_mcp.core.registry.moves import read_history, read_last_move
from airflow_mcp.exceptions import MlflowError
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.registry import claims
from tests.support.fakes.faulty_server import FaultyServer, lost_answer, refused_midway
from tests.support.forked import ForkedTask
from tests.support.mlflow_world import World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def promote(world: World, version: str, expected: Any, **options: Any) -> TaskOutcome:
    return world.run(
        PromoteModelOperator,
        **{
            "model_name": world.model_name,
            "version": version,
            "expected_champion": expected,
            "reason": "nightly",
            **options,
        },
    )


def roll_back(world: World, to_version: str = "", **options: Any) -> TaskOutcome:
    return world.run(
        RollbackModelOperator,
        **{"model_name": world.model_name, "to_version": to_version, "reason": "bad scores", **options},
    )


def prepare(world: World, number: int, **aliases_then: str) -> None:
    """Begin again with a fresh model of three versions."""
    world.model_name = f"{world.model_name.split('.')[0]}.{number}"
    world.versions(3)
    for alias, version in aliases_then.items():
        world.hook.set_alias(world.model_name, alias, version)


def test_the_first_champion(world: World) -> None:
    world.versions(1)
    outcome = promote(world, "1", "none")
    assert outcome.state == "success"
    assert outcome.result == {
        "model_name": world.model_name,
        "version": "1",
        "previous_version": "none",
        "champion_version": "1",
        "moved": True,
    }
    assert world.aliases == {"champion": "1"}
    assert world.claims == []
    last = read_last_move(world.registered.tags)
    assert last is not None
    assert (last.action, last.champion_before, last.champion_after) == ("promote", None, "1")
    assert (last.reason, last.by) == ("nightly", f"{world.dag_id}.task run-1")
    assert read_history(world.registered.tags) == (last,)
    links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
    assert links == {f"{world.url}/#/models/{world.model_name}/versions/1"}


def test_the_second_champion_keeps_the_way_back(world: World) -> None:
    world.versions(2)
    promote(world, "1", "none")
    outcome = promote(world, "2", "1", dag_run_id="run-2")
    assert (outcome.state, outcome.result["previous_version"]) == ("success", "1")
    assert world.aliases == {"champion": "2", "previous_champion": "1"}


def test_a_version_may_be_given_as_a_number(world: World) -> None:
    world.versions(2)
    promote(world, "1", "none")
    assert promote(world, 2, 1).state == "success"  # type: ignore[arg-type]
    assert world.aliases["champion"] == "2"


@pytest.mark.parametrize(
    ("expected", "compared"), [("1", "version 1"), ("none", "no version")], ids=["another", "nobody"]
)
def test_a_champion_that_changed_in_the_meantime_is_refused_and_named(
    world: World, expected: str, compared: str
) -> None:
    world.versions(3)
    world.hook.set_alias(world.model_name, "champion", "2")
    outcome = promote(world, "3", expected)
    assert outcome.state == "failed"
    assert (
        f"{world.model_name!r}: the candidate (version 3) was compared with {compared}, but alias 'champion' now "
        "points at version 2. Nothing was moved"
    ) in str(outcome.error)
    assert world.aliases == {"champion": "2"}
    assert world.claims == []


def test_a_champion_that_was_removed_in_the_meantime_is_refused(world: World) -> None:
    world.versions(2)
    outcome = promote(world, "2", "1")
    assert outcome.state == "failed"
    assert "now points at no version" in str(outcome.error)
    assert world.aliases == {}


def test_a_retry_after_success_changes_nothing(world: World) -> None:
    world.versions(2)
    promote(world, "1", "none")
    promote(world, "2", "1")
    before = world.registered
    outcome = promote(world, "2", "1", try_number=2)
    assert (outcome.state, outcome.result["moved"]) == ("success", False)
    assert (outcome.result["previous_version"], outcome.result["champion_version"]) == ("1", "2")
    assert world.registered == before


@pytest.mark.parametrize("verdict", [None, "failed", "inconclusive", "error"])
def test_a_version_that_did_not_pass_its_gate_is_refused(world: World, verdict: str | None) -> None:
    world.versions(1, verdict)
    outcome = promote(world, "1", "none")
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} has gate verdict {verdict or 'none'}" in str(outcome.error)
    assert world.aliases == {}
    assert promote(world, "1", "none", require_gate=False).state == "success"


@pytest.mark.parametrize("expected", [None, "", "None", "latest", "champion", "0", "1.0", "-1", True])
def test_a_missing_or_odd_expectation_does_not_mean_that_there_is_no_champion(world: World, expected: Any) -> None:
    world.versions(1)
    outcome = promote(world, "1", expected)
    assert outcome.state == "failed"
    assert f"expected_champion must be a version number or 'none'; got {expected!r}" in str(outcome.error)
    assert world.aliases == {}


@pytest.mark.parametrize("name", ["version", "model"])
def test_an_unknown_version_or_model_moves_nothing(world: World, name: str) -> None:
    world.versions(1)
    options = {"model_name": "nobody-knows-it"} if name == "model" else {}
    outcome = promote(world, "1" if name == "model" else "9", "none", **options)
    assert outcome.state in ("failed", "up_for_retry")
    assert "RESOURCE_DOES_NOT_EXIST" in str(outcome.error)
    assert world.aliases == {}


def test_a_dry_run_checks_everything_and_moves_nothing(world: World) -> None:
    world.versions(1)
    assert promote(world, "1", "none", dry_run="true").state == "skipped"
    assert world.aliases == {}
    assert contract.TAG_LAST_MOVE not in world.registered.tags


def test_a_promotion_killed_after_any_write_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        prepare(world, kills, champion="1")
        first = promote(world, "2", "1", before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert first.state != "success"
        assert world.aliases["champion"] in ("1", "2")
        world.let_claims_run_out()
        second = promote(world, "2", "1", try_number=2)
        assert second.state == "success", second.error
        result = {name: second.result[name] for name in ("version", "previous_version", "champion_version")}
        assert result == {"version": "2", "previous_version": "1", "champion_version": "2"}
        assert world.aliases == {"champion": "2", "previous_champion": "1"}
        assert world.claims == []
        last = read_last_move(world.registered.tags)
        assert last is not None
        assert (last.champion_before, last.champion_after) == ("1", "2")
        assert read_history(world.registered.tags)[-1] == last
    assert kills >= 6


def test_after_a_promotion_that_was_killed_anywhere_the_button_goes_back(world: World) -> None:
    kills = 0
    for switch in kill_points():
        prepare(world, kills)
        for version, expected in (("1", "none"), ("2", "1")):
            promote(world, version, expected, dag_run_id=f"night-{version}")
        promote(world, "3", "2", before=switch.arm, dag_run_id="night-3")
        if not switch.has_fired:
            break
        kills += 1
        has_moved = world.aliases["champion"] == "3"
        assert world.aliases["previous_champion"] != world.aliases["champion"]
        world.let_claims_run_out()
        assert unrecorded_moves(world.registered) == ()
        button = roll_back(world, dag_run_id="on-call", task_id="rollback")
        assert button.state == "success", button.error
        assert world.aliases == {"champion": "2" if has_moved else "1"}
        assert unrecorded_moves(world.registered) == ()
        actions = [move.action for move in read_history(world.registered.tags)]
        assert actions == ["promote"] * (3 if has_moved else 2) + ["rollback"]
        cleared = promote(world, "3", "2", try_number=2, dag_run_id="night-3")
        assert cleared.state == "failed"
        assert ("made version 3 the champion" in str(cleared.error)) == has_moved
        assert world.aliases == {"champion": "2" if has_moved else "1"}
    assert kills >= 6


def test_a_retry_of_a_promotion_that_died_says_that_it_moved(world: World) -> None:
    prepare(world, 0, champion="1")

    def die(operator: Any) -> None:
        set_alias = operator.hook.set_alias

        def then_die(name: str, alias: str, version: str) -> None:
            set_alias(name, alias, version)
            raise MlflowError("the server went away", 503)

        operator.hook.set_alias = then_die

    assert promote(world, "2", "1", before=die).state == "up_for_retry"
    assert world.aliases == {"champion": "2"}
    retry = promote(world, "2", "1", try_number=2)
    assert (retry.result["moved"], retry.result["previous_version"]) == (True, "1")
    assert world.aliases == {"champion": "2", "previous_champion": "1"}


REASONS: list[Any] = [
    "ж" * 6000,
    '"' * 6000,
    "x" * 200_000,
    "a\0b",
    "a\ud800b",
    7,
    {"a": ["ж"]},
    b"\xff",
    datetime(2026, 1, 1, tzinfo=UTC),
]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: f"{type(reason).__name__}-{len(str(reason))}")
def test_a_reason_of_any_length_and_kind_moves_and_is_recorded(world: World, reason: Any) -> None:
    prepare(world, 0)
    for version, expected in (("1", "none"), ("2", "1")):
        outcome = promote(world, version, expected, dag_run_id=f"night-{version}", reason=reason)
        assert outcome.state == "success", outcome.error
    outcome = roll_back(world, reason=reason, dag_run_id="on-call")
    assert outcome.state == "success", outcome.error
    moves = read_history(world.registered.tags)
    assert [move.action for move in moves] == ["promote", "promote", "rollback"]
    assert {len(move.to_tag()) <= 5000 for move in moves} == {True}
    assert contract.TAG_ROLLED_BACK in world.hook.get_model_version(world.model_name, "2").tags


def test_a_rollback_whose_mark_cannot_be_written_is_done_all_the_same(world: World) -> None:
    prepare(world, 0, champion="2", previous_champion="1")

    def refuse(operator: Any) -> None:
        def set_model_version_tag(*arguments: str) -> None:
            raise MlflowError("no", 500)

        operator.hook.set_model_version_tag = set_model_version_tag

    outcome = roll_back(world, before=refuse)
    assert (outcome.state, world.aliases) == ("success", {"champion": "1"})


# --- the gate ----------------------------------------------------------------------------------------------------
def test_a_verdict_that_was_taken_back_promotes_no_more(world: World) -> None:
    (version,) = world.versions(1, "approved")
    world.hook.set_tag(version.run_id, contract.TAG_GATE_VERDICT, "failed")
    outcome = promote(world, "1", "none")
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} has gate verdict failed" in str(outcome.error)
    assert world.aliases == {}
    world.hook.delete_run(version.run_id)
    outcome = promote(world, "1", "none")
    assert (outcome.state, "so its own gate verdict is not known" in str(outcome.error)) == ("failed", True)
    assert promote(world, "1", "none", require_gate=False).state == "success"


def test_a_verdict_that_came_after_the_registration_promotes(world: World) -> None:
    (version,) = world.versions(1, "inconclusive")
    world.hook.set_tag(version.run_id, contract.TAG_GATE_VERDICT, "approved")
    assert promote(world, "1", "none").state == "success"
    assert read_history(world.registered.tags)[0].gate_verdict == "approved"


@pytest.mark.parametrize("verdict", [None, "failed", "inconclusive", "error"])
def test_a_rollback_to_a_version_that_never_was_champion_needs_a_gate_or_force(
    world: World, verdict: str | None
) -> None:
    world.versions(3, verdict)
    for alias, version in (("champion", "3"), ("previous_champion", "2")):
        world.hook.set_alias(world.model_name, alias, version)
    outcome = roll_back(world, "1")
    assert outcome.state == "failed"
    assert "was never the champion" in str(outcome.error)
    assert "force=True" in str(outcome.error)
    assert world.aliases == {"champion": "3", "previous_champion": "2"}
    assert roll_back(world, "1", force="true", dag_run_id="run-2").state == "success"
    assert world.aliases == {"champion": "1"}
    assert [move.forced for move in read_history(world.registered.tags)] == [True]
    assert roll_back(world, "3", dag_run_id="run-3").state == "success", "it was champion"
    assert [move.forced for move in read_history(world.registered.tags)] == [True, False]


WRITES = [
    ("POST", "registered-models/set-tag"),
    ("POST", "registered-models/alias"),
]


@pytest.mark.parametrize(("method", "part"), WRITES)
@pytest.mark.parametrize("fault", [lost_answer(), refused_midway()], ids=["answer-lost", "request-lost"])
def test_a_promotion_whose_connection_breaks_is_completed_by_its_retry(
    world: World, method: str, part: str, fault: Any
) -> None:
    prepare(world, 0, champion="1")
    with FaultyServer(world.url) as server:
        server.fail(part, fault, times=1, method=method)
        assert promote(world, "2", "1", url=server.url).state == "up_for_retry"
        world.let_claims_run_out()
        assert promote(world, "2", "1", url=server.url, try_number=2).state == "success"
    assert world.aliases == {"champion": "2", "previous_champion": "1"}
    assert world.claims == []


def test_a_champion_moved_from_outside_during_the_promotion_is_reported(world: World) -> None:
    world.versions(3)

    def meddle(operator: Any) -> None:
        def set_alias(name: str, alias: str, version: str) -> None:
            world.hook.set_alias(name, alias, version)
            world.hook.set_alias(name, "champion", "3")

        operator.hook.set_alias = set_alias

    outcome = promote(world, "2", "none", before=meddle)
    assert outcome.state == "up_for_retry"
    assert "was set to version 2, but points at 3 now: something outside Airflow moved it" in str(outcome.error)
    assert world.claims == []
    assert promote(world, "2", "none", try_number=2).state == "failed"
    assert world.aliases["champion"] == "3"


def test_another_promotion_under_way_is_waited_for_and_then_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: None)
    world.versions(1)
    claim = {"expires_at": "9999-01-01T00:00:00+00:00", "holder": "other_dag.promote run-7"}
    world.hook.set_registered_model_tag(world.model_name, f"{contract.TAG_CLAIM_PREFIX}x", json.dumps(claim))
    outcome = promote(world, "1", "none")
    assert outcome.state == "up_for_retry"
    said = str(outcome.error)
    assert f"its aliases are being moved by other_dag.promote run-7 (tag {contract.TAG_CLAIM_PREFIX}x, " in said
    assert re.search(r"which counts for \d\d s more at most\)\. Nothing was moved", said)
    assert world.aliases == {}
    assert world.claims == [f"{contract.TAG_CLAIM_PREFIX}x"]


@pytest.mark.parametrize("year", [2020, 9999], ids=["behind", "ahead"])
def test_the_claim_of_a_dead_task_is_waited_for_and_cleared_away_whatever_its_clock_showed(
    world: World, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    monkeypatch.setattr(claims, "CLAIM_LIFETIME", timedelta(seconds=2))
    world.versions(1)
    claim = {"expires_at": f"{year}-01-01T00:00:00+00:00", "holder": "dead"}
    world.hook.set_registered_model_tag(world.model_name, f"{contract.TAG_CLAIM_PREFIX}x", json.dumps(claim))
    began = time.monotonic()
    assert promote(world, "1", "none").state == "success"
    assert 2 <= time.monotonic() - began < 10
    assert world.claims == []


@pytest.mark.parametrize("skew", [timedelta(days=-1), timedelta(seconds=-120), timedelta(days=1)], ids=str)
def test_of_two_promotions_with_clocks_that_differ_only_one_wins(
    world: World, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    """While one worker, whose clock differs, holds the claim, another one promotes."""
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: None)
    prepare(world, 0, champion="1")
    others: list[TaskOutcome] = []

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + skew

    def meddle(operator: Any) -> None:
        set_alias = operator.hook.set_alias

        def slowly(*arguments: str) -> None:
            if not others:
                monkeypatch.setattr(claims, "datetime", datetime)
                others.append(promote(world, "3", "1", dag_run_id="run-other"))
            set_alias(*arguments)

        operator.hook.set_alias = slowly
        monkeypatch.setattr(claims, "datetime", Skewed)

    assert promote(world, "2", "1", before=meddle).state == "success"
    assert [other.state for other in others] == ["up_for_retry"]
    assert world.aliases == {"champion": "2", "previous_champion": "1"}


def test_a_task_that_holds_its_claim_for_too_long_stops(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(world, 0, champion="1")

    def stall(operator: Any) -> None:
        set_tag = operator.hook.set_registered_model_tag

        def slowly(name: str, key: str, value: str) -> None:
            set_tag(name, key, value)
            if key == contract.TAG_LAST_MOVE:
                monkeypatch.setattr(claims, "CLAIM_LIFETIME", timedelta(0))

        operator.hook.set_registered_model_tag = slowly

    outcome = promote(world, "2", "1", before=stall)
    assert outcome.state == "up_for_retry"
    assert "before its work was done; a retry continues" in str(outcome.error)
    assert world.aliases == {"champion": "1"}


def test_a_claim_that_nobody_can_read_is_honoured(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: None)
    world.versions(1)
    world.hook.set_registered_model_tag(world.model_name, f"{contract.TAG_CLAIM_PREFIX}x", "?")
    outcome = promote(world, "1", "none")
    assert outcome.state == "up_for_retry"
    assert f"unreadable tag '{contract.TAG_CLAIM_PREFIX}x'" in str(outcome.error)
    assert world.aliases == {}


@pytest.mark.parametrize(("method", "part"), [("GET", "registered-models/get"), ("POST", "registered-models/set-tag")])
def test_a_claim_does_not_outlive_a_task_that_lost_its_connection_while_claiming(
    world: World, method: str, part: str
) -> None:
    world.versions(1)
    with FaultyServer(world.url) as server:
        server.fail(part, lost_answer(), times=1, method=method)
        assert promote(world, "1", "none", url=server.url).state == "up_for_retry"
    assert world.claims == []
    assert promote(world, "1", "none", try_number=2).state == "success"


# --- rollback ----------------------------------------------------------------------------------------------------
def test_a_rollback_goes_to_the_previous_champion_and_says_why(world: World) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    outcome = roll_back(world)
    assert outcome.state == "success"
    assert outcome.result == {
        "model_name": world.model_name,
        "version": "1",
        "previous_version": "2",
        "champion_version": "1",
        "moved": True,
    }
    assert world.aliases == {"champion": "1"}
    assert world.hook.get_model_version(world.model_name, "2").tags[contract.TAG_ROLLED_BACK] == "bad scores"
    last = read_last_move(world.registered.tags)
    assert last is not None
    assert (last.action, last.champion_before, last.champion_after) == ("rollback", "2", "1")
    assert world.claims == []


@pytest.mark.parametrize("to_version", ["", "1"])
def test_a_dry_run_of_a_rollback_pushes_what_would_be_moved_and_writes_nothing(world: World, to_version: str) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    before = world.registered
    outcome = roll_back(world, to_version=to_version, dry_run="true")
    assert outcome.state == "skipped"
    assert outcome.result == {
        "model_name": world.model_name,
        "version": "1",
        "previous_version": "2",
        "champion_version": "2",
        "moved": False,
    }
    assert world.registered == before
    assert world.claims == []
    assert contract.TAG_ROLLED_BACK not in world.hook.get_model_version(world.model_name, "2").tags


def test_a_dry_run_of_a_rollback_is_refused_as_the_rollback_would_be(world: World) -> None:
    prepare(world, 0, champion="2")
    outcome = roll_back(world, dry_run=True)
    assert outcome.state == "failed"
    assert "has no alias 'previous_champion', so there is no champion to go back to" in str(outcome.error)


def test_a_second_rollback_is_refused_and_never_goes_forward(world: World) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    roll_back(world)
    outcome = roll_back(world, dag_run_id="run-2")
    assert outcome.state == "failed"
    assert "has no alias 'previous_champion', so there is no champion to go back to" in str(outcome.error)
    assert "alias 'champion' stays at version 1" in str(outcome.error)
    assert world.aliases == {"champion": "1"}


def test_a_retry_after_a_rollback_changes_nothing(world: World) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    roll_back(world)
    outcome = roll_back(world, try_number=2)
    assert (outcome.state, outcome.result["moved"], outcome.result["version"]) == ("success", False, "1")
    assert world.aliases == {"champion": "1"}


def test_a_rollback_to_a_named_version(world: World) -> None:
    prepare(world, 0, champion="3", previous_champion="2")
    assert roll_back(world, "1").result["version"] == "1"
    assert world.aliases == {"champion": "1"}


@pytest.mark.parametrize(
    ("to_version", "message"),
    [("2", "version 2 is the champion already; nothing was moved"), ("9", "RESOURCE_DOES_NOT_EXIST")],
)
def test_a_rollback_that_leads_nowhere_moves_nothing(world: World, to_version: str, message: str) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    outcome = roll_back(world, to_version)
    assert outcome.state in ("failed", "up_for_retry")
    assert message in str(outcome.error)
    assert world.aliases == {"champion": "2", "previous_champion": "1"}
    assert world.claims == []


def delete_version(world: World, version: str) -> None:
    """Delete a version as a person does; MLflow takes its aliases away with it."""
    from mlflow import MlflowClient

    MlflowClient(world.url).delete_model_version(world.model_name, version)


def test_a_rollback_to_a_deleted_version_is_refused(world: World) -> None:
    prepare(world, 0, champion="2")
    delete_version(world, "1")
    outcome = roll_back(world, "1")
    assert outcome.state == "failed"
    assert "version 1 does not exist, perhaps it was deleted; nothing was moved" in str(outcome.error)
    assert world.aliases == {"champion": "2"}
    assert world.claims == []


def promoted(world: World, count: int) -> None:
    """Promote some versions, one after the other."""
    world.versions(count)
    for number in range(1, count + 1):
        outcome = promote(world, str(number), str(number - 1) if number > 1 else "none", dag_run_id=f"run-{number}")
        assert outcome.state == "success", outcome.error


def test_a_rollback_works_when_the_newest_version_which_is_champion_was_deleted(world: World) -> None:
    promoted(world, 3)
    delete_version(world, "3")
    assert world.aliases == {"previous_champion": "2"}
    outcome = roll_back(world, dag_run_id="run-back")
    assert (outcome.state, outcome.result["version"], outcome.result["previous_version"]) == ("success", "2", "none")
    assert world.aliases == {"champion": "2"}
    assert roll_back(world, dag_run_id="run-back", try_number=2).result["moved"] is False


def test_a_rollback_whose_way_back_was_deleted_names_the_earlier_champions_that_are_left(world: World) -> None:
    promoted(world, 4)
    delete_version(world, "3")
    outcome = roll_back(world, dag_run_id="run-back")
    assert outcome.state == "failed"
    assert "has no alias 'previous_champion'" in str(outcome.error)
    assert "Usable earlier champions, the latest first: 2, 1" in str(outcome.error)
    assert world.aliases == {"champion": "4"}
    assert roll_back(world, "2", dag_run_id="run-back-2").state == "success"
    assert world.aliases == {"champion": "2"}


def test_an_earlier_champion_is_a_way_back_however_many_versions_came_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(world, 3)
    delete_version(world, "2")
    monkeypatch.setattr(mlflow_registry_api.search_model_versions, "__defaults__", ((), 1))  # in place of a thousand
    outcome = roll_back(world, dag_run_id="run-back")
    assert "Usable earlier champions, the latest first: 1" in str(outcome.error)


def test_a_rollback_with_no_earlier_champion_left_says_so(world: World) -> None:
    promoted(world, 2)
    delete_version(world, "1")
    outcome = roll_back(world, dag_run_id="run-back")
    assert outcome.state == "failed"
    assert "None of the earlier champions (1) is usable" in str(outcome.error)


def test_a_retry_of_a_rollback_succeeds_though_the_version_it_left_was_deleted(world: World) -> None:
    promoted(world, 2)
    assert roll_back(world, dag_run_id="run-back").state == "success"
    delete_version(world, "2")
    outcome = roll_back(world, dag_run_id="run-back", try_number=2)
    assert (outcome.state, outcome.result["moved"]) == ("success", False)


@pytest.mark.parametrize("to_version", ["latest", "v1", "0", "1.5", "champion", 0, False, None])
def test_a_rollback_to_something_that_is_no_version_is_refused(world: World, to_version: Any) -> None:
    prepare(world, 0, champion="2", previous_champion="1")
    outcome = roll_back(world, to_version)
    assert outcome.state == "failed"
    assert f"to_version must be a version number; got {to_version!r}" in str(outcome.error)
    assert world.aliases == {"champion": "2", "previous_champion": "1"}


def test_a_rollback_killed_after_any_write_is_completed_by_its_retry(world: World) -> None:
    kills = 0
    for switch in kill_points():
        prepare(world, kills, champion="2", previous_champion="1")
        first = roll_back(world, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        assert world.aliases["champion"] in ("1", "2")
        world.let_claims_run_out()
        second = roll_back(world, try_number=2)
        assert second.state == "success", second.error
        assert world.aliases == {"champion": "1"}
        assert world.claims == []
        assert world.hook.get_model_version(world.model_name, "2").tags[contract.TAG_ROLLED_BACK] == "bad scores"
    assert kills >= 7


# --- races -------------------------------------------------------------------------------------------------------
RACERS = 20


def compete(world: World, version: str) -> tuple[str, str]:
    """Promote with Airflow's retries, in a process of its own; give the last state and error."""
    for try_number in range(1, 13):
        outcome = promote(world, version, "1", dag_run_id=f"run-{version}", try_number=try_number, retries=11)
        if outcome.state != "up_for_retry":
            break
    return outcome.state, str(outcome.error)


def test_of_twenty_promotions_at_once_exactly_one_wins_and_there_is_always_a_champion(world: World) -> None:
    world.versions(RACERS + 1)
    world.hook.set_alias(world.model_name, "champion", "1")
    world.hook.close()
    tasks = [ForkedTask(lambda version=str(number): compete(world, version)) for number in range(2, RACERS + 2)]
    seen = []
    while not all(map(ForkedTask.has_ended, tasks)):
        seen.append(world.aliases.get("champion"))
        time.sleep(0.02)  # a reader that never rests takes the server from the racers
    results = [task.result() for task in tasks]
    won = [str(number) for number, (state, _) in enumerate(results, start=2) if state == "success"]
    assert len(won) == 1, results
    assert world.aliases == {"champion": won[0], "previous_champion": "1"}
    lost = [message for state, message in results if state == "failed"]
    assert len(lost) == RACERS - 1
    assert all(f"now points at version {won[0]}" in message for message in lost)
    assert len(seen) > RACERS
    assert set(seen) <= {"1", won[0]}
    assert world.claims == []
    assert [(move.champion_before, move.champion_after) for move in read_history(world.registered.tags)] == [
        ("1", won[0])
    ]


def climb(world: World, version: str) -> str:
    """Promote a version over whatever is champion, again and again until it is done, in a process of its own."""
    for attempt in range(1, 60):
        champion = world.aliases["champion"]
        run = f"run-{version}-{attempt}"
        outcome = promote(world, version, champion, dag_run_id=run)
        if outcome.state == "success":
            return champion
        time.sleep(random.uniform(0, 0.5))  # as contenders do in the package: losing at once again helps nobody
    return "gave up"


def test_twenty_promotions_at_once_that_all_succeed_make_one_unbroken_history(world: World) -> None:
    world.versions(RACERS + 1)
    world.hook.set_alias(world.model_name, "champion", "1")
    world.hook.close()
    tasks = [ForkedTask(lambda version=str(number): climb(world, version)) for number in range(2, RACERS + 2)]
    seen = []
    while not all(map(ForkedTask.has_ended, tasks)):
        seen.append(world.aliases.get("champion"))
        time.sleep(0.02)  # a reader that never rests takes the server from the racers
    over = [task.result() for task in tasks]
    registered = world.registered
    moves = read_history(registered.tags)
    assert [move.number for move in moves] == list(range(1, RACERS + 1))
    assert sorted(int(move.champion_after) for move in moves) == list(range(2, RACERS + 2))
    chain = ["1", *(move.champion_after for move in moves)]
    assert [move.champion_before for move in moves] == chain[:-1]
    assert {move.champion_after: move.champion_before for move in moves} == {
        str(number): before for number, before in enumerate(over, start=2)
    }
    assert world.aliases == {"champion": chain[-1], "previous_champion": chain[-2]}
    order = [version for version, _ in itertools.groupby(seen)]
    assert None not in order
    assert [chain.index(version) for version in order] == sorted(chain.index(version) for version in order)
    assert world.claims == []
    assert [change.move is None for change in read_timeline(registered, datetime.now(UTC)).changes] == [
        True,  # version 1 was set by hand, before the race
        *[False] * RACERS,
    ]


def test_a_rollback_and_a_promotion_at_once_end_as_if_one_came_after_the_other(world: World) -> None:
    world.versions(3)
    world.hook.set_alias(world.model_name, "champion", "2")
    world.hook.set_alias(world.model_name, "previous_champion", "1")
    world.hook.close()

    def back() -> str:
        return roll_back(world, dag_run_id="run-back", task_id="rollback").state

    def forward() -> str:
        return promote(world, "3", "2", dag_run_id="run-forward").state

    tasks = [ForkedTask(back), ForkedTask(forward)]
    states = tuple(task.result() for task in tasks)
    assert (states, world.aliases) in [
        (("success", "failed"), {"champion": "1"}),  # first back; then 3 was compared with 2, which is gone
        (("success", "success"), {"champion": "2"}),  # first forward; then back to 2
    ]
    assert world.claims == []
