"""The approvals of a release in the audit log, and the guard's question whether they are enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mcp.core.approvals.events import (
    DELEGATIONS,
    NOBODY,
    REQUESTED,
    Answer,
    Asked,
    ReleaseKey,
    act_of,
    answered,
    noted,
    read_vote,
    requested,
)
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import ApprovalFacts, RequestState, declared_risk, state_of
from airflow_mcp.core.approvals.votes import JudgedVote
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.moves import MOVED, model_subject
from airflow_mcp.core.audit.record import Record, format_time
from airflow_mcp.exceptions import ApprovalMissingError
from airflow_mcp.registry.guard import Grant

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditFacts, AuditLog
    from airflow_mcp.core.identity import TaskKey
    from airflow_mcp.registry.guard import Question


class HumanAnswers(Protocol):
    """What knows what people answered: Airflow."""

    def why_not(self, answer: Answer) -> str:
        """Return why an answer of the log is not one of Airflow's; empty when it is."""


def read_facts(log: AuditFacts, key: ReleaseKey, delegations: Sequence[Record] | None = None) -> ApprovalFacts:
    """Return what the log knows about a release.

    :param log: the log.
    :param key: the release.
    :param delegations: records of delegations, when they were read already.
    :raises AuditUnavailableError: when the log does not answer.
    """
    return ApprovalFacts(
        log.facts(model_subject(key.model_name), REQUESTED),
        log.facts(key.subject, "approval."),
        log.facts(DELEGATIONS, "delegation.") if delegations is None else delegations,
        log.facts(model_subject(key.model_name), MOVED) if key.act == "rollback" else (),
    )


def read_states(
    log: AuditFacts, keys: Iterable[ReleaseKey], policy: ApprovalPolicy, now: datetime
) -> list[RequestState]:
    """Return where several releases stand; delegations are read once.

    :param log: the log.
    :param keys: the releases.
    :param policy: the policy in force.
    :param now: the time.
    :raises AuditUnavailableError: when the log does not answer.
    """
    delegations = log.facts(DELEGATIONS, "delegation.")
    return [state_of(read_facts(log, key, delegations), key, policy, now) for key in keys]


class ReleaseBook:
    """The request for one release in the audit log: what seats read and write.

    :param log: the log.
    :param key: the release.
    :param policy: the policy in force.
    """

    def __init__(self, log: AuditLog, key: ReleaseKey, policy: ApprovalPolicy) -> None:
        self._log, self._key, self._policy = log, key, policy

    def state(self, now: datetime) -> RequestState:
        """Return where the request stands.

        :param now: the time.
        :raises AuditUnavailableError: when the log does not answer.
        """
        return state_of(read_facts(self._log, self._key), self._key, self._policy, now)

    def ask(self, asked: Asked, actor: AuditActor, task: TaskKey) -> bool:
        """Record that somebody asks; return whether that is new.

        :param asked: the facts.
        :param actor: who acts.
        :param task: task instance that asks.
        """
        return self._log.append(requested(self._key, asked, actor, task)).is_new

    def take(self, answers: Iterable[Answer], now: datetime) -> list[JudgedVote]:
        """Record the answers that the log does not have, and return how each was judged.

        :param answers: answers to a task, as Airflow has them.
        :param now: the time.
        """
        known = {
            (vote.answer.task, vote.answer.responded_at, vote.answer.account)
            for vote in map(read_vote, self._log.facts(self._key.subject, "approval.answered"))
        }
        taken = []
        for answer in answers:
            if (answer.task, answer.responded_at, answer.account) in known:
                continue
            judged = self._judged(answer, now)
            via = f"{answer.task.dag_id} {answer.task.dag_run_id}"
            actor = AuditActor("user", answer.account, id=answer.account_id, via=via, authenticated=True)
            self._log.append(answered(self._key, answer, actor, counts=judged.counts, why=judged.why))
            taken.append(judged)
        return taken

    def note(self, verb: str, state: RequestState, said: Mapping[str, Any]) -> bool:
        """Record what happened to the request; return whether that is new.

        :param verb: such as ``granted``.
        :param state: where the request stands.
        :param said: JSON values.
        """
        request = state.request.seq if state.request else 0
        return self._log.append(noted(f"approval.{verb}", self._key, {"request": request, **said})).is_new

    def withdraw(self, state: RequestState, actor: AuditActor, reason: str) -> bool:
        """Record that somebody ends the request; return whether that is new.

        :param state: where the request stands.
        :param actor: who ends it.
        :param reason: why.
        """
        said = {"request": state.request.seq if state.request else 0}
        return self._log.append(noted("approval.withdrawn", self._key, said, actor, reason)).is_new

    def supersede_others(self, state: RequestState, now: datetime) -> None:
        """Record that granted requests of other passports of the model are over, once this one is granted.

        :param state: where this request stands.
        :param now: the time.
        """
        request = state.request
        version = request.version if request else ""
        asked = self._log.facts(model_subject(self._key.model_name), REQUESTED)
        others = {
            record.event["new"]["passport"]
            for record in asked
            if record.event["environment"] == self._key.environment
            and act_of(record) == self._key.act
            and request
            and record.seq < request.seq
        }
        for passport in sorted(others - {self._key.passport}):
            other = ReleaseBook(self._log, replace(self._key, passport=passport), self._policy)
            older = other.state(now)
            if older.status == "granted":
                other.note("superseded", older, {"why": f"version {version} was approved"})

    def _judged(self, answer: Answer, now: datetime) -> JudgedVote:
        """Judge an answer as if it were the next record of the log."""
        facts = read_facts(self._log, self._key)
        event = answered(self._key, answer, NOBODY, counts=False, why="")
        seq = max((record.seq for record in (*facts.requests, *facts.passport)), default=0) + 1
        record = Record(seq, format_time(now), "", json.loads(event.text), "")
        state = state_of(replace(facts, passport=(*facts.passport, record)), self._key, self._policy, now)
        found = [vote for vote in state.votes if vote.vote.seq == seq]
        return found[0] if found else JudgedVote(read_vote(record), "", "", False, "nobody has asked")


