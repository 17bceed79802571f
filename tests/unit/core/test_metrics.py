"""Names and directions of the metrics that are known."""

from __future__ import annotations

import pytest

from airflow_mcp.core.metrics import metric_direction, metric_name
from airflow_mcp.exceptions import InvalidArgumentError


@pytest.mark.parametrize(
    ("written", "name"), [("rocAuc", "roc_auc"), ("latencyMs", "latency_ms"), ("f1", "f1"), ("my_metric", "my_metric")]
)
def test_a_known_metric_is_written_as_mlflow_has_it_and_any_other_as_it_is(written: str, name: str) -> None:
    assert metric_name(written) == name


@pytest.mark.parametrize(
    ("name", "direction"),
    [("rocAuc", "maximize"), ("roc_auc", "maximize"), ("logLoss", "minimize"), ("latency_ms", "minimize")],
)
def test_a_direction_is_known_by_either_name(name: str, direction: str) -> None:
    assert metric_direction(name) == direction


def test_an_unknown_metric_has_no_direction_and_the_nearest_name_is_offered() -> None:
    with pytest.raises(InvalidArgumentError, match=r"of 'acuracy' is better is not known; did you mean 'accuracy'\?"):
        metric_direction("acuracy")
