"""Windows of the versions that answer, and the rows that may wait for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.traffic import Choice
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.reactions import Reactions

V7, V8 = (ServedVersion("fraud", number) for number in "78")


class Server:
    """Reactions over versions whose answers are made up, second by second."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1000.0
        self.settings = ServingSettings(**{"max_queue_rows": 1000, "max_batch_rows": 16, **settings})
        self.pools = {key: SimpleNamespace(processes=2, max_queue_rows=1000) for key in (V7, V8)}
        models: Any = SimpleNamespace(pools=self.pools)
        self.reactions = Reactions(models, self.settings, lambda: self.now)

    def ask(self, key: ServedVersion | None = V8, seconds: float = 0.01, status: int = 200, code: str = "") -> None:
        """Record one request that was answered just now."""
        exchange = Exchange({"headers": []}, self.now - seconds)
        exchange.choice = None if key is None else Choice(key, "champion")
        exchange.seconds, exchange.status, exchange.code = seconds, status, code
        self.reactions.record(exchange)

    def pass_by(self, duration: int, *, per_second: int = 10, **request: Any) -> None:
        for _ in range(duration):
            self.now += 1
            for _ in range(per_second):
                self.ask(**request)
            self.reactions.look()

    def metric(self, name: str, **labels: str) -> float | None:
        wanted = {"model": "fraud", "version": "8", **labels}
        samples = [sample for family in self.reactions.collect() for sample in family.samples]
        found = [sample.value for sample in samples if sample.name.endswith(name) and sample.labels == wanted]
        return found[0] if found else None


def test_the_metrics_are_those_of_the_latest_window() -> None:
    server = Server()
    server.pass_by(20, seconds=0.04)
    assert server.metric("_window_answers") == 100
    assert server.metric("_window_failed") == 0
    assert server.metric("_window_latency_seconds", quantile="0.99") == 0.05
    server.pass_by(20, seconds=0.3, status=500, code="model_failed")
    assert server.metric("_window_failed") == 100
    assert server.metric("_window_latency_seconds", quantile="0.5") == 0.5


def test_a_version_that_nobody_asks_has_an_empty_window() -> None:
    server = Server()
    server.pass_by(20)
    server.pass_by(20, per_second=0)
    assert server.metric("_window_answers") == 0
    assert server.metric("_window_latency_seconds", quantile="0.99") is None


def test_refusals_of_the_caller_are_not_the_versions_answers() -> None:
    server = Server()
    server.pass_by(20, status=400, code="invalid_rows")
    server.pass_by(20, key=None, status=404, code="unknown_model")
    assert server.metric("_window_answers") is None


def test_an_answer_that_is_later_than_its_window_counts_when_it_comes() -> None:
    server = Server()
    server.pass_by(30, per_second=0)
    server.ask()  # so that windows are closed
    server.pass_by(20, per_second=0)
    seen = []
    server.ask(seconds=25.0, status=504, code="timeout")
    for _ in range(20):
        server.pass_by(1, per_second=0)
        seen.append(server.metric("_window_failed"))
    assert max(value for value in seen if value is not None) == 1


def test_slow_answers_let_fewer_rows_wait_until_nobody_is_refused_any_more() -> None:
    server = Server(shed_latency_ms=100)
    server.pass_by(20, seconds=0.05)
    assert server.pools[V8].max_queue_rows == 1000
    server.pass_by(20, seconds=0.2)
    assert server.pools[V8].max_queue_rows == 32  # one batch for each process
    assert server.metric("_shedding") == 1
    for _ in range(20):  # in time now, because others are refused
        server.now += 1
        for _ in range(10):
            server.ask(seconds=0.05)
            server.ask(seconds=0.0, status=503, code="overloaded")
        server.reactions.look()
    assert server.pools[V8].max_queue_rows == 32
    server.pass_by(20, seconds=0.05)
    assert server.pools[V8].max_queue_rows == 1000
    assert server.metric("_shedding") == 0
    assert server.pools[V7].max_queue_rows == 1000


def test_a_queue_that_is_short_already_stays_as_it_is() -> None:
    server = Server(shed_latency_ms=100, max_queue_rows=8)
    server.pass_by(20, seconds=0.2)
    assert server.pools[V8].max_queue_rows == 8


def test_without_the_setting_no_load_is_shed() -> None:
    server = Server()
    server.pass_by(40, seconds=30.0)
    assert server.pools[V8].max_queue_rows == 1000
    assert server.metric("_shedding") == 0


def test_a_version_that_is_gone_is_forgotten() -> None:
    server = Server()
    server.pass_by(20)
    del server.pools[V8]
    server.reactions.look()
    assert server.metric("_window_answers") is None


@pytest.mark.parametrize("limit", [120, 0.5])
def test_the_limit_need_not_be_an_edge_of_the_histogram(limit: float) -> None:
    server = Server(shed_latency_ms=limit)
    server.pass_by(20, seconds=limit / 1000 * 1.01)
    assert server.metric("_shedding") == 1
    server.pass_by(20, seconds=limit / 1000 * 0.99)
    assert server.metric("_shedding") == 0
