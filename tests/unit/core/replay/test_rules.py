"""The approvals of a move, judged again by the policy and the votes of then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_mcp.core.audit.record import erased_line, read_record
from airflow_mcp.core.replay.rules import intent_of_move, replay_rules, subjects_of
from tests.support.approvals import KEY, bank
from tests.support.moves import Moves


@pytest.fixture
def moves() -> Moves:
    found = Moves()
    found.activate(bank())
    found.issue()
    return found


def test_a_move_that_was_approved_comes_out_the_same(moves: Moves) -> None:
    moved = moves.move(moves.intend(moves.active.seq, *moves.approved()).seq)
    assert replay_rules(moved, moves.records).verdict == "identical"


def test_what_happened_afterwards_changes_nothing(moves: Moves) -> None:
    moved = moves.move(moves.intend(moves.active.seq, *moves.approved()).seq)
    moves.note("withdrawn")
    other = bank().model_copy(update={"metadata": replace_version(bank().metadata)})
    moves.activate(other)
    assert replay_rules(moved, moves.records).verdict == "identical"


def replace_version(metadata: object) -> object:
    return metadata.model_copy(update={"version": 2})  # type: ignore[attr-defined]


def test_a_vote_that_does_not_count_is_a_difference(moves: Moves) -> None:
    votes = moves.approved()
    moved = moves.move(moves.intend(moves.active.seq, *votes[:3]).seq)
    (found,) = replay_rules(moved, moves.records).differences
    assert (found.field, found.recorded) == ("policy and approvals", "permitted")
    assert "does not name the votes" in found.replayed


def test_what_is_missing_is_named(moves: Moves) -> None:
    votes = moves.approved()
    intent = moves.intend(moves.active.seq, *votes)
    moved = moves.move(intent.seq)
    without = [record for record in moves.records if record.seq != votes[0]]
    found = replay_rules(moved, without)
    assert (found.verdict, found.missing) == (
        "impossible",
        (f"record {votes[0]}, a policy or vote that the move rests on",),
    )
    without = [record for record in moves.records if record.seq != intent.seq]
    assert replay_rules(moved, without).missing == (f"record {intent.seq}, the intent of the move",)


def test_an_erased_vote_makes_it_impossible(moves: Moves) -> None:
    votes = moves.approved()
    moved = moves.move(moves.intend(moves.active.seq, *votes).seq)
    erased = [read_record(erased_line(record.line)) if record.seq == votes[1] else record for record in moves.records]
    assert replay_rules(moved, erased).verdict == "impossible"


def test_a_move_without_a_policy_needs_its_intent_only() -> None:
    moves = Moves()
    moved = moves.move(moves.intend(inputs={}).seq)
    assert replay_rules(moved, moves.records).verdict == "identical"
    late = replace(moved, event={**moved.event, "refs": []})
    assert replay_rules(late, moves.records).verdict == "identical"


def test_the_records_that_a_move_rests_on_have_these_subjects(moves: Moves) -> None:
    moved = moves.move(moves.intend(moves.active.seq, *moves.approved()).seq)
    intent = intent_of_move(moved, moves.records)
    assert intent is not None
    subjects = subjects_of(moved.event, intent.event)
    kept = [record for record in moves.records if record.event["subject"] in subjects]
    assert kept == moves.records
    assert KEY.subject in subjects
