"""When somebody is reminded, asked instead, or alerted. Time alone never approves anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_mcp.core.approvals.policy import Timer, TimerAction
from airflow_mcp.core.approvals.state import NodeState, RequestState

LONGEST_WAIT = timedelta(hours=24)
"""A seat looks at least this often for a newer request, another policy, a delegation."""
VERBS: Mapping[TimerAction, str] = {"remind": "reminded", "escalate": "escalated", "alert": "alerted"}


@dataclass(frozen=True)
class DueTimer:
    """A timer of the open node that the log does not have."""

    node: str
    timer: Timer
    at: datetime
    """When it is due."""
    to: tuple[str, ...]
    """The people it is for."""

    @property
    def action(self) -> str:
        """Action of its event."""
        return f"approval.{VERBS[self.timer.do]}"


def due_timers(state: RequestState, now: datetime) -> list[DueTimer]:
    """Return the timers of the open node that are due, the earliest first.

    :param state: where the request stands.
    :param now: the time.
    """
    return [timer for timer in coming_timers(state) if timer.at <= now]


def coming_timers(state: RequestState) -> list[DueTimer]:
    """Return the timers of the open node that the log does not have, due or not, the earliest first.

    :param state: where the request stands.
    """
    node = state.open_node
    if node is None or state.electorate is None:
        return []
    electorate = state.electorate
    absent = electorate.absent(node.node)
    found = []
    for timer, at in _times(node):
        if (node.node.name, VERBS[timer.do], timer.after) not in state.fired:
            to = electorate.policy.people(timer.to, absent) if timer.to else absent
            found.append(DueTimer(node.node.name, timer, at, to))
    return sorted(found, key=lambda due: due.at)


def next_look(state: RequestState, now: datetime) -> timedelta:
    """Return how long a seat may wait for an answer before it has to look again.

    :param state: where the request stands.
    :param now: the time.
    """
    node = state.open_node
    times = [now + LONGEST_WAIT]
    if node is not None:
        times += [at for _, at in _times(node) if at > now]
        if (end := node.expires_at) is not None and end > now:
            times.append(end)
    return min(times) - now


def _times(node: NodeState) -> list[tuple[Timer, datetime]]:
    opened_at = node.opened_at
    if opened_at is None:
        return []
    return [(timer, opened_at + timedelta(seconds=timer.seconds)) for timer in node.node.timers]
