"""The ring of a replica's events: every event has a number, a refusal is told once, and the oldest are dropped."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_mcp.core.document import parse_document
from airflow_mcp.core.serving.replica_events import ReplicaEvents
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.events import MOST_EVENTS, EventRing

NOW = datetime(2026, 11, 30, tzinfo=UTC)
ONE, TWO = ServedVersion("fraud", "1"), ServedVersion("fraud", "2")


def told(ring: EventRing) -> ReplicaEvents:
    return parse_document(ReplicaEvents, ring.page(), "the page")


def test_events_are_numbered_in_order() -> None:
    ring = EventRing(lambda: NOW)
    ring.started(ONE)
    ring.swapped(ONE, None)
    ring.swapped(TWO, ONE)
    ring.refused(ONE, "load check: it failed")
    found = told(ring).events
    assert [(each.number, each.action, each.version, each.before) for each in found] == [
        *((1, "started", "1", ""), (2, "swapped", "1", "")),
        *((3, "swapped", "2", "1"), (4, "refused", "1", "")),
    ]
    assert (found[3].reason, found[0].at) == ("load check: it failed", NOW)


def test_a_refusal_is_told_once_until_its_reason_changes_or_the_version_starts() -> None:
    ring = EventRing(lambda: NOW)
    for reason in ("a", "a", "b", "b"):
        ring.refused(ONE, reason)
    ring.started(ONE)
    ring.refused(ONE, "b")
    assert [each.reason for each in told(ring).events] == ["a", "b", "", "b"]


def test_a_version_that_answers_already_is_not_swapped() -> None:
    ring = EventRing(lambda: NOW)
    ring.swapped(ONE, ONE)
    assert told(ring).events == ()


def test_the_oldest_are_dropped_and_their_numbers_are_missed() -> None:
    ring = EventRing(lambda: NOW)
    for number in range(MOST_EVENTS + 3):
        ring.refused(ONE, str(number))
    found = told(ring).events
    assert (len(found), found[0].number, found[-1].number) == (MOST_EVENTS, 4, MOST_EVENTS + 3)


def test_a_start_is_another_replica() -> None:
    assert told(EventRing()).replica != told(EventRing()).replica
