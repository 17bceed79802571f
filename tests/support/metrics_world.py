"""What Prometheus scrapes in the stack, as our own code writes it: all models, events of tasks, a model server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.events import Asked, ReleaseKey, requested
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.panel.facts import DriftCheck, ListRow
from airflow_mcp.core.panel.state import Situation, assess_state
from airflow_mcp.core.registry.standing import Concern, ConcernKind, Standing
from airflow_mcp.core.retrain.documents import (
    CONTROL_KEY,
    LEDGER_KEY,
    Control,
    Controls,
    Ledger,
    Observation,
    WindowVerdict,
    plain_document,
)
from airflow_mcp.core.retrain.ledger import decide, record, state_of
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import observe
from airflow_mcp.core.serving.traffic import Choice, TrafficPlan
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.metrics.catalogue import METRICS
from airflow_mcp.metrics.stats import publish
from airflow_mcp.metrics.tasks import Sample
from airflow_mcp.plugins.metrics import metrics
from airflow_mcp.plugins.registry_index import Snapshot
from airflow_mcp.plugins.side_facts import SideFactsReader, StoredState
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelPool
from tests.support.approvals import POLICY, bank, put_in_force
from tests.support.audit_log import sqlite_logs
from tests.support.statsd import airflow_client, exposition, open_wire

TOKEN = "scrape-me"
NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)


def model_row(
    name: str,
    *concerns: ConcernKind,
    canary: str = "",
    drift: str = "not_drifted",
    champion: str | None = "2",
    checked: datetime = NOW,
) -> ListRow:
    """Return what the list knows of a model.

    :param name: the model.
    :param concerns: what is wrong with it.
    :param canary: version that is rolled out; empty for none.
    :param drift: verdict of its last drift check.
    :param champion: its champion.
    :param checked: when it was checked for drift.
    """
    since = (NOW - timedelta(days=3)).isoformat()
    standing = Standing(name, champion, since, tuple(Concern(kind, f"it is {kind}") for kind in concerns))
    check = DriftCheck("r1", checked, "v1", 0.25, drift)
    state = assess_state(Situation(standing, canary, 10.0 if canary else 0.0))
    return ListRow(name, "risk-team", "high", "nightly", standing, state, "3", "passed", "1", 2, (check,))


def ledger_states(name: str, *, asset: int = 1, paused: bool = False) -> list[StoredState]:
    """Return the ledger of a model whose drift no training has answered, as Airflow's database keeps it.

    :param name: the model.
    :param asset: ID of the asset.
    :param paused: whether somebody has paused retraining.
    """
    policy = RetrainPolicy(cooldown=timedelta(days=1))
    ledger = Ledger(model_name=name)
    for hour in (0, 1):
        at = NOW + timedelta(hours=hour)
        observation = Observation(
            at=at,
            by="watch.retrain run",
            dag_id="train",
            data_version=f"v{hour}",
            data_hash=f"sha256:{hour}",
            window=WindowVerdict(name=f"w{hour}", verdict="drifted"),
            has_champion=True,
            champion_since=NOW - timedelta(hours=2),
        )
        answer = decide(observe(state_of(ledger), ledger.seq + 1, observation, policy), observation, policy, name)
        ledger = record(ledger, observation, policy, answer)
    stored = [StoredState(asset, LEDGER_KEY, json.dumps(plain_document(ledger)), NOW)]
    if paused:
        control = Control.model_validate({"seq": 1, "action": "pause", "by": "ann", "at": NOW})
        controls = Controls(model_name=name, seq=1, entries=(control,))
        stored.append(StoredState(asset, CONTROL_KEY, json.dumps(plain_document(controls)), NOW))
    return stored


def audit_log_with_request(folder: Path, name: str) -> Callable[[], AuditLog]:
    """Return what opens a log in which people are asked to approve a version of a model.

    :param folder: where the log is kept.
    :param name: the model.
    """
    owner = sqlite_logs(folder).owner
    log = open_log(owner)
    expiring = "quorum: 2\n          expires: {after: 14d}"
    put_in_force(log, bank(POLICY.replace("environment: prod", "environment: test").replace("quorum: 2", expiring)))
    key = ReleaseKey(name, "test", "sha256:" + "a" * 64)
    asked = Asked("7", "high", Requester(account="dora"), "sha256:" + "b" * 64)
    log.append(requested(key, asked, AuditActor("user", "dora"), TaskKey("release", "1", "request")))
    log.close()
    return lambda: open_log(owner)


class FixedIndex:
    """The last sweep, as it was.

    :param rows: what it has found.
    :param read_at: when.
    :param is_down: whether MLflow does not answer now.
    """

    def __init__(self, rows: Iterable[ListRow], read_at: datetime | None = NOW, *, is_down: bool = False) -> None:
        self.snapshot = Snapshot({row.name: row for row in rows}, read_at, is_down)

    async def current(self) -> Snapshot:
        """Return it."""
        return self.snapshot


class FixedServices:
    """What the route of metrics works with.

    :param index: the last sweep.
    :param side_facts: reads the rest.
    """

    server = "mlflow_default"
    metrics_token = TOKEN

    def __init__(self, index: FixedIndex, side_facts: SideFactsReader) -> None:
        self.index, self.side_facts, self.now = index, side_facts, NOW

    def clock(self) -> datetime:
        """Return the time."""
        return self.now


def metrics_app(services: Any) -> FastAPI:
    """Return an application with the route of metrics alone."""
    app = FastAPI()
    app.include_router(metrics(services))
    return app


async def scraped(app: FastAPI) -> str:
    """Return what Prometheus gets from an application."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test") as client:
        answer = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    return answer.text


