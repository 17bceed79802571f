"""The policy in the audit log: its text is proposed by one person, and activated by another.

The text in force is the one that the last ``policy.activated`` event names; no file has to be equal on every worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_mcp.core.access.policy import GovernancePolicy, policy_from_text
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.audit.log import AuditFacts
from airflow_mcp.core.audit.record import Record
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import AccessRefusedError, EvidenceError, InvalidArgumentError

SUBJECT = "policy"
"""Subject of activations; a proposed text has the subject ``policy:<hex of its digest>``."""
PROPOSED, ACTIVATED = "policy.proposed", "policy.activated"
_PART = 24_000
"""Characters of a text in one event, which has at most 64 KiB: JSON writes a quotation mark in a text as two."""
_READ: dict[str, GovernancePolicy] = {}
"""Policies that this process has read, by the digest of their text; few, because a policy changes seldom."""


@dataclass(frozen=True)
class PolicyInForce:
    """The policy that counts now."""

    policy: GovernancePolicy
    digest: str
    seq: int
    """Record of its activation."""
    since: str = ""
    """When it was activated, by the clock of the log."""


@dataclass(frozen=True)
class Proposal:
    """A text that somebody has proposed."""

    policy: GovernancePolicy
    seqs: tuple[int, ...]
    """Records that hold its text."""
    by: tuple[str, ...]
    """Accounts that proposed it."""


def proposal_events(
    policy: GovernancePolicy, actor: AuditActor, environment: str, reason: str
) -> tuple[AuditEvent, ...]:
    """Return the events that propose a policy: one for each part of its text.

    :param policy: the policy.
    :param actor: who proposes it.
    :param environment: dev, test or prod.
    :param reason: why.
    """
    parts = [policy.text[start : start + _PART] for start in range(0, len(policy.text), _PART)]
    subject = _subject_of(policy.digest)
    return tuple(
        AuditEvent(
            id=event_id(PROPOSED, subject, number, actor.name, reason),
            action=PROPOSED,
            subject=subject,
            environment=environment,
            actor=actor,
            new={"digest": policy.digest, "part": number, "parts": len(parts), "text": part},
            reason=without_credentials(reason),
        )
        for number, part in enumerate(parts, 1)
    )


def activation_event(
    proposal: Proposal, before: PolicyInForce | None, actor: AuditActor, environment: str, reason: str
) -> AuditEvent:
    """Return the event that puts a proposed policy in force.

    :param proposal: the policy.
    :param before: the policy in force until now.
    :param actor: who activates it.
    :param environment: dev, test or prod.
    :param reason: why.
    """
    old = {"digest": before.digest, "seq": before.seq} if before else None
    new = {"digest": proposal.policy.digest}
    return AuditEvent(
        # With what was in force: the same text may be activated again later.
        id=event_id(ACTIVATED, SUBJECT, old, new),
        action=ACTIVATED,
        subject=SUBJECT,
        environment=environment,
        actor=actor,
        old=old,
        new={**new, "proposed_by": list(proposal.by)},
        reason=without_credentials(reason),
        refs=proposal.seqs,
    )


def read_in_force(log: AuditFacts) -> PolicyInForce | None:
    """Return the policy in force; None when none was ever activated.

    :param log: the log.
    :raises EvidenceError: when the log names a policy whose text it does not hold, or one that a single person made.
    :raises AuditUnavailableError: when the log does not answer.
    """
    activations = log.facts(SUBJECT, ACTIVATED, last=1)
    if not activations:
        return None
    last = activations[-1]
    digest = str((last.event["new"] or {}).get("digest"))
    policy = _READ.get(digest) or read_proposal(log, digest).policy
    proposers = {policy.spec.person_of(name) or name for name in last.event["new"].get("proposed_by", ())}
    activator = last.event["actor"]["name"]
    if not proposers - {policy.spec.person_of(activator) or activator}:
        raise EvidenceError(
            f"seq {last.seq} of the audit log activates policy {digest}, which {activator!r} alone proposed and "
            "activated. A policy needs two people; nothing was decided by it"
        )
    _READ[digest] = policy
    return PolicyInForce(policy, digest, last.seq, last.recorded_at)


def read_proposal(log: AuditFacts, digest: str) -> Proposal:
    """Return a policy that was proposed.

    :param log: the log.
    :param digest: ``sha256:`` of its text.
    :raises EvidenceError: when the log does not hold its text.
    """
    records = log.facts(_subject_of(digest), PROPOSED)
    text = _joined(records)
    if content_hash(text.encode()) != digest:
        raise EvidenceError(
            f"the audit log {log.name} does not hold the text of policy {digest}. Propose it with airflow-mcp policy "
            "propose; the digest is what that prints"
        )
    names = dict.fromkeys(str(record.event["actor"]["name"]) for record in records)
    return Proposal(policy_from_text(text, f"policy {digest}"), tuple(each.seq for each in records), tuple(names))


def require_second_person(policy: GovernancePolicy, proposed_by: Sequence[str], account: str) -> None:
    """Check that a policy is not activated by who proposed it, whatever account they use.

    :param policy: the policy that says which accounts are one person.
    :param proposed_by: accounts that proposed the text.
    :param account: account that activates it.
    :raises AccessRefusedError: when it is the same person.
    """
    person = policy.spec.person_of(account) or account
    others = {policy.spec.person_of(name) or name for name in proposed_by} - {person}
    if not others:
        raise AccessRefusedError(
            f"a policy must be activated by somebody else than who proposed it; got {person!r} for both. Nothing was "
            "activated"
        )


def _subject_of(digest: str) -> str:
    if not digest.startswith("sha256:"):
        raise InvalidArgumentError(f"digest must be sha256: and 64 hexadecimal characters; got {digest!r}")
    return f"{SUBJECT}:{digest.removeprefix('sha256:')}"


def _joined(records: Sequence[Record]) -> str:
    parts = {record.event["new"]["part"]: str(record.event["new"]["text"]) for record in records}
    return "".join(parts[number] for number in sorted(parts))
