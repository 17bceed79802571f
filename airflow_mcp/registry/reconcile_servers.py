"""Takes what replicas of a model server did into the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_mcp.core.audit.decisions import Decided, decision
from airflow_mcp.core.audit.event import AuditActor, AuditEvent
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.serving.replica_events import ReplicaEvent, ReplicaEvents
from airflow_mcp.exceptions import EvidenceError

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog


def replica_subject(replica: str) -> str:
    """Return the subject of events about one replica."""
    return f"replica:{replica}"


def missing_server_events(text: str, log: AuditLog, environment: str) -> Iterator[AuditEvent]:
    """Yield the events of one replica that the log lacks; a gap in their numbers is an event of its own.

    :param text: the replica's page of events.
    :param log: the log; it is only read.
    :param environment: dev, test or prod.
    :raises EvidenceError: when the page is not one of a model server.
    :raises AuditUnavailableError: when the log does not answer.
    """
    found = parse_document(ReplicaEvents, text, "the page of a model server")
    numbers = [each.number for each in found.events]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
        raise EvidenceError(f"the events of replica {found.replica} are not numbered one by one; none was recorded")
    known = log.facts(replica_subject(found.replica), "serving.", 1)
    last = int(known[-1].event["new"].get("number") or known[-1].event["new"].get("last") or 0) if known else 0
    if numbers and numbers[0] > last + 1:
        yield _missed(found.replica, last + 1, numbers[0] - 1, environment)
    for event in found.events:
        if event.number > last:
            yield _event(found.replica, event, environment)


def _event(replica: str, event: ReplicaEvent, environment: str) -> AuditEvent:
    new = event.model_dump(mode="json", exclude={"action", "reason"})
    # The time is the replica's: it is what the replica says, and stays the same whenever it is pulled.
    decided = Decided(key=(event.number,), new=new, reason=event.reason)
    return decision(f"serving.{event.action}", replica_subject(replica), environment, _actor(replica), decided)


def _missed(replica: str, first: int, last: int, environment: str) -> AuditEvent:
    reason = "the replica dropped these events before they were pulled; its log has them"
    decided = Decided(key=(first, last), new={"first": first, "last": last}, reason=reason)
    return decision("serving.missed", replica_subject(replica), environment, _actor(replica), decided)


def _actor(replica: str) -> AuditActor:
    return AuditActor("system", replica, via="model server")
