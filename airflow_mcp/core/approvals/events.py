"""The events of approvals in the audit log: what each says, and what is read from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy, ApprovedAct
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.exceptions import InvalidArgumentError

APPROVE, REJECT = "Approve", "Reject"
"""The options of a question."""
DELEGATIONS = "delegations"
"""Subject of the events about delegations."""
REQUESTED = "approval.requested"
NOBODY = AuditActor("system", "approvals")
"""Actor of what follows from earlier events, whichever task notices it first."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_QUESTION = re.compile(
    r"\[(?P<node>[^\[\]]+)\] (?P<model>.+) (?P<way>to|back in) (?P<environment>\w+): "
    r"passport (?P<passport>sha256:[0-9a-f]{64})"
)
_WAYS: Mapping[ApprovedAct, str] = {"release": "to", "rollback": "back in"}
"""How a question says what it is about."""


@dataclass(frozen=True)
class ReleaseKey:
    """What is asked for: one passport of one model, in one environment. Another passport is another request.

    To release a version and to roll back to it are two requests.
    """

    model_name: str
    environment: str
    passport: str
    """Digest of the passport, ``sha256:<hex>``."""
    act: ApprovedAct = RELEASE

    def __post_init__(self) -> None:
        """Check the digest.

        :raises InvalidArgumentError: when it is none.
        """
        if _DIGEST.fullmatch(self.passport) is None:
            raise InvalidArgumentError(f"passport must be sha256: and 64 hexadecimal characters; got {self.passport!r}")

    @property
    def subject(self) -> str:
        """Subject of the events about this passport."""
        return f"passport:{self.passport.removeprefix('sha256:')}"

    def question(self, node: str) -> str:
        """Return the headline that people are asked with; a vote is bound to every word of it.

        :param node: node of the chain.
        """
        return f"[{node}] {self.model_name} {_WAYS[self.act]} {self.environment}: passport {self.passport}"

    @classmethod
    def of_question(cls, question: str) -> tuple[ReleaseKey, str] | None:
        """Return the release and the node that a question is about; None when it is not a question of a seat.

        :param question: headline of the question.
        """
        found = _QUESTION.fullmatch(question)
        if found is None:
            return None
        (act,) = (act for act, way in _WAYS.items() if way == found["way"])
        return cls(found["model"], found["environment"], found["passport"], act), found["node"]

    def node_of(self, question: str) -> str | None:
        """Return the node that a question is for; None when it is about another release.

        :param question: headline of the question.
        """
        found = self.of_question(question)
        return found[1] if found and found[0] == self else None


@dataclass(frozen=True)
class Answer:
    """What a person answered to a question, as Airflow says."""

    task: TaskKey
    question: str
    """Headline of the question when it was answered."""
    option: str
    account: str
    """Name of the account."""
    account_id: str
    responded_at: str
    """Time of Airflow, ISO 8601."""
    reason: str = ""

    @property
    def time(self) -> datetime:
        """When it was answered."""
        return datetime.fromisoformat(self.responded_at)


@dataclass(frozen=True)
class Vote:
    """An answer that the log holds."""

    answer: Answer
    seq: int
    recorded_at: datetime


