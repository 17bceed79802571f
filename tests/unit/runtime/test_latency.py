from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.runtime import latency


def test_calls_are_single_rows_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**9, 1_000_000))
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(ticks))
    seen: list[tuple[int, int]] = []
    frame = pd.DataFrame({"x": [10, 11, 12]})
    result = latency.measure(lambda row: seen.append((len(row), row["x"].iloc[0])), frame, calls=4, warmup=2)
    assert seen == [(1, 11), (1, 12), (1, 10), (1, 11), (1, 12), (1, 10)]
    assert set(result.values()) == {1.0}


def test_percentiles_are_linear_and_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [n * 1_000_000 for n in range(1, 101)]
    readings = iter([reading for span in spans for reading in (0, span)])
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(readings))
    result = latency.measure(lambda row: None, np.zeros((2, 1)), calls=100, warmup=0)
    assert result == pytest.approx(
        {
            "latency_ms": 95.05,
            "latency_ms_p50": 50.5,
            "latency_ms_p95": 95.05,
            "latency_ms_p99": 99.01,
            "latency_ms_mean": 50.5,
        }
    )