def every_model(folder: Path) -> FixedServices:
    """Return services whose models have everything that metrics can say.

    :param folder: where the audit log is kept.
    """
    rows = [model_row("fraud", "no_way_back", canary="3"), model_row("churn", "moved_outside", drift="drifted")]
    reader = SideFactsReader(
        lambda _: ledger_states("fraud", paused=True), audit_log_with_request(folder, "fraud"), "test"
    )
    return FixedServices(FixedIndex(rows), reader)


def events_text(environment: pytest.MonkeyPatch) -> str:
    """Return every event of tasks, sent by Airflow's own client, as statsd_exporter shows it.

    :param environment: sets a variable of the environment.
    """
    with open_wire() as wire:
        wire.configure(environment)
        with airflow_client():
            publish(
                Sample(name, 1.0, {"model": "fraud", **dict.fromkeys(metric.tags, "x")})
                for name, metric in METRICS.items()
            )
        return exposition(wire.lines(len(METRICS)))


def model_server_text() -> str:
    """Return what a model server shows after requests to a champion and a canary, and one that it refused."""
    models = ServedModels(_no_pool)
    champion, canary = ServedVersion("fraud", "2"), ServedVersion("fraud", "3")
    pool = SimpleNamespace(ready=True, in_flight=0, restarts=0, report=SimpleNamespace(seconds=0.5))
    models.pools = dict.fromkeys((champion, canary), cast(ModelPool, pool))
    models.assign("fraud", TrafficPlan(champion, canary, 10.0))
    counted = Metrics(models)
    for choice in (Choice(champion, "champion"), Choice(canary, "canary")):
        made = Exchange({"headers": []}, 0.0)
        made.model, made.choice, made.status, made.seconds = "fraud", choice, 200, 0.003
        counted.record(made)
        counted.batch_observer(choice.version)(0.002, 1)
    refused = Exchange({"headers": []}, 0.0)
    refused.model, refused.code, refused.status = "fraud", "overloaded", 429
    counted.record(refused)
    return counted.exposition().decode()


def _no_pool(*_: Any) -> Any:
    raise AssertionError("nothing is loaded here")
