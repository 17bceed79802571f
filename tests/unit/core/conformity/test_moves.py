"""Decisions in a log: each move has its intent, rests on the policy that was in force, and on votes that counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.audit.decisions import Decided, decision
from airflow_mcp.core.audit.event import AuditEvent, event_id
from airflow_mcp.core.audit.record import Record, erased_line
from airflow_mcp.core.conformity.moves import MoveCheck
from tests.support.approvals import KEY, POLICY, bank
from tests.support.moves import BY, SUBJECT, Moves

BACK = ReleaseKey(KEY.model_name, KEY.environment, KEY.passport, "rollback")
ASKS_BACK = POLICY.replace(
    "  approvals:\n",
    "  approvals:\n    - when: {act: rollback, environment: prod, risk: high}\n"
    "      chain: [{name: on-call, approvers: role:algorithm-lead}]\n",
)
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


@pytest.fixture
def back() -> Moves:
    """A log whose policy asks one algorithm lead before a rollback of high risk in prod."""
    found = Moves(BACK, bank(ASKS_BACK))
    found.activate(bank(ASKS_BACK))
    found.issue()
    return found


def test_a_rollback_with_its_vote_is_as_the_policy_wants(back: Moves) -> None:
    back.request()
    vote = back.vote("lena", "on-call").seq
    back.move(back.intend(back.active.seq, vote, action="rollback").seq, action="rollback")
    assert (back.problems, back.check.moves) == ([], 1)


def nobody_asked(back: Moves) -> tuple[int, ...]:
    return ()


def vote_is_missing(back: Moves) -> tuple[int, ...]:
    back.request()
    return ()


def vote_is_not_named(back: Moves) -> tuple[int, ...]:
    back.request()
    back.vote("lena", "on-call")
    return ()


def vote_of_somebody_else(back: Moves) -> tuple[int, ...]:
    back.request()
    return (back.vote("cora", "on-call").seq,)


def vote_of_the_one_who_asked(back: Moves) -> tuple[int, ...]:
    back.request("lena")
    return (back.vote("lena", "on-call").seq,)


def vote_on_another_passport(back: Moves) -> tuple[int, ...]:
    back.request()
    other = ReleaseKey(KEY.model_name, KEY.environment, "sha256:" + "b" * 64, "rollback")
    return (back.vote("lena", "on-call", question=other.question("on-call")).seq,)


def request_for_another_passport(back: Moves) -> tuple[int, ...]:
    mine, other = back.key, ReleaseKey(KEY.model_name, KEY.environment, "sha256:" + "b" * 64, "rollback")
    back.key = other
    back.request()
    vote = back.vote("lena", "on-call").seq
    back.key = mine
    return (vote,)


def votes_of_the_release(back: Moves) -> tuple[int, ...]:
    back.key = KEY
    return back.approved()


def vote_that_was_used(back: Moves) -> tuple[int, ...]:
    back.request()
    vote = back.vote("lena", "on-call").seq
    back.move(back.intend(back.active.seq, vote, move="m0", action="rollback").seq, move="m0", action="rollback")
    return (vote,)


@pytest.mark.parametrize(
    ("story", "problem"),
    [
        (nobody_asked, "the request is unknown, nobody has asked"),
        (vote_is_missing, "the request is open"),
        (vote_is_not_named, "it does not name the votes"),
        (vote_of_somebody_else, "the request is open"),
        (vote_of_the_one_who_asked, "the request is open"),
        (vote_on_another_passport, "the request is open"),
        (request_for_another_passport, "the request is unknown"),
        (votes_of_the_release, "the request is unknown"),
        (vote_that_was_used, "the rollback was made, and another one needs another request"),
    ],
)
def test_a_rollback_without_the_vote_that_the_policy_wants_is_named(
    back: Moves, story: Callable[[Moves], tuple[int, ...]], problem: str
) -> None:
    votes = story(back)
    intent = back.intend(back.active.seq, *votes, action="rollback")
    (finding,) = back.check.findings
    assert (finding.seq, "rollback without valid votes" in finding.problem) == (intent.seq, True)
    assert problem in finding.problem


def test_a_rollback_that_names_no_policy_is_named_where_the_policy_asks(back: Moves) -> None:
    back.intend(action="rollback", inputs={})
    assert "rollback does not rest on policy" in back.problems[0]


def test_a_rollback_needs_no_vote_where_its_rule_asks_nobody() -> None:
    low = ASKS_BACK.replace("risk: high}\n      chain: [{name: on", "risk: low}\n      chain: [{name: on")
    back = Moves(BACK, bank(low))
    back.activate(bank(low))
    back.issue()
    back.intend(back.active.seq, action="rollback")  # the floor of the policy says that the model has high risk
    assert back.problems == []


def step(rollout: str, stable: str) -> AuditEvent:
    new = {"rollout": rollout, "stable": stable, "canary": "8"}
    return decision("rollout.step_intended", SUBJECT, "prod", BY, Decided(key=(rollout,), new=new))


@pytest.mark.parametrize(
    ("steps", "move", "is_found"),
    [
        ([("r1", "7")], "r1-back", False),
        ([], "r1-back", True),
        ([("r1", "6")], "r1-back", True),
        ([("r2", "7")], "r1-back", True),
        ([("r1", "7")], "r1", True),
    ],
)
def test_a_rollback_by_a_rollout_needs_no_vote_and_its_rollout(
    back: Moves, steps: list[tuple[str, str]], move: str, is_found: bool
) -> None:
    for rollout, stable in steps:
        back.append(step(rollout, stable))
    new = {"move": move, "action": "rollback", "champion": "7", "automatic": True}
    back.intend(back.active.seq, action="rollback", move=move, new=new)
    assert ["is said to be made by a rollout" in problem for problem in back.problems] == [True] * is_found


def test_a_move_from_before_the_policy_may_be_late(moves: Moves) -> None:
    moves.move(late=True, new={"move": "m1", "action": "promote", "champion": "7", "at": "2026-01-01T00:00:00+00:00"})
    assert moves.problems == []


def test_a_record_that_says_nonsense_is_named_and_the_check_goes_on(moves: Moves) -> None:
    name = event_id("registry.moved", SUBJECT, "x")
    seq = moves.append(AuditEvent(name, "registry.moved", SUBJECT, "prod", BY)).seq
    moves.move()
    assert [finding.seq for finding in moves.check.findings] == [seq, seq + 1]
