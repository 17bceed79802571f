from __future__ import annotations

import gc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from airflow_mcp.work.measures import latency


def clock(monkeypatch: pytest.MonkeyPatch, *milliseconds: float) -> None:
    """Make each call take these times."""
    readings = iter([reading for span in milliseconds for reading in (0, round(span * 1e6))])
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: next(readings))


def test_calls_are_single_rows_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, *[1] * 6)
    seen: list[tuple[int, int]] = []
    frame = pd.DataFrame({"x": [10, 11, 12]})
    result = latency.measure_latency(lambda row: seen.append((len(row), row["x"].iloc[0])), frame, calls=4, warmup=2)
    assert seen == [(1, 11), (1, 12), (1, 10), (1, 11), (1, 12), (1, 10)]
    assert set(result.metrics.values()) == {1.0}
    assert (result.evidence.calls, result.evidence.warmup) == (4, 2)


def test_warm_up_calls_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 900, 800, *range(1, 11))
    result = latency.measure_latency(lambda row: None, np.zeros((2, 1)), calls=10, warmup=2)
    assert result.metrics["latency_ms_max"] == 10
    assert result.evidence.histogram.maximum == 10


def test_percentiles_are_linear_and_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, *range(1, 101))
    result = latency.measure_latency(lambda row: None, np.zeros((2, 1)), calls=100, warmup=0)
    assert result.metrics == pytest.approx(
        {
            "latency_ms": 95.05,
            "latency_ms_p50": 50.5,
            "latency_ms_p90": 90.1,
            "latency_ms_p95": 95.05,
            "latency_ms_p99": 99.01,
            "latency_ms_mean": 50.5,
            "latency_ms_max": 100,
        }
    )
    assert result.undefined == {}
    found = result.evidence.histogram
    assert (sum(found.counts), found.below, found.above, found.minimum) == (99, 0, 1, 1.0)


@pytest.mark.parametrize(("calls", "undefined"), [(100, set()), (99, {"_p99"}), (19, {"", "_p95", "_p99"})])
def test_a_percentile_without_a_call_beyond_it_is_undefined_not_a_number(calls: int, undefined: set[str]) -> None:
    result = latency.measure_latency(lambda row: None, np.zeros((2, 1)), calls=calls, warmup=0)
    assert result.undefined.keys() == {f"latency_ms{name}" for name in undefined}
    assert not result.undefined.keys() & result.metrics.keys()
    assert all(f"{calls} were made" in reason for reason in result.undefined.values())


def test_the_interval_of_a_percentile_holds_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    true, held, worlds = stats.lognorm.ppf(0.9, 1), 0, 2000
    for _ in range(worlds):
        found = latency.percentile_interval(np.sort(random.lognormal(0, 1, 200)), 0.9, 0.95)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true <= found.high
    assert 0.945 <= held / worlds <= 0.99


def test_an_end_beyond_the_measurements_is_not_known() -> None:
    ordered = np.arange(1.0, 201.0)
    found = latency.percentile_interval(ordered, 0.99, 0.95)
    assert found.low == stats.binom.ppf(0.025, 200, 0.99)
    assert found.high is None
    assert latency.percentile_interval(np.arange(1.0, 400.0), 0.99, 0.95).high is not None


def test_garbage_collection_is_on_and_leaves_the_evaluations_own_data_alone() -> None:
    seen: list[tuple[bool, bool]] = []
    latency.measure_latency(
        lambda row: seen.append((gc.isenabled(), gc.get_freeze_count() > 0)), np.zeros((2, 1)), 3, 1
    )
    assert seen == [(True, True)] * 4
    assert gc.get_freeze_count() == 0


def test_a_model_that_breaks_leaves_garbage_collection_as_it_was() -> None:
    def fail(row: object) -> None:
        raise KeyError("inside the model")

    with pytest.raises(KeyError):
        latency.measure_latency(fail, np.zeros((2, 1)), 3, 1)
    assert gc.get_freeze_count() == 0
