"""The latest events of this replica, numbered, for whoever keeps the audit log: nothing waits for them here."""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from airflow_mcp.core.document import dump_document
from airflow_mcp.core.serving.replica_events import ReplicaAction, ReplicaEvent, ReplicaEvents
from airflow_mcp.core.serving.versions import ServedVersion

MOST_EVENTS = 256
"""Events that are kept: a replica has a few each day, and they are pulled every hour."""
_LONGEST_REASON = 500


class EventRing:
    """The events of one replica since it started.

    :param clock: returns the time, with a time zone.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:100] or "replica"
        # Random: a container that starts again has the same name, and begins to count anew.
        self._replica = f"{host}-{uuid4().hex[:12]}"
        self._clock, self._number = clock, 0
        self._events: deque[ReplicaEvent] = deque(maxlen=MOST_EVENTS)
        self._refusals: dict[ServedVersion, str] = {}

    def started(self, key: ServedVersion) -> None:
        """Note that a version is ready."""
        self._refusals.pop(key, None)
        self._add("started", key)

    def refused(self, key: ServedVersion, reason: str) -> None:
        """Note that a version cannot be served; a repeated reason is not a further event."""
        if self._refusals.get(key) != reason:
            self._refusals[key] = reason
            self._add("refused", key, reason=reason[:_LONGEST_REASON])

    def swapped(self, key: ServedVersion, before: ServedVersion | None) -> None:
        """Note that a version answers as the champion from now on."""
        if key != before:
            self._add("swapped", key, before=before.version if before else "")

    def forget(self, key: ServedVersion) -> None:
        """Forget a version that is not held any more."""
        self._refusals.pop(key, None)

    def page(self) -> bytes:
        """Return all that is kept, as JSON."""
        return dump_document(ReplicaEvents(replica=self._replica, events=tuple(self._events)), indent=None).encode()

    def _add(self, action: ReplicaAction, key: ServedVersion, *, before: str = "", reason: str = "") -> None:
        self._number += 1
        fields = {"number": self._number, "at": self._clock(), "action": action, "before": before, "reason": reason}
        self._events.append(ReplicaEvent.model_validate({**fields, "model": key.model, "version": key.version}))
