"""The verdict on a window: few or biased labels never let it pass."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.evaluation.evidence import MetricInterval
from airflow_mcp.core.quality.judgement import WindowFacts, WindowJudgement, estimate_basis, find_bias, judge_window
from airflow_mcp.core.quality.policy import QualityLimit, QualityPolicy
from airflow_mcp.core.quality.summary import Baseline, LabelGroup

MINIMUM = QualityLimit(metric="accuracy", minimum=0.8)
LOSS = QualityLimit(metric="accuracy", largest_loss=0.05)
BASELINE = Baseline(version="3", metrics={"accuracy": 0.9}, calibration_error=0.02)


def interval(low: float, high: float) -> MetricInterval:
    return MetricInterval(method="bootstrap", low=low, high=high, confidence=0.95, standard_error=0.01)


def judge(*limits: QualityLimit, baseline: Baseline | None = BASELINE, **facts: Any) -> WindowJudgement:
    known: dict[str, Any] = {
        "rows": 1000,
        "labelled": 900,
        "versions": {"3": 1000},
        "metrics": {"accuracy": 0.9},
        "undefined": {},
        "intervals": {"accuracy": interval(0.88, 0.92)},
        "label_groups": [],
        **facts,
    }
    return judge_window(WindowFacts(**known), QualityPolicy(limits=limits or (MINIMUM,)), baseline)


class TestALimit:
    @pytest.mark.parametrize(
        ("low", "high", "verdict"),
        [(0.81, 0.99, "not_degraded"), (0.8, 0.9, "not_degraded"), (0.7, 0.79, "degraded"), (0.7, 0.8, "inconclusive")],
    )
    def test_is_kept_or_broken_by_the_whole_interval(self, low: float, high: float, verdict: str) -> None:
        assert judge(intervals={"accuracy": interval(low, high)}).verdict == verdict

    @pytest.mark.parametrize(
        ("low", "high", "verdict"), [(1, 2, "not_degraded"), (3, 4, "degraded"), (1, 3, "inconclusive")]
    )
    def test_may_be_a_maximum(self, low: float, high: float, verdict: str) -> None:
        found = judge(
            QualityLimit(metric="rmse", maximum=2), metrics={"rmse": 1.5}, intervals={"rmse": interval(low, high)}
        )
        assert found.verdict == verdict

    def test_against_the_evaluation_needs_that_evaluation(self) -> None:
        assert judge(LOSS).verdict == "not_degraded"
        for baseline in (None, Baseline(version="3")):
            found = judge(LOSS, baseline=baseline)
            assert (found.verdict, "did not measure it" in found.reason) == ("inconclusive", True)

    def test_against_the_evaluation_is_about_that_version_only(self) -> None:
        found = judge(LOSS, versions={"2": 400, "3": 600})
        assert found.verdict == "inconclusive"
        assert "version 2 answered too, and the baseline is that of version 3" in found.reason
        assert judge(MINIMUM, versions={"2": 400, "3": 600}).verdict == "not_degraded"

    def test_without_a_value_or_an_interval_is_unknown(self) -> None:
        missing = judge(metrics={}, intervals={}, undefined={"accuracy": "nobody knows"})
        assert (missing.verdict, "nobody knows" in missing.reason) == ("inconclusive", True)
        assert judge(intervals={}).verdict == "inconclusive"

    def test_that_is_broken_counts_more_than_one_that_is_unknown(self) -> None:
        found = judge(MINIMUM, QualityLimit(metric="f1", minimum=0.5), intervals={"accuracy": interval(0.1, 0.2)})
        assert (found.verdict, len(found.limits)) == ("degraded", 2)


class TestLabels:
    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"rows": 0, "labelled": 0}, "the log has no prediction"),
            ({"labelled": 799}, "79.9% of 1000 predictions are labelled, and min_labelled is 80.0%"),
            ({"rows": 99, "labelled": 99}, "99 predictions are labelled, and min_rows is 100"),
        ],
    )
    def test_that_are_too_few_let_nothing_pass(self, facts: dict[str, int], reason: str) -> None:
        found = judge(**facts)
        assert (found.verdict, reason in found.reason) == ("inconclusive", True)

    def test_that_are_biased_let_nothing_pass_and_nothing_fail(self) -> None:
        groups = [LabelGroup(value="ok", rows=800, labelled=640), LabelGroup(value="fraud", rows=200, labelled=200)]
        biased = find_bias("prediction", groups, 1e-9, QualityPolicy(limits=(MINIMUM,)))
        assert biased.is_biased
        for low, high in ((0.81, 0.9), (0.1, 0.2)):
            found = judge(intervals={"accuracy": interval(low, high)}, label_groups=[biased])
            assert found.verdict == "inconclusive"
            assert "100% of the predictions with prediction 'fraud' are labelled, and 90% of all" in found.reason

    @pytest.mark.parametrize(("p_value", "is_biased"), [(0.5, False), (None, False), (0.001, True)])
    def test_are_biased_only_beyond_chance(self, p_value: float | None, is_biased: bool) -> None:
        groups = [LabelGroup(value="a", rows=50, labelled=50), LabelGroup(value="b", rows=50, labelled=30)]
        assert find_bias("country", groups, p_value, QualityPolicy(limits=(MINIMUM,))).is_biased is is_biased

    def test_of_small_groups_and_small_differences_are_not_biased(self) -> None:
        rare = [LabelGroup(value="a", rows=1000, labelled=900), LabelGroup(value="b", rows=29, labelled=0)]
        near = [LabelGroup(value="a", rows=1000, labelled=900), LabelGroup(value="b", rows=1000, labelled=850)]
        for groups in (rare, near):
            assert not find_bias("country", groups, 1e-9, QualityPolicy(limits=(MINIMUM,))).is_biased


class TestAnEstimateWithoutLabels:
    def test_is_made_from_calibrated_probabilities(self) -> None:
        found = estimate_basis(2, "positive", BASELINE, QualityPolicy(limits=(MINIMUM,)))
        assert found.is_allowed
        assert "0.02 in its evaluation" in found.reason

    @pytest.mark.parametrize(
        ("classes", "probability", "baseline", "reason"),
        [
            (0, "positive", BASELINE, "got a regressor"),
            (3, "positive", BASELINE, "with 3 classes"),
            (2, "", BASELINE, "does not say what the log's probabilities are about"),
            (2, "positive", None, "does not say whether its probabilities are calibrated"),
            (2, "positive", Baseline(version="3"), "does not say whether its probabilities are calibrated"),
            (2, "positive", Baseline(version="3", calibration_error=0.2), "expected calibration error is 0.2"),
        ],
    )
    def test_is_refused_for_everything_else(
        self, classes: int, probability: Any, baseline: Baseline | None, reason: str
    ) -> None:
        found = estimate_basis(classes, probability, baseline, QualityPolicy(limits=(MINIMUM,)))
        assert (found.is_allowed, reason in found.reason) == (False, True)
