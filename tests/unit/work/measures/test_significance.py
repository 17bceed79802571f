"""Intervals and p-values, held to scipy, statsmodels, and the definitions over all pairs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.stats

from airflow_mcp.core.evaluation.evidence import ComparisonRequest
from airflow_mcp.core.gate.rules.slices import wilson_interval
from airflow_mcp.work.measures.bootstrap import Ranking
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import compare_models, delong, mcnemar, metric_intervals

NOTHING: Any = None
BINARY = Classes((0, 1), 1)


def scored(true: Any, scores: Any = None, predicted: Any = None, classes: Classes | None = BINARY) -> ScoredModel:
    probabilities = None if scores is None else np.stack([1 - np.asarray(scores), np.asarray(scores)], axis=1)
    answers = (np.asarray(scores) > 0.5).astype(int) if predicted is None else np.asarray(predicted)
    return ScoredModel(NOTHING, None, np.asarray(true), answers, classes, probabilities, "it gives no probabilities")


def two_models(rows: int = 400, *, ties: bool = False) -> tuple[ScoredModel, ScoredModel]:
    random = np.random.default_rng(8)
    true = random.integers(0, 2, rows)
    base = random.normal(size=rows) + 1.4 * true
    answers = []
    for noise in (0.6, 0.9):
        scores = 1 / (1 + np.exp(0.7 - base - noise * random.normal(size=rows)))
        answers.append(scored(true, np.round(scores, 1) if ties else scores))
    return answers[0], answers[1]


# --- McNemar ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "only", [(0, 0), (1, 0), (5, 0), (3, 9), (12, 12), (20, 4), (12, 13), (13, 12), (59, 6), (40, 40)]
)
def test_the_p_value_is_mcnemars_as_statsmodels_has_it(only: tuple[int, int]) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as reference

    exact = sum(only) < 25
    expected = reference([[500, only[0]], [only[1], 100]], exact=exact, correction=True).pvalue if any(only) else 1.0
    found = mcnemar(*only, 600 + sum(only), 0.95)
    if only[0] == only[1] and not exact:
        expected = 1.0  # the correction of a difference of 0 would count it as a difference of 1
    assert found.p_value == pytest.approx(expected)
    assert ("exact binomial" in found.note) is exact


def test_the_p_value_of_the_published_example_of_two_votes() -> None:
    # Agresti, "Categorical Data Analysis", 2nd ed. 2002, section 10.1: approval of a prime minister in two surveys,
    # 150 changed one way and 86 the other of 1600: z squared without correction is 17.36, difference 0.04, and the
    # Wald interval with confidence 0.95 is (0.021, 0.059).
    found = mcnemar(150, 86, 1600, 0.95)
    assert found.value == pytest.approx(0.04)
    assert (found.low, found.high) == (pytest.approx(0.021, abs=5e-4), pytest.approx(0.059, abs=5e-4))
    assert found.p_value == pytest.approx(scipy.stats.chi2.sf(63**2 / 236, 1))


@pytest.mark.parametrize(("first", "second", "rows"), [(0.05, 0.05, 60), (0.02, 0.08, 100), (0.01, 0.01, 300)])
def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(
    first: float, second: float, rows: int
) -> None:
    random = np.random.default_rng(4)
    draws = random.multinomial(rows, [first, second, 1 - first - second], size=4000)
    found = [mcnemar(int(b), int(c), rows, 0.95) for b, c, _ in draws]
    held = [(item.low or 0) <= first - second <= (item.high or 0) for item in found]
    assert 0.94 <= np.mean(held) <= 1.0


def test_models_that_agree_on_every_row_still_have_an_interval_with_a_length() -> None:
    found = mcnemar(0, 0, 50, 0.95)
    assert found.value == 0.0
    assert found.low == pytest.approx(-(found.high or 0))
    assert found.high is not None
    assert 0.03 < found.high < 0.1


# --- DeLong -----------------------------------------------------------------------------------------------------------


def by_all_pairs(true: Any, first: Any, second: Any) -> tuple[float, float]:
    """Difference and variance as DeLong, DeLong and Clarke-Pearson define them, over all pairs."""
    rows = []
    for scores in (first, second):
        above = scores[true == 1][:, None] - scores[true == 0][None, :]
        won = (above > 0) + 0.5 * (above == 0)
        rows.append((won.mean(), won.mean(axis=1), won.mean(axis=0)))
    of_positives = np.cov(rows[0][1], rows[1][1])
    of_negatives = np.cov(rows[0][2], rows[1][2])
    contrast = np.array([1, -1])
    variance = contrast @ (of_positives / len(rows[0][1]) + of_negatives / len(rows[0][2])) @ contrast
    return rows[0][0] - rows[1][0], float(variance)


@pytest.mark.parametrize("ties", [False, True], ids=["no-ties", "ties"])
def test_the_variance_is_delongs_over_all_pairs(ties: bool) -> None:
    candidate, champion = two_models(ties=ties)
    first, second = candidate.probabilities[:, 1], champion.probabilities[:, 1]  # type: ignore[index]
    difference, variance = by_all_pairs(candidate.true, first, second)
    positive = candidate.true == 1
    found = delong(Ranking(positive, first), Ranking(positive, second), 0.95)
    assert found.value == pytest.approx(difference)
    assert found.standard_error == pytest.approx(variance**0.5)
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(difference) / variance**0.5))
    half = scipy.stats.norm.ppf(0.975) * variance**0.5
    assert (found.low, found.high) == (pytest.approx(difference - half), pytest.approx(difference + half))


def test_the_area_is_the_mann_whitney_statistic() -> None:
    candidate, _ = two_models()
    scores = candidate.probabilities[:, 1]  # type: ignore[index]
    useless = np.full(len(scores), 0.5)
    positive = candidate.true == 1
    found = delong(Ranking(positive, scores), Ranking(positive, useless), 0.95)
    statistic = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert found.value == pytest.approx(statistic / positive.sum() / (~positive).sum() - 0.5)


def test_scores_that_rank_alike_differ_by_nothing_and_have_no_error() -> None:
    candidate, _ = two_models()
    scores, positive = candidate.probabilities[:, 1], candidate.true == 1  # type: ignore[index]
    found = delong(Ranking(positive, scores), Ranking(positive, scores**3), 0.95)
    assert (found.value, found.standard_error, found.p_value) == (0.0, 0.0, 1.0)


def test_one_row_of_a_class_is_too_few_for_a_variance() -> None:
    true = np.array([1, 0, 0, 0])
    request = ComparisonRequest(metric="roc_auc")
    (found,) = compare_models(scored(true, [0.9, 0.1, 0.2, 0.3]), scored(true, [0.2, 0.1, 0.9, 0.3]), [request])
    assert found.difference == pytest.approx(2 / 3)
    assert (found.low, found.standard_error) == (None, None)
    assert "two rows of each class" in found.note


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def measured(model: ScoredModel, metric: str, chosen: Any) -> float:
    """Measure drawn rows, with the definition and nothing else."""
    true, predicted = model.true[chosen], model.predicted[chosen]
    if metric == "accuracy":
        return float((true == predicted).mean())
    if metric == "f1":
        return float(2 * (true & predicted).sum() / (true.sum() + predicted.sum()))
    of_true = model.probabilities[chosen, true]  # type: ignore[index]
    return float(-np.log(of_true).mean())


@pytest.mark.parametrize("metric", ["accuracy", "f1", "log_loss"])
def test_the_percentile_interval_is_scipys(metric: str) -> None:
    candidate, champion = two_models(200)

    def difference(chosen: Any) -> float:
        return measured(candidate, metric, chosen) - measured(champion, metric, chosen)

    request = ComparisonRequest(metric=metric, method="bootstrap", resamples=20_000, seed=2)
    (found,) = compare_models(candidate, champion, [request])
    reference = scipy.stats.bootstrap(
        (np.arange(200),), difference, n_resamples=1500, method="percentile", vectorized=False, rng=1
    )
    error = float(reference.standard_error)
    assert found.difference == pytest.approx(difference(np.arange(200)))
    assert found.standard_error == pytest.approx(error, rel=0.08)
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.25 * error)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.25 * error)
    assert (found.p_value, found.resamples, found.seed) == (None, 20_000, 2)


def test_the_bootstrap_agrees_with_delong_and_with_mcnemars_interval() -> None:
    candidate, champion = two_models(2000)
    for metric, formula in (("roc_auc", "delong"), ("accuracy", "mcnemar")):
        requests = [
            ComparisonRequest(metric=metric, method=formula),  # type: ignore[arg-type]
            ComparisonRequest(metric=metric, method="bootstrap", resamples=3000),
        ]
        exact, drawn = compare_models(candidate, champion, requests)
        assert drawn.difference == pytest.approx(exact.difference)
        assert drawn.standard_error == pytest.approx(exact.standard_error, rel=0.06)


def test_more_confidence_gives_a_wider_interval_from_the_same_resamples() -> None:
    candidate, champion = two_models()
    requests = [ComparisonRequest(metric="f1", resamples=500, confidence=level) for level in (0.8, 0.95, 0.99)]
    found = compare_models(candidate, champion, requests)
    for narrow, wide in pairwise(found):
        assert narrow.low is not None
        assert narrow.high is not None
        assert wide.low is not None
        assert wide.high is not None
        assert wide.low <= narrow.low < narrow.high <= wide.high
    assert len({item.standard_error for item in found}) == 1


def test_a_metric_that_too_many_resamples_leave_undefined_has_no_interval() -> None:
    true = [1, 0, 0, 0, 0, 0, 0, 0]
    model = scored(true, predicted=true)
    (found,) = compare_models(
        model, scored(true, predicted=[0] * 8), [ComparisonRequest(metric="recall", resamples=500)]
    )
    assert (found.difference, found.low, found.standard_error) == (1.0, None, None)
    assert "undefined in " in found.note


# --- which method, and what is undefined ------------------------------------------------------------------------------


def test_the_method_is_chosen_by_metric_and_classes() -> None:
    candidate, champion = two_models()
    requests = [ComparisonRequest(metric=metric, resamples=100) for metric in ("accuracy", "roc_auc", "f1", "log_loss")]
    found = compare_models(candidate, champion, requests)
    assert [(item.method, item.resamples) for item in found] == [
        ("mcnemar", 0),
        ("delong", 0),
        ("bootstrap", 100),
        ("bootstrap", 100),
    ]
    assert {item.rows for item in found} == {400}


def three_classes() -> tuple[ScoredModel, ScoredModel]:
    random = np.random.default_rng(1)
    true = random.integers(0, 3, 90)
    answers = []
    for _ in range(2):
        scores = np.exp(random.normal(size=(90, 3)) + 2 * np.eye(3)[true])
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        answers.append(
            ScoredModel(NOTHING, None, true, probabilities.argmax(axis=1), Classes((0, 1, 2), None), probabilities)
        )
    return answers[0], answers[1]


def test_the_area_of_more_than_two_classes_is_resampled_and_delong_refused() -> None:
    requests = [
        ComparisonRequest(metric="roc_auc", resamples=100),
        ComparisonRequest(metric="roc_auc", method="delong"),
    ]
    drawn, refused = compare_models(*three_classes(), requests)
    assert drawn.method == "bootstrap"
    assert drawn.low is not None
    assert (refused.difference, refused.low) == (None, None)
    assert "two classes" in refused.note


def test_a_metric_that_one_model_does_not_define_is_not_compared_and_says_why() -> None:
    candidate, champion = two_models()
    without = scored(champion.true, predicted=champion.predicted)
    (found,) = compare_models(candidate, without, [ComparisonRequest(metric="roc_auc")])
    assert (found.difference, found.p_value) == (None, None)
    assert found.note == "roc_auc is undefined: it gives no probabilities"


def test_errors_of_regressors_are_compared_with_the_sign_of_candidate_minus_champion() -> None:
    random = np.random.default_rng(2)
    true = random.normal(size=300)
    good, bad = (scored(true, predicted=true + size * random.normal(size=300), classes=None) for size in (0.5, 1.0))
    for found in compare_models(
        good, bad, [ComparisonRequest(metric=metric, resamples=300) for metric in ("mae", "rmse")]
    ):
        assert found.high is not None
        assert found.high < 0
    (r2,) = compare_models(good, bad, [ComparisonRequest(metric="r2", resamples=300)])
    assert r2.low is not None
    assert r2.low > 0


# --- slices -----------------------------------------------------------------------------------------------------------


def test_proportions_of_a_slice_rest_on_the_rows_they_are_made_of() -> None:
    model = scored([1, 1, 1, 0, 0, 0, 0, 0], predicted=[1, 1, 0, 1, 0, 0, 0, 0])
    found = metric_intervals(model, ["accuracy", "precision", "recall"])
    assert {name: (item.successes, item.trials) for name, item in found.items()} == {
        "accuracy": (6, 8),
        "precision": (2, 3),
        "recall": (2, 3),
    }
    assert {item.method for item in found.values()} == {"wilson"}
    assert (found["recall"].low, found["recall"].high) == wilson_interval(2, 3, 0.95)


def test_other_metrics_of_a_slice_are_resampled() -> None:
    candidate, _ = two_models()
    found = metric_intervals(candidate, ["f1", "roc_auc"])
    assert {item.method for item in found.values()} == {"bootstrap"}
    for name, item in found.items():
        assert item.low < candidate.measure().metrics[name] < item.high
        assert (item.successes, item.trials) == (None, None)


def test_recall_over_several_classes_is_no_proportion() -> None:
    assert metric_intervals(three_classes()[0], ["accuracy", "recall"])["recall"].method == "bootstrap"


def test_a_metric_without_an_interval_is_absent() -> None:
    model = scored([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3])
    assert set(metric_intervals(model, ["roc_auc", "log_loss"])) == {"log_loss"}


def test_numbers_too_large_for_a_double_have_no_interval_and_say_so() -> None:
    random = np.random.default_rng(3)
    true = random.choice([1e200, -1e200], 100)
    first, second = (scored(true, predicted=true * factor, classes=None) for factor in (-0.5, 0.5))
    assert metric_intervals(first, ["mae"]) == {}
    found = compare_models(first, second, [ComparisonRequest(metric="mae"), ComparisonRequest(metric="rmse")])
    assert [(each.difference, each.low, each.note) for each in found] == [
        (None, None, "a number is too large for a double"),
        (None, None, "rmse is undefined: the number is too large for a double"),
    ]
