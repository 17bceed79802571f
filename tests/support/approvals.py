"""Approvals for the tests: the policy of a bank, and a log in memory whose clock the test sets."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from airflow_mcp.core.access.in_force import activation_event, proposal_events, read_in_force, read_proposal
from airflow_mcp.core.access.policy import GovernancePolicy, read_policy
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.events import (
    APPROVE,
    Answer,
    Asked,
    Delegating,
    ReleaseKey,
    answered,
    delegated,
    noted,
    requested,
)
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.core.approvals.state import ApprovalFacts, RequestState, state_of
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.record import NO_RECORD, Record, read_record, record_line
from airflow_mcp.core.identity import TaskKey

START = datetime(2026, 11, 30, 9, tzinfo=UTC)
KEY = ReleaseKey("fraud", "prod", "sha256:" + "a" * 64)
POLICY = """
apiVersion: mcp.example.com/v1
kind: GovernancePolicy
metadata: {name: bank}
spec:
  people:
    lena: {accounts: [lena, lena-admin], superior: olga, ids: {fab: "12"}, gitEmails: [Lena@bank.example]}
    luis: {superior: olga}
    rita: {superior: olga}
    cora: {superior: omar}
    carl: {superior: omar}
    rosa: {}
    ruth: {}
    olga: {}
    omar: {}
    vera: {}
  roles:
    viewer: {permissions: ["model:*/read"]}
    algorithm-lead: {inherits: [viewer]}
    compliance: {inherits: [viewer]}
    risk-committee: {inherits: [viewer]}
    security: {inherits: [viewer], permissions: [audit/read]}
  bindings:
    - {role: algorithm-lead, people: [lena, luis, rita]}
    - {role: compliance, people: [cora, carl]}
    - {role: risk-committee, people: [rosa, ruth]}
    - {role: security, people: [vera]}
    - {role: viewer, people: [olga, omar]}
  riskFloor: [{models: ["fraud*"], risk: high}]
  approvals:
    - when: {environment: prod, risk: high}
      initiators: [trigger, clear, commit_author]
      chain:
        - name: algorithm-lead
          approvers: role:algorithm-lead
          quorum: 2
          timers: [{after: 72h, do: alert, to: role:security}]
        - {name: compliance, approvers: role:compliance, timers: [{after: 72h, do: alert}]}
        - name: risk-committee
          approvers: role:risk-committee
          timers: [{after: 72h, do: alert}]
          expires: {after: 14d}
    - when: {environment: prod}
      chain:
        - name: algorithm-lead
          approvers: role:algorithm-lead
          timers: [{after: 48h, do: escalate, to: superior}]
        - {name: compliance, approvers: role:compliance, timers: [{after: 48h, do: escalate, to: superior}]}
    - chain: []
  notify: [{on: [requested, granted], webhook: chat, format: slack}]
"""


def bank(text: str = POLICY) -> GovernancePolicy:
    """Return the policy, checked."""
    return read_policy(text.encode(), "policy.yaml", (chain_mistakes,))


def bank_of_test() -> GovernancePolicy:
    """Return a policy for the environment test, where two algorithm leads and then compliance approve low risk too."""
    low = "timers: [{after: 48h, do: escalate, to: superior}]\n        - {name: compliance"
    text = POLICY.replace("environment: prod", "environment: test")
    return bank(text.replace(low, f"quorum: 2\n          {low}"))


def put_in_force(log: AuditLog, policy: GovernancePolicy, environment: str = "test") -> None:
    """Activate a policy in place of the one in force: olga proposes it, omar activates it."""
    olga, omar = (AuditActor("user", name, authenticated=True) for name in ("olga", "omar"))
    for event in proposal_events(policy, olga, environment, "tests"):
        log.append(event)
    before, proposal = read_in_force(log), read_proposal(log, policy.digest)
    log.append(activation_event(proposal, before, omar, environment, "tests"))


class Book:
    """A log of approvals.

    :param key: the release.
    :param policy: the policy in force.
    """

    def __init__(self, key: ReleaseKey = KEY, policy: GovernancePolicy | None = None) -> None:
        self.key, self.policy = key, ApprovalPolicy.of(policy or bank())
        self.now = START
        self.records: list[Record] = []

    def wait(self, **time: float) -> None:
        """Let time pass."""
        self.now += timedelta(**time)

    def append(self, event: AuditEvent) -> Record:
        """Append an event, unless it is there."""
        for record in self.records:
            if record.event["id"] == event.id:
                assert read_record(record.line).event == record.event
                return record
        line = record_line(
            event.text, seq=len(self.records) + 1, prev=NO_RECORD, recorded_at=self.now, by="mcp_release"
        )
        self.records.append(read_record(line))
        return self.records[-1]

    def request(
        self,
        by: str = "dora",
        *,
        risk: str = "low",
        run: str = "r1",
        key: ReleaseKey | None = None,
        **more: Iterable[str],
    ) -> Record:
        """Ask for a release."""
        who = Requester(account=by, cleared_by=tuple(more.pop("cleared_by", ())))
        asked = Asked("7", risk, who, self.policy.digest, {kind: tuple(names) for kind, names in more.items()})
        task = TaskKey("fraud__release", run, "request")
        return self.append(requested(key or self.key, asked, AuditActor("user", by), task))

    def vote(
        self,
        account: str,
        node: str,
        option: str = APPROVE,
        *,
        at: datetime | None = None,
        question: str = "",
        task: str = "seat_1",
    ) -> Record:
        """Record what a person answered in Airflow."""
        answer = Answer(
            TaskKey("fraud__release", "r1", task),
            question or self.key.question(node),
            option,
            account,
            account,
            (at or self.now).isoformat(),
        )
        return self.append(answered(self.key, answer, AuditActor("user", account), counts=True, why=""))

    def note(self, verb: str, **said: object) -> Record:
        """Record what happened to the request."""
        return self.append(noted(f"approval.{verb}", self.key, said))

    def moved(self, action: str, champion: str) -> Record:
        """Record that the champion was moved."""
        subject, new = f"model:{self.key.model_name}", {"action": action, "champion": champion}
        event_of_move = event_id("registry.moved", subject, new, len(self.records))
        actor = AuditActor("user", "ada")
        return self.append(AuditEvent(event_of_move, "registry.moved", subject, self.key.environment, actor, new=new))

    def delegate(
        self, giver: str, receiver: str, *, days: float = 7, roles: Iterable[str] = (), by: str = ""
    ) -> Record:
        """Let somebody vote for somebody else, from now."""
        terms = Delegating(giver, receiver, tuple(roles), self.now, self.now + timedelta(days=days))
        actor = AuditActor("user", by or giver, authenticated=True)
        return self.append(delegated(terms, actor, self.key.environment))

    @property
    def facts(self) -> ApprovalFacts:
        """What a seat reads from the log."""
        by_action = {
            action: [r for r in self.records if r.event["action"].startswith(action)]
            for action in ("approval.", "delegation.", "registry.moved")
        }
        asked = [record for record in by_action["approval."] if record.event["action"] == "approval.requested"]
        mine = [record for record in by_action["approval."] if record.event["subject"] == self.key.subject]
        return ApprovalFacts(asked, mine, by_action["delegation."], by_action["registry.moved"])

    @property
    def state(self) -> RequestState:
        """Where the request stands now."""
        return state_of(self.facts, self.key, self.policy, self.now)
