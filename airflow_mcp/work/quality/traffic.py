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
_NO_ERRORS = (
    "The log has neither events nor a column error: either every request was answered, or whoever wrote it does not "
    "log failed requests"
)


def measure_traffic(
    frame: pd.DataFrame, events: pd.DataFrame | None, limits: TrafficLimits, *, has_errors: bool
) -> Traffic:
    """Count requests by the time when they arrived, whatever the order in which they were logged.

    :param frame: logged predictions; the rows of one request count once.
    :param events: requests without rows, such as those that failed; None when the log has no events.
    :param limits: length of a window, and its limits.
    :param has_errors: whether the log itself says which requests have failed.
    """
    seconds = int(limits.window.total_seconds())
    # The limit is an edge of its own, so that a 95th percentile is never beyond it only because edges are coarse.
    edges = LATENCY_EDGES if limits.largest_p95 is None else tuple(sorted({*LATENCY_EDGES, limits.largest_p95}))
    windows = SlidingWindows(seconds=seconds, every=seconds, lateness=0, edges=edges)
    requests = frame[~frame.duplicated("request_id") | (frame["request_id"] == "")]
    requests = requests[requests["latency"].notna()]
    failed = requests["error"] != ""
    counted = [requests.assign(failed=failed)]
    errors: dict[str, int] = {}
    refused = 0
    if events is not None:
        # The caller is to blame for a status of 4xx, so such a request says nothing about the server.
        is_refused = events["status"].between(400, 499)
        refused = int(is_refused.sum())
        counted.append(events[~is_refused].assign(failed=events["status"] >= 500))
        errors = {str(code): int(number) for code, number in events["error"].value_counts().items() if code}
    for each in counted:
        for at, latency, is_failed in zip(each["at"], each["latency"], each["failed"], strict=True):
            windows.add(at, latency, failed=bool(is_failed))
    closed = [_window(each, limits) for each in windows.close_all()]
    worst = sorted(
        closed, key=lambda each: (not each.exceeded, -each.failed / each.requests, -_order(each.p95), -_order(each.p99))
    )
    return Traffic(
        requests=sum(map(len, counted)),
        failed=sum(int(each["failed"].sum()) for each in counted),
        refused=refused,
        errors=errors,
        windows=len(closed),
        exceeded=sum(each.exceeded for each in closed),
        worst=tuple(worst[:SHOWN]),
        note="" if has_errors or events is not None else _NO_ERRORS,
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
