"""Latency of single-row predictions, measured one call after the other in this process."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from airflow_mcp.core.evaluation.diagnostics import LatencyEvidence, PercentileInterval
from airflow_mcp.work.measures.diagnostics import histogram

_NANOSECONDS_PER_MILLISECOND = 1e6
_CONFIDENCE = 0.95
PERCENTILES = {
    "latency_ms": 0.95,
    "latency_ms_p50": 0.50,
    "latency_ms_p90": 0.90,
    "latency_ms_p95": 0.95,
    "latency_ms_p99": 0.99,
}
"""Metric to percentile, as a share."""


class Probe(NamedTuple):
    """The result of measuring latency."""

    metrics: dict[str, float]
    """Milliseconds: the percentiles, ``latency_ms_mean`` and ``latency_ms_max``."""
    undefined: dict[str, str]
    """Percentiles that need more calls, with the reason."""
    evidence: LatencyEvidence


def measure_latency(predict: Callable[[Any], Any], inputs: Any, calls: int, warmup: int) -> Probe:
    """Time single-row predictions.

    The rows are taken in turn. Selecting a row is not timed; the model's own input checks are, as in serving. No
    network is involved. Python's garbage collector stays on, but skips objects that existed before: a model server
    would not have the evaluation's data in memory.

    A percentile is defined if at least one call is expected beyond it; p99 needs 100 calls. Percentiles are NumPy's
    ``linear`` (Hyndman and Fan 1996, type 7).

    :param predict: function that predicts one row.
    :param inputs: at least one prepared row (DataFrame, array or list).
    :param calls: number of timed calls.
    :param warmup: number of untimed calls before them.
    """
    spans = _spans(predict, inputs, calls, warmup)
    metrics = {"latency_ms_mean": float(spans.mean()), "latency_ms_max": float(spans.max())}
    undefined, intervals = {}, {}
    for name, share in PERCENTILES.items():
        needed = math.ceil(round(1 / (1 - share), 6))
        if calls < needed:
            undefined[name] = f"the {share:.0%} percentile needs at least {needed} calls; {calls} were made"
            continue
        metrics[name] = float(np.quantile(spans, share, method="linear"))
        intervals[name] = percentile_interval(np.sort(spans), share, _CONFIDENCE)
    evidence = LatencyEvidence(
        calls=calls,
        warmup=warmup,
        histogram=histogram(spans, (0.0, 0.99)),
        intervals=intervals,
        confidence=_CONFIDENCE,
    )
    return Probe(metrics, undefined, evidence)


def percentile_interval(ordered: np.ndarray[Any, Any], share: float, confidence: float) -> PercentileInterval:
    """Return the order statistics between which a percentile lies (Hahn and Meeker 1991, section 5.2).

    :param ordered: independent measurements, ascending.
    :param share: the percentile, between 0 and 1.
    :param confidence: two-sided; the interval holds the percentile with at least this probability.
    :return: ends in units of the measurements; None for an end outside of them.
    """
    count = len(ordered)
    tail = (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, count, share))
    high = int(stats.binom.ppf(1 - tail, count, share)) + 1
    return PercentileInterval(
        low=float(ordered[low - 1]) if low >= 1 else None, high=float(ordered[high - 1]) if high <= count else None
    )


def _spans(predict: Callable[[Any], Any], inputs: Any, calls: int, warmup: int) -> np.ndarray[Any, Any]:
    """Return the milliseconds of each timed call."""
    rows = len(inputs)
    select = inputs.iloc if hasattr(inputs, "iloc") else inputs
    spans = np.empty(calls)
    with _existing_objects_frozen():
        for number in range(-warmup, calls):
            position = number % rows
            row = select[position : position + 1]
            started = time.perf_counter_ns()
            predict(row)
            taken = time.perf_counter_ns() - started
            if number >= 0:
                spans[number] = taken
    return spans / _NANOSECONDS_PER_MILLISECOND


@contextmanager
def _existing_objects_frozen() -> Iterator[None]:
    """Exclude objects that exist now from garbage collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
