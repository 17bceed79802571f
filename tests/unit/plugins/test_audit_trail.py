"""The audit trail on the page: a look is recorded before anything is shown, on a real log in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core.audit.log import LOG, AuditLog
from airflow_mcp.plugins.audit_trail import KEPT_SECONDS, AuditTrail
from tests.support.audit_log import Logs, moved, sqlite_logs


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    """A log with three moves of the model fraud and one of another model."""
    found = sqlite_logs(tmp_path)
    with closing(open_log(found.owner)) as opened:
        for event in (moved(1), moved(2), moved(3), moved(1, subject="model:churn")):
            opened.append(event)
    return found


@pytest.fixture
def log(logs: Logs) -> Iterator[AuditLog]:
    with closing(open_log(logs.owner)) as opened:
        yield opened


def looks(log: AuditLog) -> list[tuple[str, str]]:
    """Return who looked at which model, as the log has it."""
    records = log.facts(LOG, "audit.read")
    return [(each.event["actor"]["name"], each.event["new"]["model"]) for each in records]


def test_a_person_sees_the_latest_first_and_the_log_says_who_looked(log: AuditLog) -> None:
    trail = AuditTrail(lambda: log, "prod").read("fraud", "olga")
    assert trail is not None
    lines = trail.lines
    assert [line.action for line in lines] == ["registry.moved"] * 3
    assert [line.seq for line in lines] == sorted((line.seq for line in lines), reverse=True)
    assert looks(log) == [("olga", "fraud")]
    (record,) = log.facts(LOG, "audit.read")
    assert (record.event["environment"], record.event["actor"]["authenticated"]) == ("prod", True)


def test_one_look_a_minute_is_recorded_for_each_person_and_model(log: AuditLog) -> None:
    now = 0.0
    trail = AuditTrail(lambda: log, clock=lambda: now)
    for account, model in (("olga", "fraud"), ("olga", "fraud"), ("vera", "fraud"), ("olga", "churn")):
        trail.read(model, account)
    assert looks(log) == [("olga", "fraud"), ("vera", "fraud"), ("olga", "churn")]
    now = KEPT_SECONDS
    trail.read("fraud", "olga")
    assert looks(log)[3:] == [("olga", "fraud")]


def test_without_a_log_there_is_no_trail() -> None:
    assert AuditTrail().read("fraud", "olga") is None
