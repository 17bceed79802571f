"""Decisions in a log: each move has its intent, rests on the policy that was in force, and on votes that counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_mcp.core.audit.event import AuditEvent, event_id
from airflow_mcp.core.audit.record import Record, erased_line
from airflow_mcp.core.conformity.moves import MoveCheck
from tests.support.approvals import POLICY, bank
from tests.support.moves import BY, SUBJECT, Moves

WITHOUT_CHAIN = POLICY.partition("  approvals:")[0] + "  approvals: [{chain: []}]\n"


@pytest.fixture
def moves() -> Moves:
    found = Moves()
    found.activate(bank())
    found.issue()
    return found


def test_a_promotion_with_every_vote_is_as_the_policy_wants(moves: Moves) -> None:
    votes = moves.approved()
    moves.move(moves.intend(moves.active.seq, *votes).seq)
    assert (moves.problems, moves.check.moves, moves.check.late) == ([], 1, 0)


def test_without_a_policy_a_move_needs_its_intent_only() -> None:
    moves = Moves()
    moves.move(moves.intend(inputs={}).seq)
    assert moves.problems == []


@pytest.mark.parametrize(
    ("story", "problem"),
    [
        (lambda book, votes: book.intend(), "does not rest on policy"),
        (lambda book, votes: book.intend(book.active.seq, *votes, inputs={}), "does not rest on policy"),
        (lambda book, votes: book.intend(book.active.seq, *votes[:3]), "does not name the votes"),
        (
            lambda book, votes: book.intend(book.active.seq, inputs={"policy": book.policy.digest}),
            "it names no passport",
        ),
        (
            lambda book, votes: book.intend(
                book.active.seq, *votes, inputs={"policy": book.policy.digest, "passport": "sha256:" + "b" * 64}
            ),
            "was not issued before",
        ),
    ],
)
def test_an_intent_that_lacks_what_the_policy_wants_is_named(
    moves: Moves, story: Callable[[Moves, tuple[int, ...]], Record], problem: str
) -> None:
    seq = story(moves, moves.approved()).seq
    (finding,) = moves.check.findings
    assert (finding.seq, problem in finding.problem) == (seq, True)


def test_votes_that_were_cast_later_or_too_few_do_not_count(moves: Moves) -> None:
    moves.request()
    first = moves.vote("lena", "algorithm-lead").seq
    moves.intend(moves.active.seq, first)
    assert "the request is open" in moves.problems[0]


def test_a_release_that_nobody_asked_for_is_named(moves: Moves) -> None:
    moves.intend(moves.active.seq)
    assert "the request is unknown, nobody has asked" in moves.problems[0]


def test_a_vote_that_was_erased_counts_no_more(moves: Moves) -> None:
    votes = moves.approved()
    moves.intend(moves.active.seq, *votes)
    erased = moves.records[votes[0] - 1]
    check = MoveCheck()
    lines = [erased_line(record.line) if record is erased else record.line for record in moves.records]
    list(check.watched(line.encode() for line in lines))
    assert "the request is open" in check.findings[0].problem


def test_the_policy_of_the_time_of_the_move_decides(moves: Moves) -> None:
    moves.move(moves.intend(moves.active.seq, *moves.approved()).seq)
    other = bank(WITHOUT_CHAIN)
    stale = moves.active.seq
    moves.activate(other)
    moves.intend(stale, move="m2")
    assert "does not rest on policy" in moves.problems[0]
    moves.records.pop()
    inputs = {"policy": other.digest}
    moves.move(moves.intend(moves.active.seq, move="m3", inputs=inputs).seq, move="m3")
    assert moves.problems == []


def test_a_policy_that_one_person_made_is_none(moves: Moves) -> None:
    seq = moves.activate(bank(WITHOUT_CHAIN), "olga", "olga").seq
    moves.intend(seq)
    assert moves.check.findings[0].seq == seq
    assert "needs two people" in moves.problems[0]
    assert "under a policy that cannot be used" in moves.problems[1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, "no record before says that it was intended"),
        ({"late": True}, "was made without an intent while a policy was in force"),
    ],
)
def test_a_move_without_an_intent_is_named(moves: Moves, change: dict[str, Any], problem: str) -> None:
    moves.move(**change)
    assert problem in moves.problems[0]


def test_a_move_that_is_not_the_intended_one_is_named(moves: Moves) -> None:
    intent = moves.intend(moves.active.seq, *moves.approved())
    moves.move(intent.seq, new={"move": "m1", "action": "promote", "champion": "8"})
    assert f"is not the one that seq {intent.seq} intended" in moves.problems[0]


def test_an_intent_serves_one_move_only(moves: Moves) -> None:
    intent = moves.intend(moves.active.seq, *moves.approved())
    moves.move(intent.seq)
    moves.move(intent.seq, move="m2", new={"move": "m1", "action": "promote", "champion": "7"})
    assert "no record before says that it was intended" in moves.problems[0]


def test_a_rollback_needs_no_votes_and_may_be_late(moves: Moves) -> None:
    moves.move(moves.intend(action="rollback", inputs={}).seq, action="rollback")
    moves.move(move="m2", action="rollback", late=True)
    assert (moves.problems, moves.check.late) == ([], 1)


def test_a_move_from_before_the_policy_may_be_late(moves: Moves) -> None:
    moves.move(late=True, new={"move": "m1", "action": "promote", "champion": "7", "at": "2026-01-01T00:00:00+00:00"})
    assert moves.problems == []


def test_a_record_that_says_nonsense_is_named_and_the_check_goes_on(moves: Moves) -> None:
    name = event_id("registry.moved", SUBJECT, "x")
    seq = moves.append(AuditEvent(name, "registry.moved", SUBJECT, "prod", BY)).seq
    moves.move()
    assert [finding.seq for finding in moves.check.findings] == [seq, seq + 1]
