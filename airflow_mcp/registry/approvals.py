"""The approvals of a release in the audit log, and the guard's question whether they are enough."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from airflow_mcp.core.approvals.events import DELEGATIONS, REQUESTED, Answer, ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import ApprovalFacts, RequestState, state_of
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.exceptions import ApprovalMissingError
from airflow_mcp.registry.guard import Grant

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.registry.guard import Question


class HumanAnswers(Protocol):
    """What knows what people answered: Airflow."""

    def why_not(self, answer: Answer) -> str:
        """Return why an answer of the log is not one of Airflow's; empty when it is."""


def read_facts(log: AuditLog, key: ReleaseKey) -> ApprovalFacts:
    """Return what the log knows about a release.

    :param log: the log.
    :param key: the release.
    :raises AuditUnavailableError: when the log does not answer.
    """
    return ApprovalFacts(
        log.facts(model_subject(key.model_name), REQUESTED),
        log.facts(key.subject, "approval."),
        log.facts(DELEGATIONS, "delegation."),
    )


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
        """Return the approvals of a release, each checked again where it was given.

        :param question: the release.
        :param log: the audit log.
        :raises ApprovalMissingError: when an approval is missing, or Airflow does not know it.
        :raises AirflowApiError: when Airflow does not answer.
        :raises AuditUnavailableError: when the log does not answer.
        """
        policy = ApprovalPolicy.of(question.policy.policy)
        if not any(rule.chain for rule in policy.rules):
            return Grant()
        if not question.passport:
            raise ApprovalMissingError("approvals are bound to a passport, and the version has none")
        key = ReleaseKey(question.model_name, question.environment, question.passport)
        state = state_of(read_facts(log, key), key, policy, self._now())
        if state.request is None:
            rule = policy.rule_for(key.environment, policy.risk_of(key.model_name, ""), key.model_name)
            if not rule.chain:
                return Grant()
        if state.status != "granted":
            raise ApprovalMissingError(f"{described(state)}. Release it with the Dag that asks for approvals")
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
    what = f"passport {state.key.passport} is not approved for {state.key.environment}"
    node = state.open_node
    if node is not None:
        people = ", ".join(node.node.approvers)
        return f"{what}: it waits at {node.node.name} for {node.missing} of {people}"
    if state.status == "unknown":
        return f"{what}: nobody has asked"
    return f"{what}: it is {state.status}{f', {state.reason}' if state.reason else ''}"
