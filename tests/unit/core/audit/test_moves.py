"""Events of moves: who acted, and one outcome whoever records it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.audit.moves import abandoned, audit_actor, intended, outcome
from airflow_mcp.core.audit.record import NO_RECORD, Record, read_record, record_line
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord
from airflow_mcp.core.registry.stages import StageMove

TASK = TaskKey("train", "run-1", "promote")
BY = Actor.of_task(TASK, requested_by="lena", run_type="manual")
ORDER = MoveOrder(action="promote", identity="m1", by=BY, reason="better")
MOVE = MoveRecord("promote", "m1", "1", "2", "2026-11-30T00:00:00+00:00", str(BY), "better", number=3)


def recorded(text: str, seq: int = 7) -> Record:
    return read_record(record_line(text, seq=seq, prev=NO_RECORD, recorded_at=datetime.now(UTC), by="mcp"))


@pytest.mark.parametrize(
    ("actor", "kind", "name"),
    [
        (BY, "user", "lena"),
        (Actor.of_task(TASK, run_type="scheduled"), "schedule", "train.promote"),
        (Actor.of_task(TASK, run_type="backfill"), "schedule", "train.promote"),
        (Actor.of_task(TASK, run_type="asset_triggered"), "asset", "train.promote"),
        (Actor.of_task(TASK), "system", "train.promote"),
        (Actor.of_user("mallory", "host"), "cli", "mallory@host"),
    ],
)
def test_an_actor_is_a_person_a_schedule_an_asset_or_a_command_line(actor: Actor, kind: str, name: str) -> None:
    found = audit_actor(actor)
    assert (found.kind, found.name, found.authenticated) == (kind, name, False)


def test_two_tries_of_a_move_have_one_intent_and_another_plan_has_another() -> None:
    first = intended(MOVE, ORDER, "fraud", "prod")
    assert first == intended(replace(MOVE, at="2027-01-01T00:00:00+00:00", number=9), ORDER, "fraud", "prod")
    others = [replace(MOVE, champion_after="3"), replace(MOVE, champion_before=None), replace(MOVE, forced=True)]
    assert len({first.id, *(intended(other, ORDER, "fraud", "prod").id for other in others)}) == 4
    assert first.task == TASK


def test_an_outcome_names_its_intent_and_is_the_same_whoever_records_it() -> None:
    intent = recorded(intended(MOVE, ORDER, "fraud", "prod").text)
    of_another = recorded(intended(replace(MOVE, champion_after="9"), ORDER, "fraud", "prod").text, seq=8)
    event = outcome(MOVE, "fraud", "prod", [intent, of_another])
    assert (event.refs, event.late, event.actor.name, event.reason) == ((7,), False, "lena", "better")
    assert event.text == outcome(MOVE, "fraud", "prod", [intent]).text


def test_an_outcome_without_an_intent_is_late_and_keeps_what_mlflow_knows() -> None:
    event = outcome(MOVE, "fraud", "prod", [])
    assert (event.refs, event.late, event.actor.kind) == ((), True, "system")
    assert event.actor.name == "train.promote run-1"
    assert (event.old, json.loads(event.text)["new"]["champion"]) == (
        {"champion": "1", "previous_champion": None},
        "2",
    )


def test_a_credential_in_a_reason_does_not_stop_a_move_and_is_not_recorded() -> None:
    order = replace(ORDER, reason="see https://me:hunter2@host/x")
    late = outcome(replace(MOVE, reason=order.reason), "fraud", "dev", [])
    assert "hunter2" not in intended(MOVE, order, "fraud", "dev").text + late.text


def test_a_move_between_stages_has_its_own_events() -> None:
    move = StageMove("transition", "s1", {"4": "Staging"}, None, "4", MOVE.at, str(BY))
    intent = recorded(intended(move, replace(ORDER, action="transition", identity="s1"), "fraud", "dev").text)
    event = outcome(move, "fraud", "dev", [intent])
    assert (event.action, event.refs, event.new and event.new["stages"]) == (
        *("registry.stage_moved", (7,)),
        {"Staging": "4"},
    )


def test_an_abandoned_move_names_the_intent() -> None:
    event = abandoned(recorded(intended(MOVE, ORDER, "fraud", "prod").text))
    assert (event.refs, event.late, event.environment) == ((7,), True, "prod")
    assert event.new == {"move": "m1", "action": "promote"}
