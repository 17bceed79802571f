"""Rules as text: what can be written, where the boundary lies, what is refused."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, parse_threshold, write_compared
from airflow_mcp.exceptions import InvalidArgumentError


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        ("accuracy >= 0.92", 0.9199, False),
        ("accuracy >= 0.92", 0.92, True),
        ("accuracy >= 0.92", 0.9201, True),
        ("accuracy > 0.92", 0.92, False),
        ("accuracy > 0.92", 0.9201, True),
        ("latency_ms <= 150", 150, True),
        ("latency_ms <= 150", 150.1, False),
        ("latency_ms < 150", 150, False),
        ("latency_ms < 150", 149.9, True),
        ("accuracy >= 0.92", math.nextafter(0.92, 0), False),
        ("accuracy >= 0.92", math.nan, False),
        ("accuracy <= 0.92", math.nan, False),
        ("r2 >= -0.5", -0.5, True),
        ("r2 >= -0.5", -0.51, False),
    ],
)
def test_a_value_at_the_boundary_is_judged_exactly(rule: str, value: float, holds: bool) -> None:
    threshold = parse_threshold(rule)
    bound = threshold.bound(None)
    assert bound is not None
    assert threshold.holds(value, bound) is holds


@pytest.mark.parametrize(
    ("rule", "champion", "bound"),
    [
        ("rmse <= champion", 2.0, 2.0),
        ("rmse <= champion * 1.5", 2.0, 3.0),
        ("f1 >= champion - 0.5", 2.0, 1.5),
        ("f1 >= champion + 0.5", 2.0, 2.5),
        ("f1 >= champion * 0.5 - 0.25", 2.0, 0.75),
        ("f1 >= champion * 0", 2.0, 0.0),
        ("f1 >= champion", None, None),
        ("f1 >= 0.5", 2.0, 0.5),
        ("f1 <= champion * 10", 1e308, None),
        ("f1 <= champion * 10", -1e308, None),
        ("f1 >= champion + 50%", 2.0, 3.0),
        ("f1 >= champion - 50%", 2.0, 1.0),
        ("r2 >= champion + 50%", -2.0, -1.0),
        ("r2 >= champion - 50%", -2.0, -3.0),
        ("r2 >= champion + 50%", 0.0, None),
        ("r2 >= champion + 50%", -0.0, None),
        ("r2 >= champion + 0%", 0.0, 0.0),
        ("f1 >= champion + 50%", None, None),
        ("f1 >= champion + 50%", 1.7e308, None),
    ],
)
def test_the_bound_is_the_champions_value_scaled_and_shifted(
    rule: str, champion: float | None, bound: float | None
) -> None:
    assert parse_threshold(rule).bound(champion) == bound


def test_spaces_do_not_matter() -> None:
    assert parse_threshold(" f1>=champion*0.9-.01 ") == MetricThreshold("f1", ">=", -0.01, True, 0.9)
    assert parse_threshold("f1\n>=\tchampion") == MetricThreshold("f1", ">=", 0.0, True, 1.0)


@pytest.mark.parametrize(
    "metric", ["accuracy", "evaluation/f1", "latency_ms_p95", "precision@10", "a.b", "_x", "champion"]
)
def test_metric_names_of_mlflow_are_read_whole(metric: str) -> None:
    assert parse_threshold(f"{metric} >= 1").metric == metric


@pytest.mark.parametrize(
    "text",
    [
        *("", "accuracy", "accuracy >=", ">= 0.92", "accuracy = 0.92", "accuracy == 0.92", "accuracy != 0.92"),
        *("accuracy => 0.92", "accuracy >= 0,92", "accuracy >= 92%", "accuracy >= NaN", "accuracy >= inf"),
        *("accuracy >= champion * -1", "accuracy >= champion + -1", "accuracy >= champion / 2", "1acc >= 1"),
        *("accuracy >= Champion", "accuracy >= challenger", "accuracy >= 0.9 or 1", "a b >= 1", "accuracy >= 0.92;"),
        *("accuracy >= champion - 0.1 * 2", "accuracy >= 0x10", "accuracy >= 1_000", "0.92 <= accuracy"),
        *(
            "accuracy >= champion * 2%",
            "accuracy >= champion * 2 + 2%",
            "accuracy >= champion + %",
            "f1 >= champion 2%",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_text_and_what_is_allowed(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_threshold(text)
    assert repr(text) in str(caught.value)
    assert "accuracy >= 0.92" in str(caught.value)
    assert "champion [* number]" in str(caught.value)


@pytest.mark.parametrize("value", [None, 0.92, b"accuracy >= 0.92", ["accuracy >= 0.92"]])
def test_a_rule_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="threshold must be a rule"):
        parse_threshold(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule", ["a >= 1e999", "a >= -1e999", "a >= champion * 1e999", "a >= champion + 1e999", "a >= champion - 1e999%"]
)
def test_a_number_too_great_to_be_finite_is_refused(rule: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must have finite numbers"):
        parse_threshold(rule)


@pytest.mark.parametrize(
    "rule",
    [
        *("accuracy >= 0.92", "latency_ms < 150", "r2 > -0.5", "f1 >= champion", "f1 >= champion * 1.05"),
        *("f1 >= champion - 0.01", "f1 <= champion * 0.9 + 0.02", "accuracy >= 0.9234567891", "a >= 1e-09"),
        *("r2 >= champion + 2%", "rmse <= champion - 0.5%"),
    ],
)
def test_a_rule_is_written_as_it_was_read(rule: str) -> None:
    assert str(parse_threshold(rule)) == rule


def test_every_rule_survives_writing_and_reading() -> None:
    numbers = random.Random(20261121)
    for comparison, against, _ in itertools.product((">=", ">", "<=", "<"), (False, True), range(500)):
        threshold = MetricThreshold(
            metric="loss",
            comparison=comparison,  # type: ignore[arg-type]
            threshold=numbers.choice(
                [0.0, numbers.uniform(-2, 2), numbers.uniform(-1, 1) * 10 ** numbers.randint(-30, 30)]
            ),
            against_champion=against,
            factor=numbers.choice([1.0, numbers.uniform(0, 2)]) if against else 1.0,
        )
        assert parse_threshold(str(threshold)) == threshold


@pytest.mark.parametrize(
    ("value", "other", "written"),
    [
        (0.91999999, 0.92, "0.91999999"),
        (0.92, 0.91999999, "0.92"),
        (0.92, 0.92, "0.92"),
        (12.3456789, 150, "12.3457"),
        (150.0, 150.1, "150"),
    ],
)
def test_a_difference_is_never_rounded_away(value: float, other: float, written: str) -> None:
    assert write_compared(value, other) == written
