"""Who may answer a question on the page, why others may not, and how urgent it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_mcp.core.approvals.events import APPROVE
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.panel.approvals import OpenQuestion, find_question, question_of, why_no_answer
from airflow_mcp.core.panel.pages.approvals import question_address, render_inbox
from airflow_mcp.core.panel.pages.layout import Frame
from airflow_mcp.core.panel.words import Words
from tests.support.approvals import KEY, POLICY, START, Book, bank

TASK = TaskKey("fraud__release", "r1", "seat_1")


def waiting(book: Book) -> OpenQuestion:
    return OpenQuestion(book.state, TASK)


@pytest.fixture
def book() -> Book:
    """The release of a high-risk model that dora asked for."""
    book = Book()
    book.request(by="dora", risk="high")
    return book


@pytest.mark.parametrize(
    ("account", "why", "is_right"),
    [
        ("lena-admin", None, None),
        ("luis", None, None),
        ("cora", "At the step {node} these may answer: {people}.", True),
        ("dora", "The policy does not know the account {account}.", True),
        ("olga", "At the step {node} these may answer: {people}.", True),
    ],
)
def test_only_those_whom_the_open_step_names_may_answer(
    book: Book, account: str, why: str | None, is_right: bool | None
) -> None:
    refused = why_no_answer(waiting(book), account, book.now)
    assert (refused and refused.text, refused and refused.is_right) == (why, is_right)


def test_whoever_asked_or_has_answered_may_not(book: Book) -> None:
    own = Book()
    own.request(by="luis", risk="high")
    refused = why_no_answer(waiting(own), "luis", own.now)
    assert refused is not None
    assert refused.text.startswith("You asked for this release")
    book.vote("lena", "algorithm-lead", APPROVE)
    again = why_no_answer(waiting(book), "lena", book.now)
    assert again is not None
    assert again.text == "You have answered already; each person counts once."
    assert why_no_answer(waiting(book), "luis", book.now) is None


def test_without_a_task_that_asks_nobody_can_answer(book: Book) -> None:
    refused = why_no_answer(OpenQuestion(book.state, None), "lena", book.now)
    assert refused is not None
    assert not refused.is_right


def test_it_is_late_once_a_timer_is_due_and_the_mark_changes_with_the_step(book: Book) -> None:
    question = waiting(book)
    assert (question.due(), question.is_late(book.now)) == (START + timedelta(hours=72), False)
    assert question.is_late(START + timedelta(hours=72))
    book.vote("lena", "algorithm-lead", APPROVE)
    book.vote("luis", "algorithm-lead", APPROVE)
    later = waiting(book)
    assert (question.step, later.step, later.people) == (1, 2, ("cora", "carl"))
    assert question.mark != later.mark


def test_a_request_that_is_over_is_no_question(book: Book) -> None:
    assert question_of(book.state) is not None
    book.vote("lena", "algorithm-lead", "Reject")
    assert question_of(book.state) is None


def test_a_release_and_a_way_back_that_wait_at_once_are_two_questions_in_words_and_addresses() -> None:
    rule = "- {when: {act: rollback}, chain: [{name: compliance, approvers: role:compliance}]}\n    "
    book = Book(
        KEY, bank(POLICY.replace("- when: {environment: prod, risk", f"{rule}- when: {{environment: prod, risk"))
    )
    book.request()
    release = waiting(book)
    book.key = replace(KEY, act="rollback")
    book.request(run="r2")
    back = waiting(book)
    frame = Frame(Words(), "/mcp", book.now, "0", "mlflow_default")
    html = render_inbox(frame, [release, back], "cora")
    assert "May it go to prod?" in html
    assert "May prod go back to it?" in html
    assert question_address(frame, release) != question_address(frame, back)
    assert find_question([release, back], "prod", "rollback") is back
    assert find_question([back, release], "prod", "release") is release
    assert find_question([release, back], "test", "") is None
