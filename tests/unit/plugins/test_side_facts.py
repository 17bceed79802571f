"""What metrics say of retraining and approvals, from real ledgers and a real audit log in a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.audit.stores import open_log
from airflow_mcp.core.approvals.events import REQUESTED, ReleaseKey, noted
from airflow_mcp.core.retrain.documents import read_document
from airflow_mcp.plugins import side_facts
from airflow_mcp.plugins.side_facts import SideFactsReader, StoredState
from tests.support.metrics_world import (
    NOW,
    FixedIndex,
    FixedServices,
    audit_log_with_request,
    every_model,
    ledger_states,
    metrics_app,
    model_row,
    scraped,
)


def reader_of(stored: list[StoredState]) -> SideFactsReader:
    return SideFactsReader(lambda _: stored, lambda: None, "test")


def value(text: str, series: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(series)]
    return float(line.rsplit(" ", 1)[1])


async def test_everything_about_a_model_is_said_with_its_name(tmp_path: Path) -> None:
    text = await scraped(metrics_app(every_model(tmp_path)))
    assert value(text, 'airflow_mcp_retrain_needed_timestamp_seconds{model="fraud"}') == NOW.timestamp()
    assert value(text, 'airflow_mcp_retrain_paused{model="fraud"}') == 1
    assert value(text, 'airflow_mcp_retrain_stopped{model="fraud"}') == 0
    assert value(text, 'airflow_mcp_retrain_running{model="fraud"}') == 1
    assert value(text, 'airflow_mcp_retrain_ledger_decisions_total{model="fraud"}') == 2
    assert value(text, 'airflow_mcp_rollout_weight{model="fraud",role="canary"}') == 10
    assert value(text, 'airflow_mcp_rollout_weight{model="fraud",role="champion"}') == 90
    assert value(text, 'airflow_mcp_approval_waiting_timestamp_seconds{model="fraud",step="algorithm-lead"}') > 0
    assert value(text, 'airflow_mcp_source_up{source="airflow"}') == 1
    assert value(text, 'airflow_mcp_source_up{source="audit_log"}') == 1
    assert value(text, "airflow_mcp_last_sweep_timestamp_seconds") == NOW.timestamp()
    assert 'rollout_weight{model="churn"' not in text


async def test_the_text_is_made_again_when_the_models_or_the_minute_are_new() -> None:
    services = FixedServices(FixedIndex([model_row("fraud")]), reader_of([]))
    app = metrics_app(services)
    before = await scraped(app)
    services.side_facts = reader_of(ledger_states("fraud"))
    assert await scraped(app) == before, "within a minute nothing is read again"
    services.now += timedelta(minutes=2)
    assert "retrain_needed" in await scraped(app)
    services.index = FixedIndex([model_row("churn")])
    assert 'champion_version{model="churn"' in await scraped(app)


def test_a_ledger_that_has_not_changed_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = ledger_states("fraud")
    reader = reader_of(stored)
    first = reader.read([], NOW)
    parsed = []

    def read(*given: Any) -> Any:
        parsed.append(given)
        return read_document(*given)

    monkeypatch.setattr(side_facts, "read_document", read)
    assert reader.read([], NOW) == first
    assert parsed == []
    stored[0] = stored[0]._replace(updated_at=NOW + timedelta(seconds=1))
    reader.read([], NOW)
    assert len(parsed) > 0


def test_a_ledger_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    broken = [
        StoredState(9, "retrain_ledger", text, NOW) for text in ("{", "[]", "{}", '{"model_name": "x", "seq": "y"}')
    ]
    found = reader_of([*ledger_states("fraud"), *(each._replace(asset=n) for n, each in enumerate(broken, 10))])
    facts = found.read([], NOW)
    assert (list(facts.retraining), facts.answered) == (["fraud"], {"airflow": False})
    assert "asset 10 cannot be read" in caplog.text


def test_a_source_that_does_not_answer_is_marked(tmp_path: Path) -> None:
    def fails(_: tuple[str, ...]) -> list[StoredState]:
        raise OperationalError("select", {}, Exception("down"))

    lost = open_log(AuditSettings(sqlite_path=str(tmp_path / "nowhere" / "log.db")))
    found = SideFactsReader(fails, lambda: lost, "test").read(["fraud"], NOW)
    assert found.answered == {"airflow": False, "audit_log": False}
    assert reader_of([]).read([], NOW).answered == {"airflow": True}, "no log is no failure"


def test_approvals_of_another_environment_and_of_no_policy_are_not_asked_for(tmp_path: Path) -> None:
    log = audit_log_with_request(tmp_path, "fraud")
    assert list(SideFactsReader(lambda _: (), log, "test").read(["fraud", "churn"], NOW).approvals) == ["fraud"]
    assert SideFactsReader(lambda _: (), log, "prod").read(["fraud"], NOW).approvals == {}


async def test_the_latest_release_says_how_long_each_step_took(tmp_path: Path) -> None:
    log = audit_log_with_request(tmp_path, "fraud")
    opened = log()
    (asked,) = opened.facts("model:fraud", REQUESTED)
    key = ReleaseKey("fraud", "test", asked.event["new"]["passport"])
    opened.append(noted("approval.granted", key, {"request": asked.seq, "votes": []}))
    reader = SideFactsReader(lambda _: (), log, "test")
    (cycle,) = reader.read(["fraud", "churn"], NOW).cycles.values()
    assert list(cycle.stages) == ["approved"]
    text = await scraped(metrics_app(FixedServices(FixedIndex([model_row("fraud")]), reader)))
    assert value(text, 'airflow_mcp_release_step_seconds{model="fraud",step="approved"}') == cycle.stages["approved"]
