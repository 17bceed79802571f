"""What every store of the audit log can do, and the events that its own reads are recorded as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id
from airflow_mcp.core.audit.record import Record
from airflow_mcp.exceptions import InvalidArgumentError

MOST_LISTED = 1000
"""Records that one ``audit.read`` returns at most; reading more is an export."""
LOG = "log"
"""Subject of events about the log itself."""


@dataclass(frozen=True)
class Appended:
    """Where an event is in the log."""

    seq: int
    is_new: bool
    """False when the log had it already: a retry adds nothing."""


class AuditFacts(Protocol):
    """What decisions are made from: a log, or what was read of an export."""

    @property
    def name(self) -> str:
        """The store, for messages; without a credential."""

    def facts(self, subject: str, action_prefix: str = "", last: int = 0) -> list[Record]:
        """Return the records of exactly one subject, oldest first.

        :param subject: the subject.
        :param action_prefix: how their actions begin.
        :param last: only so many of the latest; 0 for all.
        """


class AuditLog(AuditFacts, Protocol):
    """An append-only log. Appending and reading fail with :class:`~airflow_mcp.exceptions.AuditUnavailableError` while
    the store does not answer; nothing is appended then, or a retry finds it.
    """

    @property
    def serves_prod(self) -> bool:
        """Whether those who append cannot change what is there."""

    def append(self, event: AuditEvent) -> Appended:
        """Append an event, unless the log has it.

        :raises AuditConflictError: when the log has another event of this ID.
        :raises InvalidArgumentError: when the login may not append it, or there is no log.
        """

    def erase(self, event: AuditEvent) -> Appended:
        """Record that the content of a record is erased, then erase it; its hash and its place stay.

        :param event: made by :func:`erasure`.
        :raises InvalidArgumentError: when there is no such record, or it must not be erased.
        """

    def read(self, event: AuditEvent) -> Iterator[bytes]:
        """Record a read, then yield the lines that were asked for, oldest first.

        :param event: made by :func:`listing` or :func:`export`; the filter is in it, so no other read is possible.
        """

    def close(self) -> None:
        """Close the connection; the log stays usable."""


def listing(
    actor: AuditActor, environment: str, *, limit: int, subject: str = "", action: str = "", model: str = ""
) -> AuditEvent:
    """Return the event of a person who looks at the latest records.

    :param actor: who reads.
    :param environment: dev, test or prod.
    :param limit: number of records, 1 to :data:`MOST_LISTED`.
    :param subject: only records of this subject; empty for all.
    :param action: only records whose action begins like this; empty for all.
    :param model: only records about this registered model, its versions and its servers; empty for all.
    """
    if not 1 <= limit <= MOST_LISTED:
        raise InvalidArgumentError(f"limit must be 1 to {MOST_LISTED}; got {limit}. For more, export the log")
    wanted = {"subject": subject, "action": action, "model": model, "limit": limit}
    return _read("audit.read", actor, environment, "", wanted)


def export(actor: AuditActor, environment: str, *, reason: str, after: int = 0) -> AuditEvent:
    """Return the event of somebody who reads the whole log, or its end.

    :param actor: who reads.
    :param environment: dev, test or prod.
    :param reason: what for.
    :param after: only records after this sequence number.
    """
    return _read("audit.exported", actor, environment, reason, {"after": after})


def erasure(actor: AuditActor, environment: str, *, seq: int, reason: str) -> AuditEvent:
    """Return the event of somebody who erases the content of a record.

    :param actor: who erases.
    :param environment: dev, test or prod.
    :param seq: sequence number of the record.
    :param reason: why, such as the number of the request; without personal data.
    """
    subject = f"record:{seq}"
    return AuditEvent(
        *(event_id("audit.erased", subject), "audit.erased", subject, environment, actor),
        new={"seq": seq},
        reason=reason,
    )


def _read(action: str, actor: AuditActor, environment: str, reason: str, wanted: dict[str, Any]) -> AuditEvent:
    # A random part: each read is an event of its own, also the same one a second time.
    name = event_id(action, LOG, uuid4().hex)
    return AuditEvent(name, action, LOG, environment, actor, new=wanted, reason=reason)


def about_log(action: str, actor: AuditActor, environment: str, said: dict[str, Any]) -> AuditEvent:
    """Return an event about the log; what it says makes it this event and no other.

    :param action: what happened, such as ``audit.verified``.
    :param actor: who acted.
    :param environment: dev, test or prod.
    :param said: JSON values.
    """
    return AuditEvent(event_id(action, LOG, said), action, LOG, environment, actor, new=said)


def created(actor: AuditActor, environment: str) -> AuditEvent:
    """Return the first event of a log, with the random ID that tells it from every other log."""
    log_id = uuid4().hex
    name = event_id("log.created", LOG, log_id)
    return AuditEvent(name, "log.created", LOG, environment, actor, new={"log_id": log_id})
