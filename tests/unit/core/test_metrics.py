"""Names and directions of the metrics that are known."""

from __future__ import annotations

import pytest

from airflow_mcp.core.metrics import check_spelling, metric_direction, metric_name
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
    with pytest.raises(InvalidArgumentError, match=r"of 'acuracy' are better. Did you mean 'accuracy'\?"):
        metric_direction("acuracy")


class TestSpelling:
    @pytest.mark.parametrize(
        ("name", "metric"),
        [
            ("latencyMs", "latency_ms"),
            ("latency_ms", "latency_ms"),
            ("rocAuc", "roc_auc"),
            ("f1", "f1"),
            *((own, own) for own in ("mse", "mape", "rmsle", "f2", "f1_macro", "f1_score", "balanced_accuracy")),
            *((own, own) for own in ("latency_ms_p75", "precision_at_10", "val_accuracy", "auc", "profit", "latency")),
        ],
    )
    def test_both_spellings_and_names_of_ones_own_are_taken(self, name: str, metric: str) -> None:
        assert check_spelling(name) == metric

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            *((typo, "accuracy") for typo in ("Accuracy", "acuracy", "accuarcy", "accurracy", "ACCURACY")),
            ("latencyms", "latencyMs"),
            ("latency_Ms_p95", "latencyMsP95"),
            ("RocAuc", "rocAuc"),
            ("ROC_AUC", "rocAuc"),
            ("F1", "f1"),
            ("precison", "precision"),
        ],
    )
    def test_a_near_miss_is_refused_with_what_was_probably_meant(self, name: str, meant: str) -> None:
        with pytest.raises(InvalidArgumentError, match=f"got '{name}'. Did you mean '{meant}'"):
            check_spelling(name)
