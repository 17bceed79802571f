"""Latency of single-row predictions, measured one call after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

_NANOSECONDS_PER_MILLISECOND = 1e6


def measure(predict: Callable[[Any], Any], inputs: Any, calls: int, warmup: int) -> dict[str, float]:
    """Time single-row predictions.

    The rows are taken in turn. Selecting a row is not timed; the model's own input checks are, as in serving.
    There is no network in it.

    :param predict: the model.
    :param inputs: prepared rows (DataFrame or array); at least one.
    :param calls: number of timed calls.
    :param warmup: number of calls before them that are not timed.
    :return: milliseconds: ``latency_ms_p50``, ``_p95``, ``_p99``, ``_mean``, and ``latency_ms``, the 95th
        percentile. Percentiles are numpy's ``linear`` (Hyndman and Fan 1996, type 7).
    """
    rows = len(inputs)
    select = inputs.iloc if hasattr(inputs, "iloc") else inputs
    spans = np.empty(calls)
    for number in range(-warmup, calls):
        position = number % rows
        row = select[position : position + 1]
        started = time.perf_counter_ns()
        predict(row)
        if number >= 0:
            spans[number] = time.perf_counter_ns() - started
    spans /= _NANOSECONDS_PER_MILLISECOND
    p50, p95, p99 = np.percentile(spans, (50, 95, 99), method="linear")
    values = {"p50": p50, "p95": p95, "p99": p99, "mean": spans.mean()}
    return {"latency_ms": float(p95), **{f"latency_ms_{name}": float(value) for name, value in values.items()}}
