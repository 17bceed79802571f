"""Latency and errors of logged requests, in short windows."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core.quality.policy import TrafficLimits
from airflow_mcp.core.quality.summary import Traffic, TrafficWindow
from airflow_mcp.core.serving.windows import LATENCY_EDGES, SlidingWindows, Window

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20
"""Windows that are kept in the summary, worst first."""


def measure_traffic(frame: pd.DataFrame, limits: TrafficLimits, *, has_errors: bool) -> Traffic:
    """Count requests by the time when they arrived.

    :param frame: logged predictions; the rows of one request count once.
    :param limits: length of a window, and its limits.
    :param has_errors: whether the log says which requests have failed.
    """
    seconds = int(limits.window.total_seconds())
    # The limit is an edge of its own, so that a 95th percentile is never beyond it only because edges are coarse.
    edges = LATENCY_EDGES if limits.largest_p95 is None else tuple(sorted({*LATENCY_EDGES, limits.largest_p95}))
    windows = SlidingWindows(seconds=seconds, every=seconds, lateness=0, edges=edges)
    requests = frame.drop_duplicates("request_id")
    requests = requests[requests["latency"].notna()]
    failed = requests["error"] != ""
    for at, latency, is_failed in zip(requests["at"], requests["latency"], failed, strict=True):
        windows.add(at, latency, failed=bool(is_failed))
    closed = [_window(each, limits) for each in windows.close_all()]
    worst = sorted(
        closed, key=lambda each: (not each.exceeded, -each.failed / each.requests, -_order(each.p95), -_order(each.p99))
    )
    return Traffic(
        requests=len(requests),
        failed=int(failed.sum()),
        windows=len(closed),
        exceeded=sum(each.exceeded for each in closed),
        worst=tuple(worst[:SHOWN]),
        note="" if has_errors else "the log has no column that says which requests failed, so errors are not counted",
    )


def _window(found: Window, limits: TrafficLimits) -> TrafficWindow:
    p95 = found.quantile(0.95)
    is_slow = limits.largest_p95 is not None and p95 > limits.largest_p95
    share = limits.largest_error_share
    is_failing = share is not None and found.failed > share * found.answered
    return TrafficWindow(
        start=datetime.fromtimestamp(found.start, UTC),
        end=datetime.fromtimestamp(found.end, UTC),
        requests=found.answered,
        failed=found.failed,
        p50=_finite(found.quantile(0.5)),
        p95=_finite(p95),
        p99=_finite(found.quantile(0.99)),
        exceeded=is_slow or is_failing,
    )


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _order(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