class ReleaseApprovals:
    """Answers the guard: the chain of the policy in force is complete, and Airflow says so too.

    :param open_answers: opens what knows what people answered.
    :param now: returns the time.
    """

    def __init__(
        self,
        open_answers: Callable[[], AbstractContextManager[HumanAnswers]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._open_answers, self._now = open_answers, now

    def granted(self, question: Question, log: AuditLog) -> Grant:
        """Return the approvals of a release or a rollback, each checked again where it was given.

        :param question: what is about to be done.
        :param log: the audit log.
        :raises ApprovalMissingError: when an approval is missing, or Airflow does not know it.
        :raises AirflowApiError: when Airflow does not answer.
        :raises AuditUnavailableError: when the log does not answer.
        """
        policy = ApprovalPolicy.of(question.policy.policy)
        if not policy.asks(question.act):
            return Grant()
        if not question.passport:
            raise ApprovalMissingError("approvals are bound to a passport, and the version has none")
        key = ReleaseKey(question.model_name, question.environment, question.passport, question.act)
        facts = read_facts(log, key)
        state = state_of(facts, key, policy, self._now())
        if state.request is None:
            risk = policy.risk_of(key.model_name, declared_risk(facts, key))
            if not policy.rule_for(key.environment, risk, key.model_name, key.act).chain:
                return Grant()
        if state.status != "granted":
            what = "Release it" if key.act == "release" else "Roll back"
            raise ApprovalMissingError(f"{described(state)}. {what} with the Dag that asks for approvals")
        self._require_attested(state)
        return Grant(
            tuple(vote.vote.seq for vote in state.approvals), tuple(dict.fromkeys(v.person for v in state.approvals))
        )

    def _require_attested(self, state: RequestState) -> None:
        """Check every vote in Airflow: an event of the log can be forged by whoever may append it.

        :raises ApprovalMissingError: naming every vote that Airflow does not know.
        """
        if not state.approvals:
            return
        with self._open_answers() as answers:
            doubts = [
                f"seq {vote.vote.seq} says that {vote.vote.answer.account} approved at {vote.node}, and {why}"
                for vote in state.approvals
                if (why := answers.why_not(vote.vote.answer))
            ]
        if doubts:
            raise ApprovalMissingError(f"{'; '.join(doubts)}. Only what Airflow knows counts")


def described(state: RequestState) -> str:
    """Return one line about where a request stands."""
    what = f"passport {state.key.passport} is not approved for "
    what += state.key.environment if state.key.act == "release" else f"a rollback in {state.key.environment}"
    node = state.open_node
    if node is not None:
        people = ", ".join(node.node.approvers)
        return f"{what}: it waits at {node.node.name} for {node.missing} of {people}"
    if state.status == "unknown":
        return f"{what}: nobody has asked"
    return f"{what}: it is {state.status}{f', {state.reason}' if state.reason else ''}"
