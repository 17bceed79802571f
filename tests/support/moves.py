"""A log of moves under a policy, in memory, for the tests."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.access.in_force import Proposal, activation_event, proposal_events
from airflow_mcp.core.access.policy import GovernancePolicy
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.conformity.moves import MoveCheck
from tests.support.approvals import KEY, Book

SUBJECT = f"model:{KEY.model_name}"
BY = AuditActor("user", "dora")


class Moves(Book):
    """A log in which a policy is in force and versions are promoted."""

    def activate(self, policy: GovernancePolicy, proposer: str = "vera", activator: str = "olga") -> Record:
        """Put a policy in force."""
        texts = [
            self.append(event) for event in proposal_events(policy, AuditActor("user", proposer), "prod", "because")
        ]
        proposal = Proposal(policy, tuple(text.seq for text in texts), (proposer,))
        self.active = self.append(
            activation_event(proposal, None, AuditActor("user", activator), "prod", f"because {len(self.records)}")
        )
        return self.active

    def issue(self) -> None:
        name = event_id("passport.issued", KEY.subject)
        self.append(AuditEvent(name, "passport.issued", KEY.subject, "prod", BY, new={"model": KEY.model_name}))

    def approved(self) -> tuple[int, ...]:
        """Let everybody approve, and return the votes."""
        self.request()
        votes = []
        for account, node in (
            *(("lena", "algorithm-lead"), ("luis", "algorithm-lead"), ("cora", "compliance")),
            ("rosa", "risk-committee"),
        ):
            self.wait(hours=1)
            votes.append(self.vote(account, node).seq)
        return tuple(votes)

    def intend(self, *refs: int, move: str = "m1", action: str = "promote", **changes: Any) -> Record:
        """Record the intent of a move."""
        new = {"move": move, "action": action, "champion": "7"}
        inputs = {"policy": self.policy.digest, "passport": KEY.passport}
        fields = {"new": new, "inputs": inputs, "refs": refs, **changes}
        name = event_id("registry.move_intended", SUBJECT, move, *refs)
        return self.append(AuditEvent(name, "registry.move_intended", SUBJECT, "prod", BY, **fields))

    def move(self, *refs: int, move: str = "m1", action: str = "promote", **changes: Any) -> Record:
        """Record the outcome of a move."""
        new = {"move": move, "action": action, "champion": "7", "at": "2026-12-24T00:00:00+00:00"}
        fields = {"new": new, "refs": refs, **changes}
        name = event_id("registry.moved", SUBJECT, move)
        return self.append(AuditEvent(name, "registry.moved", SUBJECT, "prod", BY, **fields))

    @property
    def check(self) -> MoveCheck:
        """What the check finds."""
        check = MoveCheck()
        lines = [record.line.encode() + b"\n" for record in self.records]
        assert list(check.watched(lines)) == lines
        return check

    @property
    def problems(self) -> list[str]:
        return [finding.problem for finding in self.check.findings]
