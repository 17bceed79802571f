from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from airflow_mcp.core.drift import CATEGORICAL_METHODS, NUMERICAL_METHODS
from airflow_mcp.core.evidence import ColumnDrift, DatasetPin, DriftRequest
from airflow_mcp.runtime.drift_columns import comparable_frames, plan_columns
from airflow_mcp.runtime.drift_report import DriftReport, compute_report

_random = np.random.default_rng(3)
# More than 1000 rows: where Evidently would change from p-values to distances by itself.
REFERENCE = pd.DataFrame(
    {
        "same": _random.normal(size=1500),
        "moved": _random.normal(size=1500),
        "kind": _random.choice(["a", "b"], 1500, p=[0.5, 0.5]),
        "kind2": _random.choice(["a", "b"], 1500, p=[0.5, 0.5]),
    }
)
CURRENT = pd.DataFrame(
    {
        "same": _random.normal(size=1200),
        "moved": _random.normal(1.0, size=1200),
        "kind": _random.choice(["a", "b"], 1200, p=[0.5, 0.5]),
        "kind2": _random.choice(["a", "b"], 1200, p=[0.95, 0.05]),
    }
)


def compare(numerical: tuple[str, float], categorical: tuple[str, float]) -> DriftReport:
    request = DriftRequest(
        identity="i",
        run_id="r",
        reference=DatasetPin(uri="a.csv"),
        current=DatasetPin(uri="b.csv"),
        numerical_method=numerical[0],
        numerical_threshold=numerical[1],
        categorical_method=categorical[0],
        categorical_threshold=categorical[1],
        drift_share=0.5,
        min_rows=100,
    )
    plans = plan_columns(REFERENCE, CURRENT, request)
    return compute_report(*comparable_frames(REFERENCE, CURRENT, plans), plans, request)


def check(column: ColumnDrift, method: str, threshold: float, score: float) -> None:
    assert (column.method, column.threshold) == (method, threshold)
    assert column.score == pytest.approx(score)


def test_p_values_are_scipys_and_drift_below_the_threshold() -> None:
    columns = compare(("ks", 0.01), ("chisquare", 0.01)).columns
    for name, drifted in (("same", False), ("moved", True)):
        check(columns[name], "ks", 0.01, stats.ks_2samp(REFERENCE[name], CURRENT[name]).pvalue)
        assert columns[name].drifted is drifted
    for name, drifted in (("kind", False), ("kind2", True)):
        observed = CURRENT[name].value_counts().sort_index()
        expected = REFERENCE[name].value_counts(normalize=True).sort_index() * len(CURRENT)
        check(columns[name], "chisquare", 0.01, stats.chisquare(observed, expected).pvalue)
        assert columns[name].drifted is drifted


def test_wasserstein_is_scipys_in_standard_deviations_and_drifts_above_the_threshold() -> None:
    columns = compare(("wasserstein", 0.2), ("jensenshannon", 0.2)).columns
    for name, drifted in (("same", False), ("moved", True)):
        distance = stats.wasserstein_distance(REFERENCE[name], CURRENT[name]) / np.std(REFERENCE[name])
        check(columns[name], "wasserstein", 0.2, distance)
        assert columns[name].drifted is drifted
    assert (columns["kind"].drifted, columns["kind2"].drifted) == (False, True)


@pytest.mark.parametrize("method", sorted(NUMERICAL_METHODS))
def test_every_numerical_method_finds_the_moved_column_only(method: str) -> None:
    threshold = 0.01 if NUMERICAL_METHODS[method] == "p_value" else 0.15
    columns = compare((method, threshold), ("chisquare", 0.01)).columns
    assert (columns["same"].drifted, columns["moved"].drifted) == (False, True)
    assert columns["moved"].method == method


@pytest.mark.parametrize("method", sorted(CATEGORICAL_METHODS))
def test_every_categorical_method_finds_the_moved_column_only(method: str) -> None:
    threshold = 0.02 if CATEGORICAL_METHODS[method] == "p_value" else 0.15
    columns = compare(("ks", 0.01), (method, threshold)).columns
    assert (columns["kind"].drifted, columns["kind2"].drifted) == (False, True)
    assert columns["kind2"].method == method


def test_the_report_itself_is_kept() -> None:
    report = compare(("ks", 0.01), ("chisquare", 0.01))
    assert "<html" in report.html[:2000].lower()
    assert json.loads(report.json)
