"""48 hours, 72 hours and the end of waiting, to the second."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.timers import due_timers, next_look
from tests.support.approvals import KEY, POLICY, Book, bank

LOW = ReleaseKey("churn", "prod", KEY.passport)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("key", "hours", "action", "to"),
    [(LOW, 48, "approval.escalated", ("olga",)), (KEY, 72, "approval.alerted", ("vera",))],
)
def test_a_timer_is_due_at_its_time_and_not_a_second_earlier(
    key: ReleaseKey, hours: int, action: str, to: tuple[str, ...]
) -> None:
    book = Book(key)
    book.request()
    book.wait(hours=hours, seconds=-1)
    assert due_timers(book.state, book.now) == []
    assert next_look(book.state, book.now) == SECOND
    book.wait(seconds=1)
    (due,) = due_timers(book.state, book.now)
    assert (due.action, due.to) == (action, to)


def test_a_timer_that_the_log_has_is_not_due_again() -> None:
    book = Book(KEY)
    seq = book.request().seq
    book.wait(hours=73)
    book.note("alerted", request=seq, node="algorithm-lead", after="72h")
    assert due_timers(book.state, book.now) == []
    assert next_look(book.state, book.now) == timedelta(hours=24)


def test_each_node_has_its_own_clock() -> None:
    book = Book(LOW)
    book.request()
    book.wait(hours=40)
    book.vote("lena", "algorithm-lead")
    book.wait(hours=47)
    assert due_timers(book.state, book.now) == []
    book.wait(hours=1)
    (due,) = due_timers(book.state, book.now)
    assert (due.node, due.to) == ("compliance", ("omar",))


@pytest.mark.parametrize(("seconds", "counts"), [(-1, False), (0, True)])
def test_a_superior_may_answer_from_the_escalation_on(seconds: int, counts: bool) -> None:
    book = Book(LOW)
    book.request()
    book.wait(hours=48, seconds=seconds)
    book.vote("olga", "algorithm-lead")
    assert [(vote.counts, vote.why if counts else "") for vote in book.state.votes] == [
        (counts, "escalation" if counts else "")
    ]


@pytest.mark.parametrize(("seconds", "status"), [(-1, "granted"), (0, "expired")])
def test_waiting_ends_in_a_rejection_and_never_in_a_yes(seconds: int, status: str) -> None:
    book = Book(KEY)
    book.request()
    for account, node in (("lena", "algorithm-lead"), ("luis", "algorithm-lead"), ("cora", "compliance")):
        book.vote(account, node)
    book.wait(days=14, seconds=seconds)
    assert book.state.status == ("open" if seconds else "expired")
    book.vote("rosa", "risk-committee")
    assert book.state.status == status
    book.wait(days=365)
    assert book.state.status == status


def test_an_answer_in_time_counts_although_it_was_recorded_late() -> None:
    book = Book(KEY)
    book.request()
    for account, node in (("lena", "algorithm-lead"), ("luis", "algorithm-lead"), ("cora", "compliance")):
        book.vote(account, node)
    in_time = book.now + timedelta(days=14) - SECOND
    book.wait(days=15)
    book.vote("rosa", "risk-committee", at=in_time)
    assert book.state.status == "granted"


def test_without_an_end_it_waits_for_ever() -> None:
    book = Book(LOW)
    book.request()
    book.wait(days=3650)
    assert book.state.status == "open"


def test_a_reminder_goes_to_those_who_may_vote_and_have_not() -> None:
    text = POLICY.replace("do: alert, to: role:security", "do: remind")
    book = Book(policy=bank(text))
    book.request(by="rita")
    book.vote("lena", "algorithm-lead")
    book.wait(hours=72)
    (due,) = due_timers(book.state, book.now)
    assert (due.action, due.to) == ("approval.reminded", ("luis",))
