"""Latency and errors of each version in sliding windows, and how many rows may wait for it in consequence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from time import perf_counter

from prometheus_client.core import GaugeMetricFamily, Metric

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.shedding import sheds_after
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.core.serving.windows import LATENCY_EDGES, SlidingWindows, Window
from airflow_mcp.serving.breakers import BLAMED
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.metrics import PREFIX
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelPool

_log = logging.getLogger(__name__)
_TICK_SECONDS = 1.0
_QUANTILES = (0.5, 0.95, 0.99)


class _Watched:
    """One version: its windows, and what follows from them."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.windows = SlidingWindows(edges=edges)
        self.latest: Window | None = None
        """The latest window; None when nobody has asked in it."""
        self.is_shedding = False


class Reactions:
    """Windows over the answers of every version, and the load that is shed.

    :param models: what is loaded.
    :param settings: settings of the server.
    :param clock: returns seconds, as :attr:`~airflow_mcp.serving.exchange.Exchange.started` has them.
    """

    def __init__(
        self, models: ServedModels, settings: ServingSettings, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._models, self._settings, self._clock = models, settings, clock
        self._limit = settings.shed_latency_ms / 1000
        self._edges = tuple(sorted({*LATENCY_EDGES, *([self._limit] if self._limit else [])}))
        self._watched: dict[ServedVersion, _Watched] = {}

    def record(self, exchange: Exchange) -> None:
        """Count an exchange after its answer.

        An answer that is later than its window allows counts as of now: slow answers must not be missed.
        """
        choice = exchange.choice
        if choice is None:
            return
        is_refused = exchange.code == "overloaded"
        if not is_refused and exchange.status >= 400 and exchange.code not in BLAMED:
            return
        watched = self._watched.get(choice.version)
        if watched is None:
            watched = self._watched[choice.version] = _Watched(self._edges)
        windows, at, seconds = watched.windows, exchange.started, exchange.seconds
        if is_refused:
            windows.refuse(at)
        elif not windows.add(at, seconds, failed=exchange.status >= 500):
            windows.add(at + seconds, seconds, failed=exchange.status >= 500)

    async def run(self) -> None:
        """Close windows every second until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.look()

    def look(self) -> None:
        """Close the windows that are over, and let more or fewer rows wait."""
        now, pools = self._clock(), self._models.pools
        for version in [version for version in self._watched if version not in pools]:
            del self._watched[version]
        for version, watched in self._watched.items():
            before = watched.windows.closed_until
            closed = watched.windows.close(now)
            until = watched.windows.closed_until
            if until == before:
                continue
            watched.latest = closed[-1] if closed and closed[-1].end == until else None
            if self._limit:
                self._shed(version, watched, pools[version])

    def _shed(self, version: ServedVersion, watched: _Watched, pool: ModelPool) -> None:
        sheds = sheds_after(watched.latest, self._limit, is_shedding=watched.is_shedding)
        usual = self._settings.max_queue_rows
        # One batch per process may wait: who is let in is answered after the batch that runs.
        pool.max_queue_rows = min(usual, self._settings.max_batch_rows * max(1, pool.processes)) if sheds else usual
        if sheds != watched.is_shedding:
            watched.is_shedding = sheds
            what = "sheds load: more than 1 % of the answers took longer than" if sheds else "sheds no load any more:"
            _log.warning("%s %s %g ms, %d rows may wait", version, what, self._limit * 1000, pool.max_queue_rows)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the latest windows."""
        labels = ["model", "version"]
        answers = GaugeMetricFamily(f"{PREFIX}_window_answers", "Answers in the latest window", labels=labels)
        failed = GaugeMetricFamily(f"{PREFIX}_window_failed", "Errors of the model among them", labels=labels)
        latency = GaugeMetricFamily(
            f"{PREFIX}_window_latency_seconds", "Quantiles of their latency", labels=[*labels, "quantile"]
        )
        shedding = GaugeMetricFamily(f"{PREFIX}_shedding", "1 while fewer rows may wait", labels=labels)
        for version, watched in self._watched.items():
            named, window = [version.model, version.version], watched.latest
            answers.add_metric(named, 0 if window is None else window.answered)
            failed.add_metric(named, 0 if window is None else window.failed)
            shedding.add_metric(named, float(watched.is_shedding))
            for share in _QUANTILES if window is not None and window.answered else ():
                latency.add_metric([*named, f"{share:g}"], window.quantile(share) if window else 0.0)
        yield from (answers, failed, latency, shedding)
