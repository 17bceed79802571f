"""What one event of the audit log says: who did what to what, in a form that has one spelling only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.core.credential_shapes import has_credential_shape
from airflow_mcp.core.identity import TaskKey, canonical_json, fingerprint
from airflow_mcp.exceptions import InvalidArgumentError

SCHEMA = "airflow_mcp/audit_event/1"
MAX_EVENT_BYTES = 64 * 1024
"""64 KiB: an event names evidence by its hash and holds none."""
ID_LENGTH = 32
ActorKind = Literal["user", "schedule", "asset", "cli", "system"]
_BY_AREA: Mapping[str, tuple[str, ...]] = {
    "log": ("created",),
    "policy": ("proposed", "activated"),
    "access": ("refused",),
    "version": ("registered", "copied"),
    "gate": ("decided",),
    "load_check": ("decided",),
    "drift": ("decided",),
    "quality": ("decided",),
    "retrain": ("decided",),
    "approval": (
        *("requested", "asked", "answered", "reminded", "escalated", "alerted"),
        *("granted", "rejected", "expired", "superseded", "withdrawn"),
    ),
    "delegation": ("given", "withdrawn"),
    "passport": ("issued", "refused"),
    "registry": (
        *("move_intended", "moved", "move_abandoned", "stage_intended", "stage_moved"),
        "foreign_move_found",
    ),
    "promotion": ("refused",),
    "rollout": ("step_intended", "step_taken"),
    "deployment": ("intended", "ended"),
    "serving": ("started", "refused", "swapped", "missed"),
    "audit": ("read", "exported", "checkpointed", "anchor_failed", "verified", "reconciled", "erased"),
}
ACTIONS = frozenset(f"{area}.{verb}" for area, verbs in _BY_AREA.items() for verb in verbs)
"""The closed list of what an event can say happened."""
READS = frozenset({"audit.read", "audit.exported"})
"""Events that are written by the read that they record, and by nothing else."""


@dataclass(frozen=True)
class AuditActor:
    """Who acted."""

    kind: ActorKind
    name: str
    """Account name of a person; ``<dag>.<task>`` where no person is known."""
    id: str = ""
    """ID of the account in its auth manager, when it is known."""
    via: str = ""
    """Through what: a task with its Dag run, or the command line."""
    authenticated: bool = False
    """Whether a server checked who it is; the name of an operating system's user is not checked."""
    on_behalf_of: str = ""
    """Whom a service acted for."""


@dataclass(frozen=True)
class AuditEvent:
    """One event. Equal events have equal text, so appending one twice adds nothing.

    It holds no clock of the machine that writes it: a retry would say something else under the same ID. The store adds
    the time.

    :raises InvalidArgumentError: when a field has a value that the log does not accept.
    """

    id: str
    """Idempotency key, see :func:`event_id`."""
    action: str
    """One of :data:`ACTIONS`."""
    subject: str
    """What it is about: ``model:<name>``, ``version:<name>/<number>``, ``log``, ``dagrun:<dag>/<run>``."""
    environment: str
    actor: AuditActor
    task: TaskKey | None = None
    """The task instance, without its try number."""
    old: Mapping[str, Any] | None = None
    new: Mapping[str, Any] | None = None
    reason: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name to ``sha256:`` of the evidence that the decision rests on."""
    refs: tuple[int, ...] = ()
    """Sequence numbers of earlier records that it relies on."""
    late: bool = False
    """Whether it was added afterwards, and not when it happened."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.action not in ACTIONS:
            raise InvalidArgumentError(f"action must be one of {', '.join(sorted(ACTIONS))}; got {self.action!r}")
        if self.environment not in ENVIRONMENTS:
            raise InvalidArgumentError(f"environment must be one of dev, test, prod; got {self.environment!r}")
        if len(self.id) != ID_LENGTH or set(self.id) - set("0123456789abcdef"):
            raise InvalidArgumentError(f"id must be {ID_LENGTH} hexadecimal characters; got {self.id!r}")
        if not self.subject:
            raise InvalidArgumentError("subject must be text that is not empty; got ''")
        _require_storable(self._fields, "event")
        if (size := len(self.text.encode())) > MAX_EVENT_BYTES:
            raise InvalidArgumentError(
                f"an event has at most {MAX_EVENT_BYTES} bytes, and this one has {size}: {self.action} of "
                f"{self.subject}. Nothing was recorded; store large evidence as an artifact and name its hash"
            )

    @cached_property
    def text(self) -> str:
        """The event as canonical JSON, which is what the log keeps."""
        return canonical_json(self._fields)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "id": self.id,
            "action": self.action,
            "subject": self.subject,
            "environment": self.environment,
            "actor": asdict(self.actor),
            "task": asdict(self.task) if self.task else None,
            "old": self.old,
            "new": self.new,
            "reason": self.reason,
            "inputs": dict(self.inputs),
            "refs": list(self.refs),
            "late": self.late,
        }


def event_id(action: str, subject: str, *what: Any) -> str:
    """Return the ID of an event: equal on every retry.

    :param action: its action.
    :param subject: its subject.
    :param what: JSON values that make it this event and no other.
    """
    return fingerprint([action, subject, *what])[:ID_LENGTH]


def model_of(event: AuditEvent) -> str | None:
    """Return the registered model that an event is about, by its subject or its new value; None when it is about none.

    :param event: the event.
    """
    kind, _, name = event.subject.partition(":")
    if kind == "model":
        return name
    if kind == "version":
        return name.rpartition("/")[0]
    # A look at the events of a model is about the log.
    return None if event.subject == "log" else (event.new or {}).get("model")


def without_credentials(text: str) -> str:
    """Return a text, or a note in its place when something in it has the shape of a credential."""
    return "(not recorded: it has the shape of a credential)" if has_credential_shape(text) else text


def _require_storable(value: Any, place: str) -> None:
    """Check that a value has one spelling as JSON, that every database keeps it, and that it is not a credential.

    :raises InvalidArgumentError: naming the place.
    """
    match value:
        case str():
            if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                raise InvalidArgumentError(f"{place} must be text without NUL and lone surrogates; got {value!r}")
            if has_credential_shape(value):
                raise InvalidArgumentError(
                    f"{place} must not hold a credential; got a value that is not shown. Nothing was recorded"
                )
        case None | bool() | int():
            pass
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str) or not key.isascii():
                    raise InvalidArgumentError(f"{place} must have keys of ASCII text; got {key!r}")
                _require_storable(item, f"{place}.{key}")
        case list() | tuple():
            for number, item in enumerate(value):
                _require_storable(item, f"{place}[{number}]")
        case _:
            raise InvalidArgumentError(
                f"{place} must be text, a whole number, true, false, null, a list or a mapping; got {value!r}. "
                "Write other numbers as text, because they have more than one spelling"
            )
