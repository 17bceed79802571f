"""Asks the canary what the champion has answered already; its answers are counted and logged, and never sent."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.metrics import PREFIX
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelPool, ModelRequest
from airflow_mcp.serving.request_log import RequestLog

_log = logging.getLogger(__name__)


class Shadow:
    """Copies a share of the champion's requests to the canary.

    The canary is asked only while nothing waits for it, so the copies delay no caller.

    :param models: what is loaded and the plans.
    :param log: where its answers are logged; None for nowhere.
    """

    def __init__(self, models: ServedModels, log: RequestLog | None) -> None:
        self._models, self._log = models, log
        self._tasks: set[asyncio.Task[None]] = set()
        self._results: dict[tuple[ServedVersion, str], int] = {}

    def record(self, exchange: Exchange) -> None:
        """Copy a request after its answer was sent."""
        choice, request = exchange.choice, exchange.request
        plan = self._models.plan(exchange.model)
        if plan is None or not plan.shadow or plan.canary is None or choice is None or request is None:
            return
        if choice.role != "champion" or exchange.answer is None or plan.canary in plan.tripped:
            return
        if plan.shadow < 100 and random.random() * 100 >= plan.shadow:  # noqa: S311
            return
        pool = self._models.pools.get(plan.canary)
        if pool is None or not pool.ready:
            self._count(plan.canary, "not_ready")
        elif pool.in_flight:
            self._count(plan.canary, "busy")
        elif not self._fits(choice.version, pool):
            self._count(plan.canary, "other_columns")
        else:
            task = asyncio.create_task(self._ask(plan.canary, pool, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _fits(self, champion: ServedVersion, canary: ModelPool) -> bool:
        """Return whether the canary reads rows as the champion does, so that a copy needs no reading."""
        pool = self._models.pools.get(champion)
        return pool is not None and pool.report.signature.columns == canary.report.signature.columns

    async def _ask(self, key: ServedVersion, pool: ModelPool, request: ModelRequest) -> None:
        started = asyncio.get_running_loop().time()
        try:
            answer = await pool.submit(request)
        except Problem as problem:
            self._count(key, problem.code)
            return
        self._count(key, "answered")
        if self._log is not None:
            self._log.write(key, "shadow", request, answer, asyncio.get_running_loop().time() - started)

    def _count(self, key: ServedVersion, result: str) -> None:
        self._results[key, result] = self._results.get((key, result), 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Return its metrics."""
        found = CounterMetricFamily(
            f"{PREFIX}_shadow", "Copies of requests for the canary, by result", labels=["model", "version", "result"]
        )
        for (key, result), count in self._results.items():
            found.add_metric([key.model, key.version, result], count)
        yield found
