from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from airflow_mcp.work.measures.regression import measure


def test_metrics_match_numbers_counted_by_hand() -> None:
    result = measure(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]))
    assert result.metrics == pytest.approx({"mae": 1.0, "rmse": 3**0.5, "r2": 1 - 9 / 2})


def test_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    true = generator.normal(size=100)
    predicted = true + generator.normal(size=100)
    assert measure(true, predicted).metrics == pytest.approx(
        {
            "mae": sk.mean_absolute_error(true, predicted),
            "rmse": sk.root_mean_squared_error(true, predicted),
            "r2": sk.r2_score(true, predicted),
        }
    )


@pytest.mark.parametrize("labels", [[2.0], [2.0, 2.0], [0.1, 0.1, 0.1]])
def test_r2_is_undefined_when_all_labels_are_equal(labels: list[float]) -> None:
    result = measure(np.array(labels), np.zeros(len(labels)))
    assert result.undefined == {"r2": "all labels are equal"}
    assert set(result.metrics) == {"mae", "rmse"}


def test_a_number_too_large_is_undefined_instead_of_infinite() -> None:
    result = measure(np.array([1e300, -1e300]), np.array([-1e300, 1e300]))
    assert "rmse" in result.undefined
    assert np.isfinite(list(result.metrics.values())).all()
