"""Better or lucky: every place where an interval can lie, everything that can be missing, and how many rows decide."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument, read_metric_list
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, MetricComparison, ModelEvidence
from airflow_mcp.core.gate.rules.significance import SignificanceRule, assess, judge_significance, rows_needed
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import InvalidArgumentError


def comparison(low: float | None, high: float | None, **changes: Any) -> MetricComparison:
    middle = None if low is None or high is None else (low + high) / 2
    given: dict[str, Any] = {
        "metric": "accuracy",
        "method": "mcnemar",
        "difference": middle,
        "low": low,
        "high": high,
        "confidence": 0.95,
        "p_value": 0.5,
        "standard_error": None if low is None or high is None else (high - low) / 3.92,
        "rows": 1000,
        "resamples": 0,
        "seed": 0,
        **changes,
    }
    return MetricComparison.model_construct(**given)


def rule(**changes: Any) -> SignificanceRule:
    return SignificanceRule(**{"metric": "accuracy", **changes})


@pytest.mark.parametrize(
    ("low", "high", "min_effect", "verdict"),
    [
        (0.01, 0.03, 0.01, Verdict.PASSED),
        (0.01, 0.03, 0.0, Verdict.PASSED),
        (0.0099, 0.03, 0.01, Verdict.INCONCLUSIVE),
        (0.0, 0.02, 0.0, Verdict.PASSED),
        (-0.02, 0.01, 0.01, Verdict.INCONCLUSIVE),
        (-0.02, 0.0099, 0.01, Verdict.FAILED),
        (-0.02, -0.01, 0.0, Verdict.FAILED),
        (-0.02, 0.02, 0.0, Verdict.INCONCLUSIVE),
        (-0.005, 0.02, -0.01, Verdict.PASSED),
        (-0.03, -0.02, -0.01, Verdict.FAILED),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, min_effect: float, verdict: Verdict) -> None:
    assert assess(rule(min_effect=min_effect), comparison(low, high)).verdict is verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-3.0, -1.0, Verdict.PASSED), (-1.5, 1.0, Verdict.INCONCLUSIVE), (0.5, 1.5, Verdict.FAILED)],
)
def test_less_is_better_for_errors(low: float, high: float, verdict: Verdict) -> None:
    assert assess(rule(metric="rmse", min_effect=1.0), comparison(low, high, metric="rmse")).verdict is verdict


@pytest.mark.parametrize("name", ["difference", "low", "high", "standard_error"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (-0.2, -0.1)], ids=["would-pass", "would-fail"])
def test_a_number_that_is_missing_or_not_finite_decides_nothing(
    name: str, value: float | None, low: float, high: float
) -> None:
    found = assess(rule(), comparison(low, high, note="why").model_copy(update={name: value}))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.rows_needed is None


def test_the_reason_for_a_missing_interval_is_told() -> None:
    found = assess(rule(), comparison(None, None, note="only one class in the labels"))
    assert found.reason == "no interval by mcnemar: only one class in the labels"


def test_too_few_rows_decide_nothing_however_clear_the_interval() -> None:
    found = assess(rule(min_rows=1001), comparison(0.1, 0.2))
    assert found == (Verdict.INCONCLUSIVE, "1000 rows; at least 1001 are needed", 1001)
    assert assess(rule(min_rows=1000), comparison(0.1, 0.2)).verdict is Verdict.PASSED


def test_a_comparison_with_less_confidence_than_the_rule_wants_decides_nothing() -> None:
    found = assess(rule(confidence=0.99), comparison(0.1, 0.2))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "made with confidence 0.95, the rule wants 0.99" in found.reason
    assert assess(rule(confidence=0.9), comparison(0.1, 0.2)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("bootstrap", "every resample gives the same difference"),
        ("delong", "the standard error of the difference is 0"),
    ],
)
def test_an_interval_of_no_length_decides_nothing(method: str, reason: str) -> None:
    found = assess(rule(), comparison(0.0, 0.0, method=method))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert reason in found.reason


def test_an_interval_that_holds_both_answers_says_how_many_rows_would_decide() -> None:
    found = assess(rule(), comparison(-0.01, 0.03))
    assert found.rows_needed is not None
    assert found.rows_needed == pytest.approx(1000 * (2.8016 * 0.04 / 3.92 / 0.01) ** 2, rel=1e-3)
    assert f"about {found.rows_needed} rows would decide it" in found.reason
    assert "+0.01, 0.95 interval [-0.01, +0.03] by mcnemar: +0 is inside" in found.reason


def test_no_number_of_rows_decides_when_the_difference_is_the_minimum_itself() -> None:
    found = assess(rule(), comparison(-0.02, 0.02))
    assert (found.verdict, found.rows_needed) == (Verdict.INCONCLUSIVE, None)
    assert "more rows would not decide it" in found.reason


def test_the_rows_that_are_named_decide_with_four_fifths_probability() -> None:
    error, distance, confidence = 0.02, 0.013, 0.9
    needed = rows_needed(400, error, distance, confidence)
    assert needed is not None
    normal = NormalDist()
    then = error * math.sqrt(400 / needed)
    chance = normal.cdf(distance / then - normal.inv_cdf((1 + confidence) / 2))
    assert chance == pytest.approx(0.8, abs=0.001)
    assert rows_needed(400, error, -distance, confidence) == needed


def test_the_rows_needed_agree_with_the_usual_sample_size_of_a_paired_t_test() -> None:
    from statsmodels.stats.power import NormalIndPower

    size = NormalIndPower(ddof=0).solve_power(effect_size=0.3, alpha=0.05, power=0.8, ratio=0)
    assert rows_needed(25, 1 / 5, 0.3, 0.95) == math.ceil(size)


def test_more_rows_than_there_are_is_the_least_that_is_asked_for() -> None:
    assert rows_needed(1000, 1e-9, 1.0, 0.95) == 1001
    assert rows_needed(1000, 1.0, 5e-324, 0.95) is None


def evidence(*comparisons: MetricComparison, champion: bool = True, **changes: Any) -> EvaluationEvidence:
    given: dict[str, Any] = {
        "identity": "e",
        "run_id": "r",
        "model_type": "classifier",
        "target": "y",
        "dataset": DatasetPin(uri="d.csv"),
        "rows": 1000,
        "candidate": ModelEvidence(model_uri="models:/m-1", metrics={"accuracy": 0.93}),
        "champion": ModelEvidence(model_uri="models:/m/1", metrics={"accuracy": 0.91}) if champion else None,
        "comparisons": comparisons,
        "created_at": "2026-11-21T02:00:00+00:00",
        **changes,
    }
    return EvaluationEvidence(**given)


BETTER = MetricComparison(**comparison(0.01, 0.03).__dict__)
WORSE = MetricComparison(**comparison(-0.03, -0.01, method="bootstrap").__dict__)


def test_the_result_holds_improvement_interval_and_bound() -> None:
    result = judge_significance(rule(min_effect=0.005), evidence(BETTER), same_model=False)
    assert (result.kind, result.verdict, result.metric) == ("significance", Verdict.PASSED, "accuracy")
    assert (result.value, result.low, result.high, result.bound) == (pytest.approx(0.02), 0.01, 0.03, 0.005)
    assert result.champion_value == 0.91
    assert result.rule == "accuracy better than champion by >= 0.005 (0.95 confidence, >= 100 rows)"


def test_a_rule_takes_the_first_comparison_or_the_one_by_its_method() -> None:
    found = evidence(BETTER, WORSE)
    assert judge_significance(rule(), found, same_model=False).verdict is Verdict.PASSED
    by_bootstrap = judge_significance(rule(method="bootstrap"), found, same_model=False)
    assert by_bootstrap.verdict is Verdict.FAILED
    assert by_bootstrap.rule.endswith("(0.95 confidence, >= 100 rows, bootstrap)")


def test_a_comparison_that_was_not_made_is_inconclusive_and_names_those_that_were() -> None:
    result = judge_significance(rule(metric="f1"), evidence(BETTER), same_model=False)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "made no such comparison of f1 (made: accuracy by mcnemar)" in result.reason
    assert (result.value, result.low) == (None, None)


def test_without_a_champion_the_rule_does_not_apply() -> None:
    assert judge_significance(rule(), evidence(champion=False), same_model=False).verdict is None


def test_the_champion_itself_is_not_compared() -> None:
    result = judge_significance(rule(), evidence(BETTER), same_model=True)
    assert (result.verdict, result.reason) == (
        Verdict.INCONCLUSIVE,
        "the candidate is the champion; there is nothing to compare",
    )


def test_self_reported_evidence_is_refused() -> None:
    nothing: dict[str, Any] = {"self_reported": True, "dataset": None, "model_type": None, "rows": 0}
    found = evidence(champion=False, **nothing)
    assert judge_significance(rule(), found, same_model=False).verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            [{"metric": "accuracy", "min_efect": 1}],
            "significance[0].min_efect is not a known name. Did you mean 'min_effect'?",
        ),
        ([{"metric": "latency"}], "it is not known whether higher or lower values of 'latency' are better"),
        ([{"min_effect": 1}], "significance[0].metric is missing"),
        (["accuracy", {"metric": "f1", "confidence": 95}], "significance[1].confidence must be less than 1; got 95"),
        ([{"metric": "f1", "min_effect": math.nan}], "significance[0].min_effect"),
        ([{"metric": "f1", "min_rows": 0}], "significance[0].min_rows"),
        ([{"metric": "f1", "method": "t"}], "significance[0].method"),
        ([3], "significance[0] must be a mapping; got 3"),
        ("accuracy", "significance must be a list of metrics or mappings; got 'accuracy'"),
        ({"metric": "f1"}, "significance must be a list of metrics or mappings"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_its_place(given: Any, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_metric_list(SignificanceRule, "significance", given)
    assert problem in str(caught.value)


def test_every_rule_that_cannot_be_read_is_named_with_what_is_allowed() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_metric_list(SignificanceRule, "significance", [{"metric": "f1", "x": 1}, {"metric": "f1", "min_rows": 0}])
    assert "significance[0].x" in str(caught.value)
    assert "significance[1].min_rows" in str(caught.value)
    assert "Known names: confidence, method, metric, min_effect, min_rows" in str(caught.value)


def test_a_name_stands_for_a_rule_with_its_defaults() -> None:
    assert read_metric_list(SignificanceRule, "s", ["f1"]) == (SignificanceRule(metric="f1"),)
    assert read_argument(SignificanceRule, "s", {"metric": "f1"}) == SignificanceRule(metric="f1")
