"""What the page shows of a release that waits for people, and why somebody may not answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from airflow_mcp.core.approvals.state import NodeState, RequestState
from airflow_mcp.core.approvals.timers import coming_timers
from airflow_mcp.core.approvals.votes import Electorate
from airflow_mcp.core.identity import TaskKey, fingerprint
from airflow_mcp.core.panel.refusal import Refusal


@dataclass(frozen=True)
class OpenQuestion:
    """A release that waits, and the task in Airflow that asks about it."""

    state: RequestState
    task: TaskKey | None
    """None: no task asks at the moment."""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.state.key.model_name

    @property
    def version(self) -> str:
        """Version that is to be released."""
        return self.state.request.version if self.state.request else ""

    @property
    def mark(self) -> str:
        """What is asked, so that an answer to another question than the one that was shown is refused."""
        node = self.state.open_node
        return fingerprint([self.state.key.question(node.node.name) if node else "", str(self.task)])[:32]

    @property
    def step(self) -> int:
        """Number of the open node, from 1; 0 when none is open."""
        node = self.state.open_node
        return self.state.nodes.index(node) + 1 if node is not None else 0

    @property
    def people(self) -> tuple[str, ...]:
        """Who is asked now."""
        node, electorate = self.state.open_node, self.state.electorate
        return electorate.awaited(node.node) if node is not None and electorate is not None else ()

    def due(self) -> datetime | None:
        """Return when something happens if nobody answers; None when nothing does."""
        node = self.state.open_node
        times = [timer.at for timer in coming_timers(self.state)]
        if node is not None and node.expires_at is not None:
            times.append(node.expires_at)
        return min(times, default=None)

    def is_late(self, now: datetime) -> bool:
        """Return whether somebody was reminded, asked instead or alerted already, or should have been.

        :param now: the time.
        """
        node, due = self.state.open_node, self.due()
        if node is None:
            return False
        return (due is not None and due <= now) or any(name == node.node.name for name, _, _ in self.state.fired)


def question_of(state: RequestState) -> OpenQuestion | None:
    """Return the question of a request that is open; None when it is not."""
    node = state.open_node
    return OpenQuestion(state, state.asked.get(node.node.name)) if node is not None else None


def find_question(questions: Iterable[OpenQuestion], environment: str, act: str) -> OpenQuestion | None:
    """Return the first question about one environment and one act; None when nobody is asked.

    :param questions: the open questions about one model.
    :param environment: name of the environment; empty for any.
    :param act: ``release`` or ``rollback``; empty for any.
    """
    for question in questions:
        key = question.state.key
        if environment in ("", key.environment) and act in ("", key.act):
            return question
    return None


def why_no_answer(question: OpenQuestion, account: str, now: datetime) -> Refusal | None:
    """Return why an account may not answer; None when its answer counts.

    :param question: the question.
    :param account: name of the account in Airflow.
    :param now: the time.
    """
    node, electorate = question.state.open_node, question.state.electorate
    if node is None or electorate is None or node.opened_at is None:
        return Refusal("Nobody is asked any more.")
    if question.task is None:
        return Refusal("No task in Airflow asks at the moment. Look again in a minute.")
    return _why_no_vote(question, node, electorate, account, now)


def _why_no_vote(
    question: OpenQuestion, node: NodeState, electorate: Electorate, account: str, now: datetime
) -> Refusal | None:
    person = electorate.policy.spec.person_of(account)
    if person is None:
        return Refusal("The policy does not know the account {account}.", {"account": account}, is_right=True)
    if person in electorate.initiators:
        text = "You asked for this release, or for a part of it, so others have to approve it."
        return Refusal(text, is_right=True)
    seats = electorate.seats(node.node, account, node.opened_at or now, now)
    if not seats:
        who = {"node": node.node.name, "people": ", ".join(node.node.approvers)}
        return Refusal("At the step {node} these may answer: {people}.", who, is_right=True)
    voted = {vote.person for vote in question.state.approvals}
    if all(seat.uses & voted for seat in seats):
        return Refusal("You have answered already; each person counts once.", is_right=True)
    return None