@dataclass(frozen=True)
class Asked:
    """The facts of a request."""

    version: str
    """Number of the model version."""
    risk: str
    """Declared risk; the policy may raise it."""
    requester: Requester
    """Who asked, and who cleared a task of the run."""
    policy: str
    """Digest of the policy that was in force."""
    initiators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further people: ``commit_author`` to addresses, ``owner`` to accounts."""


@dataclass(frozen=True)
class Delegating:
    """One person lets another one vote for some time."""

    giver: str
    receiver: str
    roles: tuple[str, ...]
    """Empty: all roles of the giver."""
    since: datetime
    until: datetime
    """The first moment that is not part of it."""


@dataclass(frozen=True)
class Delegation:
    """A delegation that the log holds."""

    terms: Delegating
    seq: int
    recorded_at: datetime
    withdrawn_at: datetime | None = None

    def is_valid(self, time: datetime) -> bool:
        """Whether it counts for an answer that was given at a time; one that was recorded later does not."""
        return (
            self.terms.since <= time < self.terms.until
            and self.recorded_at <= time
            and (self.withdrawn_at is None or time < self.withdrawn_at)
        )


def time_of(record: Record) -> datetime:
    """Return when a record was appended, by the clock of the store."""
    return datetime.fromisoformat(record.recorded_at)


def requested(key: ReleaseKey, asked: Asked, actor: AuditActor, task: TaskKey) -> AuditEvent:
    """Return the event of a request; the same task with the same facts gives the same event.

    :param key: what is asked for.
    :param asked: the facts.
    :param actor: who acts.
    :param task: task instance that asks.
    """
    who = asked.requester
    initiators = {kind: sorted(set(names)) for kind, names in asked.initiators.items()}
    new = {
        "passport": key.passport,
        "version": asked.version,
        "risk": asked.risk,
        "requester": who.account,
        "pipeline": who.pipeline,
        "doubt": who.doubt,
        "initiators": {**initiators, "clear": sorted(set(who.cleared_by))},
        "policy": asked.policy,
    }
    return _event(REQUESTED, key, new, actor, task)


def answered(key: ReleaseKey, answer: Answer, actor: AuditActor, *, counts: bool, why: str) -> AuditEvent:
    """Return the event of an answer.

    :param key: what was asked for.
    :param answer: the answer as Airflow says.
    :param actor: the person.
    :param counts: whether it counts by the policy in force at the time.
    :param why: why not, or through what.
    """
    new = {
        "option": answer.option,
        "account": answer.account,
        "account_id": answer.account_id,
        "responded_at": answer.responded_at,
        "question": answer.question,
        "counts": counts,
        "why": why,
    }
    action, what = "approval.answered", (answer.responded_at, answer.account)
    return AuditEvent(
        id=event_id(action, key.subject, *_of_task(answer.task), *what),
        action=action,
        subject=key.subject,
        environment=key.environment,
        actor=actor,
        task=answer.task,
        new={**_about(key), **new},
        reason=without_credentials(answer.reason),
    )


def noted(
    action: str, key: ReleaseKey, said: Mapping[str, Any], actor: AuditActor = NOBODY, reason: str = ""
) -> AuditEvent:
    """Return an event about a request that is in progress or has ended; what it says makes it this event.

    :param action: such as ``approval.reminded``.
    :param key: what was asked for.
    :param said: JSON values, with the number of the ``request`` that they are about.
    :param actor: who acts.
    :param reason: why, when somebody says why.
    """
    return _event(action, key, said, actor, reason=reason)


def delegated(new: Delegating, actor: AuditActor, environment: str, reason: str = "") -> AuditEvent:
    """Return the event of a delegation.

    :param new: who lets whom vote.
    :param actor: who gives it, as Airflow has checked.
    :param environment: dev, test or prod.
    :param reason: why.
    """
    said = {
        **asdict(new),
        "roles": sorted(set(new.roles)),
        "since": new.since.isoformat(),
        "until": new.until.isoformat(),
    }
    return _about_delegations("delegation.given", said, actor, environment, reason)


def undelegated(seq: int, actor: AuditActor, environment: str, reason: str = "") -> AuditEvent:
    """Return the event that ends a delegation.

    :param seq: number of the record that gave it.
    :param actor: who ends it.
    :param environment: dev, test or prod.
    :param reason: why.
    """
    return _about_delegations("delegation.withdrawn", {"given": seq}, actor, environment, reason)


def _about_delegations(
    action: str, said: Mapping[str, Any], actor: AuditActor, environment: str, reason: str
) -> AuditEvent:
    return AuditEvent(
        *(event_id(action, DELEGATIONS, said), action, DELEGATIONS, environment, actor),
        new=said,
        reason=without_credentials(reason),
    )


def _event(
    action: str,
    key: ReleaseKey,
    said: Mapping[str, Any],
    actor: AuditActor,
    task: TaskKey | None = None,
    *,
    reason: str = "",
) -> AuditEvent:
    subject = model_subject(key.model_name) if action == REQUESTED else key.subject
    new = {**_about(key), **said}
    return AuditEvent(
        id=event_id(action, subject, key.environment, new, *(_of_task(task) if task else ())),
        action=action,
        subject=subject,
        environment=key.environment,
        actor=actor,
        task=task,
        new=new,
        reason=without_credentials(reason),
    )


def _about(key: ReleaseKey) -> dict[str, str]:
    return {"model": key.model_name, **({} if key.act == RELEASE else {"act": key.act})}


def act_of(record: Record) -> ApprovedAct:
    """Return what an event of an approval is about; one that does not say is about a release."""
    act: ApprovedAct = (record.event["new"] or {}).get("act", RELEASE)
    return act


def _of_task(task: TaskKey) -> tuple[Any, ...]:
    return task.dag_id, task.dag_run_id, task.task_id, task.map_index


def latest_requested(records: Iterable[Record]) -> list[ReleaseKey]:
    """Return what was asked for last, of each model in each environment, the latest first.

    An older request of the same kind, model and environment is over: a newer one replaces it.

    :param records: records ``approval.requested``, oldest first.
    """
    found: dict[tuple[str, str, str], ReleaseKey] = {}
    for record in records:
        new, environment, act = record.event["new"], record.event["environment"], act_of(record)
        place = new["model"], environment, act
        found.pop(place, None)  # so that the latest stands last
        found[place] = ReleaseKey(new["model"], environment, new["passport"], act)
    return list(reversed(found.values()))


def read_vote(record: Record) -> Vote:
    """Return the answer that an event ``approval.answered`` holds."""
    event = record.event
    new, task = event["new"], event["task"]
    answer = Answer(
        TaskKey(**task),
        new["question"],
        new["option"],
        new["account"],
        new["account_id"],
        new["responded_at"],
        event["reason"],
    )
    return Vote(answer, record.seq, time_of(record))


def read_delegations(records: Iterable[Record], policy: ApprovalPolicy) -> tuple[Delegation, ...]:
    """Return the delegations that count: given by the person themselves, whose account Airflow has checked.

    :param records: records of :data:`DELEGATIONS`.
    :param policy: the policy in force, which knows whose account it is.
    """
    known = list(records)
    ends = {
        record.event["new"]["given"]: time_of(record)
        for record in known
        if record.event["action"] == "delegation.withdrawn"
    }
    found = []
    for record in known:
        actor, new = record.event["actor"], record.event["new"]
        if record.event["action"] != "delegation.given" or not actor["authenticated"]:
            continue
        since, until = (datetime.fromisoformat(new[name]) for name in ("since", "until"))
        terms = Delegating(new["giver"], new["receiver"], tuple(new["roles"]), since, until)
        if policy.spec.person_of(actor["name"]) == terms.giver != terms.receiver:
            found.append(Delegation(terms, record.seq, time_of(record), ends.get(record.seq)))
    return tuple(found)
