"""The state of a request: computed from the events of the log, the policy in force and the time, and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.events import (
    REQUESTED,
    ReleaseKey,
    Vote,
    act_of,
    read_delegations,
    read_vote,
    time_of,
)
from airflow_mcp.core.approvals.policy import ApprovalPolicy, ApprovalRule, Node
from airflow_mcp.core.approvals.votes import Electorate, JudgedVote, initiators_of
from airflow_mcp.core.audit.moves import MOVED
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.identity import TaskKey

Status = Literal["unknown", "open", "granted", "rejected", "expired", "superseded", "withdrawn"]

_ENDS: Mapping[str, Status] = {"superseded": "superseded", "withdrawn": "withdrawn", "expired": "expired"}
"""Events that end a request, also one that is granted. A rejection follows from its vote."""


@dataclass(frozen=True)
class ApprovalFacts:
    """What the log knows about a request."""

    requests: Sequence[Record]
    """Records ``approval.requested`` of the model, of every passport."""
    passport: Sequence[Record]
    """Records ``approval.*`` of the passport."""
    delegations: Sequence[Record] = ()
    moves: Sequence[Record] = ()
    """Records ``registry.moved`` of the model; needed for a rollback only, which uses its approval up."""


@dataclass(frozen=True)
class Request:
    """A request: it begins when somebody asks, and a new one begins only after it has ended."""

    seq: int
    """Number of the record that began it."""
    requested_at: datetime
    version: str
    risk: str
    """Declared risk; the policy may raise it."""
    requester: Requester
    initiators: Mapping[str, tuple[str, ...]]
    """Kind to accounts, or to addresses of authors of commits."""
    policy: str
    """Digest of the policy that was in force when it was asked."""
    dag_id: str = ""
    dag_run_id: str = ""


@dataclass(frozen=True)
class NodeState:
    """One node of the chain."""

    node: Node
    opened_at: datetime | None = None
    """None: not open yet."""
    closed_at: datetime | None = None
    """When it had enough votes."""
    votes: tuple[JudgedVote, ...] = ()
    """The approvals that count."""

    @property
    def expires_at(self) -> datetime | None:
        """When the request is rejected if it still needs votes; None: never, or it is not open."""
        if self.opened_at is None or self.node.expires is None:
            return None
        return self.opened_at + timedelta(seconds=self.node.expires.seconds)

    @property
    def missing(self) -> int:
        """How many approvals it still needs."""
        return self.node.quorum - len(self.votes)


@dataclass(frozen=True)
class RequestState:
    """Where a request stands."""

    key: ReleaseKey
    status: Status
    reason: str = ""
    """Why it has ended."""
    request: Request | None = None
    """None: nobody has asked."""
    rule: ApprovalRule | None = None
    risk: str = ""
    """Risk by which the rule was chosen."""
    nodes: tuple[NodeState, ...] = ()
    votes: tuple[JudgedVote, ...] = ()
    """Every vote of this request in the order of the log, also those that do not count."""
    ended_at: datetime | None = None
    fired: frozenset[tuple[str, str, str]] = frozenset()
    """Timers that the log has: node, what was done, after how long."""
    asked: Mapping[str, TaskKey] = field(default_factory=dict)
    """Node to the task that asked people last."""
    electorate: Electorate | None = field(default=None, compare=False)

    @property
    def open_node(self) -> NodeState | None:
        """The node that people are asked about now; None when nobody is."""
        if self.status != "open":
            return None
        return next((state for state in self.nodes if state.opened_at and state.closed_at is None), None)

    @property
    def approvals(self) -> tuple[JudgedVote, ...]:
        """The approvals that count, in the order of the chain: what a guard checks again."""
        return tuple(vote for state in self.nodes for vote in state.votes)

    @property
    def seats(self) -> int:
        """How many approvals the chain needs."""
        return self.rule.seats if self.rule else 0


def state_of(facts: ApprovalFacts, key: ReleaseKey, policy: ApprovalPolicy, now: datetime) -> RequestState:
    """Return where the latest request for a passport stands.

    :param facts: what the log knows.
    :param key: what is asked for.
    :param policy: the policy in force: old votes are judged by it too.
    :param now: the time.
    :raises InvalidArgumentError: when the policy has no rule for this release.
    """
    found = RequestState(key, "unknown", "nobody has asked for this release")
    fold: _Fold | None = None
    for record in sorted(_of(facts, key), key=lambda each: each.seq):
        is_ours = record.event["new"].get("passport", key.passport) == key.passport
        if fold is not None:
            fold.pass_time(time_of(record))
        if is_ours and record.event["action"] == REQUESTED and (fold is None or fold.has_ended):
            fold = _Fold(key, policy, facts, record)
        elif fold is not None:
            fold.follow(record, is_ours=is_ours)
    if fold is None:
        return found
    fold.pass_time(now)
    return fold.result()


def declared_risk(facts: ApprovalFacts, key: ReleaseKey) -> str:
    """Return the risk that the latest request for a model declared; empty when there is none, which counts as high.

    A release has to be asked for, so only a rollback takes the risk from another request: that of the release.

    :param facts: what the log knows.
    :param key: what is about to be done.
    """
    if key.act == "release":
        return ""
    here = [record for record in facts.requests if record.event["environment"] == key.environment]
    return str(here[-1].event["new"]["risk"]) if here else ""


def _of(facts: ApprovalFacts, key: ReleaseKey) -> Iterable[Record]:
    for record in (*facts.requests, *facts.passport):
        new = record.event["new"] or {}
        is_here = record.event["environment"] == key.environment and new.get("model") == key.model_name
        if is_here and act_of(record) == key.act:
            yield record
    for record in facts.moves if key.act == "rollback" else ():
        if record.event["environment"] == key.environment and record.event["new"]["action"] == "rollback":
            yield record


class _Tally:
    """The votes of one request, judged by the policy in force.

    :param key: what is asked for.
    :param rule: the rule.
    :param risk: risk by which it was chosen.
    :param electorate: who may vote.
    :param opened_at: when the first node was opened.
    """

    def __init__(
        self, key: ReleaseKey, rule: ApprovalRule, risk: str, electorate: Electorate, opened_at: datetime
    ) -> None:
        self.rule, self.risk, self.electorate = rule, risk, electorate
        self.nodes = [NodeState(node) for node in rule.chain]
        self.judged: list[JudgedVote] = []
        self.rejected: JudgedVote | None = None
        self.closed_at = opened_at
        self._key = key
        if self.nodes:
            self.nodes[0] = replace(self.nodes[0], opened_at=opened_at)

    @property
    def open_node(self) -> NodeState | None:
        """The node that is asked now."""
        return next((state for state in self.nodes if state.closed_at is None), None)

    @property
    def is_complete(self) -> bool:
        """Whether every node has enough votes."""
        return self.open_node is None

    def count(self, record: Record) -> None:
        """Judge one vote, and close its node when that has enough."""
        vote = read_vote(record)
        name = self._key.node_of(vote.answer.question) or ""
        current = self.open_node
        judged = self._judge(vote, name, current)
        self.judged.append(judged)
        if judged.is_reject:
            self.rejected = self.rejected or judged
        elif judged.counts and current is not None:
            number = self.nodes.index(current)
            closed_at = vote.recorded_at if current.missing == 1 else None
            self.nodes[number] = replace(current, votes=(*current.votes, judged), closed_at=closed_at)
            if closed_at is not None:
                self.closed_at = closed_at
                if number + 1 < len(self.nodes):
                    self.nodes[number + 1] = replace(self.nodes[number + 1], opened_at=closed_at)

    def refuse(self, record: Record, why: str) -> None:
        """Take a vote that came too late."""
        vote = read_vote(record)
        person = self.electorate.policy.spec.person_of(vote.answer.account) or ""
        self.judged.append(JudgedVote(vote, self._key.node_of(vote.answer.question) or "", person, False, why))

    def _judge(self, vote: Vote, name: str, current: NodeState | None) -> JudgedVote:
        person = self.electorate.policy.spec.person_of(vote.answer.account) or ""
        if not name:
            return JudgedVote(
                vote, name, person, False, "the question was about another passport, model or environment"
            )
        if current is None or current.opened_at is None:
            return JudgedVote(vote, name, person, False, "every node had enough votes")
        if name != current.node.name:
            return JudgedVote(vote, name, person, False, f"{name} was not asked: {current.node.name} was")
        if (end := current.expires_at) is not None and vote.answer.time >= end:
            return JudgedVote(vote, name, person, False, f"{name} had expired")
        return self.electorate.judge(vote, current.node, current.opened_at, distinct=self.rule.distinct)


class _Fold:
    """One request, event by event.

    :param key: what is asked for.
    :param policy: the policy in force.
    :param facts: what the log knows.
    :param first: the record that begins the request.
    """

    def __init__(self, key: ReleaseKey, policy: ApprovalPolicy, facts: ApprovalFacts, first: Record) -> None:
        self._key, self._policy, self._facts = key, policy, facts
        self._first = first
        self._records = [first]
        self._votes: list[Record] = []
        self._fired: set[tuple[str, str, str]] = set()
        self._asked: dict[str, TaskKey] = {}
        self._status: Status = "open"
        self._reason = ""
        self._ended_at: datetime | None = None
        self._tally = self._count()
        self._recount()

    @property
    def has_ended(self) -> bool:
        """Whether asking again begins a new request."""
        return self._status not in ("open", "granted")

    def _join(self, record: Record) -> None:
        """Take a further run that asks for the same: its initiators count too."""
        self._records.append(record)
        self._recount()

    def _supersede(self, record: Record) -> None:
        """Take a newer request of another passport; one that is granted already stays so."""
        if self._status == "open":
            new = record.event["new"]
            self._end("superseded", time_of(record), f"a newer request asks for version {new['version']}")

    def follow(self, record: Record, *, is_ours: bool) -> None:
        """Take an event after the first one.

        :param record: the record.
        :param is_ours: whether it is about this passport; of others there are requests only.
        """
        action = record.event["action"]
        if action == MOVED:
            self._use_up(record)
        elif action != REQUESTED:
            self._take(record)
        elif is_ours:
            self._join(record)
        else:
            self._supersede(record)

    def _use_up(self, record: Record) -> None:
        """Take a rollback that was made: the next one needs a request of its own."""
        if not self.has_ended and record.event["new"]["champion"] == self._first.event["new"]["version"]:
            self._end("superseded", time_of(record), "the rollback was made, and another one needs another request")

    def _take(self, record: Record) -> None:
        """Take an event about this passport."""
        verb = record.event["action"].removeprefix("approval.")
        new = record.event["new"]
        if verb == "answered":
            if self.has_ended:
                self._tally.refuse(record, f"the request had ended: it is {self._status}")
            else:
                self._votes.append(record)
                self._recount()
        elif new.get("request") == self._first.seq:
            self._note(verb, record)

    def _note(self, verb: str, record: Record) -> None:
        """Take what a task or a person noted about this request."""
        new = record.event["new"]
        if verb in ("reminded", "escalated", "alerted"):
            self._fired.add((new["node"], verb, new["after"]))
        elif verb == "asked":
            self._asked[new["node"]] = TaskKey(new["dag"], new["run"], new["task"])
        elif verb in _ENDS and not self.has_ended:
            self._end(_ENDS[verb], time_of(record), record.event["reason"] or new.get("why", ""))

    def pass_time(self, now: datetime) -> None:
        """Let time pass: an open node may expire."""
        node = self._tally.open_node if self._status == "open" else None
        if node is None or node.node.expires is None or (end := node.expires_at) is None:
            return
        if now >= end and not self._answered_before(end):
            self._end("expired", end, f"{node.node.name} had too few answers within {node.node.expires.after}")

    def result(self) -> RequestState:
        """Return the state after all events."""
        tally = self._tally
        return RequestState(
            key=self._key,
            status=self._status,
            reason=self._reason,
            request=self._request(),
            rule=tally.rule,
            risk=tally.risk,
            nodes=tuple(tally.nodes),
            votes=tuple(tally.judged),
            ended_at=self._ended_at,
            fired=frozenset(self._fired),
            asked=dict(self._asked),
            electorate=tally.electorate,
        )

    def _answered_before(self, end: datetime) -> bool:
        """Whether an answer of the log was given in time and recorded after it: it is counted first."""
        return any(
            vote.answer.time < end and vote.recorded_at >= end
            for vote in map(read_vote, self._later_answers())
            if self._key.node_of(vote.answer.question)
        )

    def _later_answers(self) -> list[Record]:
        seen = {record.seq for record in self._votes}
        return [
            record
            for record in self._facts.passport
            if record.event["action"] == "approval.answered" and record.seq not in seen and record.seq > self._first.seq
        ]

    def _end(self, status: Status, time: datetime | None, reason: str) -> None:
        self._status, self._ended_at, self._reason = status, time, reason

    def _recount(self) -> None:
        self._tally = self._count()
        if self._tally.rejected is not None:
            vote = self._tally.rejected
            said = f": {vote.vote.answer.reason}" if vote.vote.answer.reason else ""
            self._end("rejected", vote.vote.recorded_at, f"{vote.person} rejected it at {vote.node}{said}")
        elif self._tally.is_complete:
            self._end("granted", self._tally.closed_at, "")
        else:
            self._end("open", None, "")

    def _request(self) -> Request:
        new, task = self._first.event["new"], self._records[-1].event["task"] or {}
        merged: dict[str, dict[str, None]] = {}
        for record in self._records:
            given = record.event["new"]
            for kind, names in {**given["initiators"], "trigger": [given["requester"]]}.items():
                merged.setdefault(kind, {}).update(dict.fromkeys(name for name in names if name))
        return Request(
            seq=self._first.seq,
            requested_at=time_of(self._first),
            version=new["version"],
            risk=new["risk"],
            requester=Requester(new["requester"], new["pipeline"], doubt=new["doubt"]),
            initiators={kind: tuple(names) for kind, names in merged.items()},
            policy=new["policy"],
            dag_id=task.get("dag_id", ""),
            dag_run_id=task.get("dag_run_id", ""),
        )

    def _count(self) -> _Tally:
        request = self._request()
        risk = self._policy.risk_of(self._key.model_name, request.risk)
        rule = self._policy.rule_for(self._key.environment, risk, self._key.model_name, self._key.act)
        initiators = initiators_of(self._policy, rule.initiators, request.initiators)
        delegations = read_delegations(self._facts.delegations, self._policy)
        tally = _Tally(self._key, rule, risk, Electorate(self._policy, initiators, delegations), request.requested_at)
        for record in self._votes:
            tally.count(record)
        return tally
