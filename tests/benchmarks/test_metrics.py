"""What metrics cost: events in each task, and the text of all models in Airflow's API server."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.metrics.stats import publish
from airflow_mcp.metrics.tasks import EndedTask, samples_of
from airflow_mcp.plugins.side_facts import SideFactsReader, StoredState
from tests.benchmarks.test_passport import cpu_microseconds
from tests.support.metrics_world import (
    NOW,
    FixedIndex,
    FixedServices,
    audit_log_with_request,
    ledger_states,
    metrics_app,
    model_row,
    scraped,
)
from tests.support.statsd import airflow_client, open_wire

pytestmark = pytest.mark.benchmark
MODELS = 1000
MOST_PER_TASK_MICROSECONDS = 2000.0
MOST_PER_SCRAPE_MILLISECONDS = 2000.0


def test_the_events_of_a_task_cost_less_than_two_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    task = EndedTask("EvaluationGateOperator", "fraud", "succeeded", {"verdict": "passed", "decision": "passed"})

    def report() -> None:
        publish(samples_of(["EvaluationGateOperator"], task))

    off = cpu_microseconds(report)
    with open_wire() as wire:
        wire.configure(monkeypatch)
        with airflow_client():
            on = cpu_microseconds(report)
    print(f"two events of a task: {off:.0f} us CPU when Airflow sends none, {on:.0f} us when it sends them")
    assert on < MOST_PER_TASK_MICROSECONDS


def _renamed(states: list[StoredState], number: int) -> list[StoredState]:
    name = f"model-{number:04}"
    found = []
    for each in states:
        document = json.loads(each.value)
        document["model_name"] = name
        found.append(each._replace(asset=number, value=json.dumps(document)))
    return found


def _milliseconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return (time.process_time() - started) * 1000, result


def test_a_scrape_of_a_thousand_models(tmp_path: Path) -> None:
    names = [f"model-{number:04}" for number in range(MODELS)]
    rows = [model_row(name, canary="3" if number % 10 == 0 else "") for number, name in enumerate(names)]
    one = ledger_states("model", paused=True)
    stored = [state for number in range(MODELS) for state in _renamed(one, number)]
    log = audit_log_with_request(tmp_path, names[0])()
    reader = SideFactsReader(lambda _: stored, lambda: log, "test")
    first, _ = _milliseconds(lambda: reader.read(names, NOW))
    later, _ = _milliseconds(lambda: reader.read(names, NOW))
    app = metrics_app(FixedServices(FixedIndex(rows), SideFactsReader(lambda _: stored, lambda: None, "test")))
    made, text = _milliseconds(lambda: asyncio.run(scraped(app)))
    kept, _ = _milliseconds(lambda: asyncio.run(scraped(app)))
    series = sum(not line.startswith("#") for line in text.splitlines())
    size, packed = len(text.encode()) / 1e6, len(gzip.compress(text.encode())) / 1e3
    print(f"{MODELS} models: {series} series, {size:.2f} MB, {packed:.0f} kB with gzip")
    print(f"ledgers and approvals: {first:.0f} ms CPU the first time, {later:.0f} ms when nothing has changed")
    print(f"a scrape: {made:.0f} ms CPU with the first reading of all ledgers, {kept:.0f} ms within the minute")
    assert kept < made
    assert later < MOST_PER_SCRAPE_MILLISECONDS
