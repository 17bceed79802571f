"""What a replica of the model server tells about the versions that it started, refused and swapped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from airflow_mcp.core.document import Document

PATH_EVENTS = "/events"
"""Page of a model server with its latest events."""
ReplicaAction = Literal["started", "refused", "swapped"]


class ReplicaEvent(Document):
    """One event."""

    number: Annotated[int, Field(ge=1)]
    """Position among the events of this replica; none is left out."""
    at: AwareDatetime
    """Time of the replica."""
    action: ReplicaAction
    model: str
    version: str
    before: str = ""
    """For ``swapped``: the version that answered before; empty for none."""
    reason: str = ""
    """For ``refused``: why."""


class ReplicaEvents(Document):
    """The latest events of one replica."""

    schema_: Literal["airflow_mcp/replica_events/1"] = Field(default="airflow_mcp/replica_events/1", alias="schema")
    replica: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
    """Name of the replica since its last start: another start is another replica."""
    events: tuple[ReplicaEvent, ...] = ()
    """Oldest first; older ones were dropped when there were too many."""
