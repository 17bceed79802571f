"""The significance of differences between candidate and champion, and intervals of metrics. Gates decide about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from airflow_mcp.core.evaluation.evidence import (
    SLICE_CONFIDENCE,
    ComparisonMethod,
    ComparisonRequest,
    MetricComparison,
    MetricInterval,
)
from airflow_mcp.core.gate.rules.slices import wilson_interval
from airflow_mcp.work.measures.bootstrap import Ranking, rankings, resample
from airflow_mcp.work.measures.classes import Array
from airflow_mcp.work.measures.scoring import ScoredModel

SLICE_RESAMPLES = 1_000
"""Fewer than for a comparison: there may be hundreds of slices and metrics."""
EXACT_BELOW = 25
"""Rows on which exactly one model is right, below which McNemar's test is the exact binomial one."""
MAX_UNDEFINED = 0.01
"""Largest share of resamples in which the metric may be undefined. Such resamples are left out."""
_NORMAL = NormalDist()


class Estimate(NamedTuple):
    """A number with its interval, standard error, p-value and a note."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    p_value: float | None = None
    note: str = ""


def compare_models(
    candidate: ScoredModel, champion: ScoredModel, requests: Sequence[ComparisonRequest]
) -> tuple[MetricComparison, ...]:
    """Compare two models on the same rows.

    :param candidate: its predictions.
    :param champion: its predictions for the same rows.
    :param requests: metrics and methods.
    :return: one comparison per request, in the same order.
    """
    return tuple(_compare(candidate, champion, request) for request in requests)


def _compare(candidate: ScoredModel, champion: ScoredModel, request: ComparisonRequest) -> MetricComparison:
    method = _method(candidate, request)
    undefined = {**champion.measure().undefined, **candidate.measure().undefined}
    if request.metric in undefined:
        estimate = Estimate(note=f"{request.metric} is undefined: {undefined[request.metric]}")
    elif method == "mcnemar":
        right = candidate.predicted == candidate.true, champion.predicted == champion.true
        only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        estimate = mcnemar(*only, len(candidate.true), request.confidence)
    elif method == "delong" and len(rankings(candidate)) > 1:
        estimate = Estimate(note="DeLong's test needs exactly two classes; use method bootstrap")
    elif method == "delong":
        estimate = delong(rankings(candidate)[0], rankings(champion)[0], request.confidence)
    else:
        estimate = paired_bootstrap([candidate, champion], request)
    if not _is_finite(estimate):
        estimate = Estimate(note="a number is too large for a double")
    drawn = method == "bootstrap"
    return MetricComparison(
        metric=request.metric,
        method=method,
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        confidence=request.confidence,
        p_value=estimate.p_value,
        standard_error=estimate.standard_error,
        rows=len(candidate.true),
        resamples=request.resamples if drawn else 0,
        seed=request.seed if drawn else 0,
        note=estimate.note,
    )


def _is_finite(estimate: Estimate) -> bool:
    """Return whether every number that is known is finite: differences and squares of large numbers may not be."""
    return all(math.isfinite(number) for number in estimate[:-1] if number is not None)


def _method(model: ScoredModel, request: ComparisonRequest) -> ComparisonMethod:
    if request.method != "auto":
        return request.method
    if request.metric == "accuracy":
        return "mcnemar"
    two_classes = model.classes is not None and model.classes.positive is not None
    return "delong" if request.metric == "roc_auc" and two_classes else "bootstrap"


def paired_bootstrap(models: Sequence[ScoredModel], request: ComparisonRequest) -> Estimate:
    """Return the percentile interval of a metric, or of the difference of two models (Efron and Tibshirani 1993).

    :param models: one model, or candidate and champion with predictions for the same rows.
    :param request: metric, confidence, resamples and seed.
    """
    drawn = resample(models, request.metric, request.resamples, request.seed)
    measured = [model.measure().metrics[request.metric] for model in models]
    value = measured[0] - measured[1] if len(models) > 1 else measured[0]
    numbers = drawn[:, 0] - drawn[:, 1] if len(models) > 1 else drawn[:, 0]
    numbers = numbers[np.isfinite(numbers)]
    undefined = len(drawn) - len(numbers)
    if undefined > MAX_UNDEFINED * len(drawn):
        return Estimate(value, note=f"the metric is undefined in {undefined} of {len(drawn)} resamples")
    with np.errstate(over="ignore", invalid="ignore"):  # callers look whether the numbers are finite
        return _percentiles(value, numbers, undefined, request.confidence)


def _percentiles(value: float, numbers: Array, undefined: int, confidence: float) -> Estimate:
    low, high = np.quantile(numbers, [(1 - confidence) / 2, (1 + confidence) / 2])
    note = f"{undefined} resamples in which the metric is undefined are left out" if undefined else ""
    # Equal numbers have standard error 0, which rounding would spoil.
    error = float(numbers.std(ddof=1)) if np.ptp(numbers) > 0 else 0.0
    return Estimate(value, float(low), float(high), error, note=note)


def mcnemar(only_candidate: int, only_champion: int, rows: int, confidence: float) -> Estimate:
    """Compare two accuracies on the same rows.

    The p-value is McNemar's (1947): the exact two-sided binomial one with fewer than 25 rows on which exactly one
    model is right, otherwise chi-squared with Edwards' continuity correction (1948). The interval is the adjusted Wald
    interval for paired proportions of Bonett and Price (2012).

    :param only_candidate: rows on which only the candidate is right.
    :param only_champion: rows on which only the champion is right.
    :param rows: all rows.
    :param confidence: two-sided.
    """
    discordant = only_candidate + only_champion
    if discordant < EXACT_BELOW:
        lower = min(only_candidate, only_champion)
        tail = sum(math.comb(discordant, count) for count in range(lower + 1))
        p_value, how = min(1.0, 2 * tail / 2**discordant), "exact binomial"
    else:
        squared = (abs(only_candidate - only_champion) - 1) ** 2 / discordant if only_candidate != only_champion else 0
        p_value, how = math.erfc(math.sqrt(squared / 2)), "continuity-corrected chi-squared"
    first, second = (only_candidate + 1) / (rows + 2), (only_champion + 1) / (rows + 2)
    error = math.sqrt((first + second - (first - second) ** 2) / (rows + 2))
    half = _NORMAL.inv_cdf((1 + confidence) / 2) * error
    return Estimate(
        (only_candidate - only_champion) / rows,
        max(-1.0, first - second - half),
        min(1.0, first - second + half),
        error,
        p_value,
        f"only the candidate is right on {only_candidate} rows, only the champion on {only_champion}; p-value: {how}",
    )


def delong(candidate: Ranking, champion: Ranking, confidence: float) -> Estimate:
    """Compare two areas under ROC curves on the same rows (DeLong, DeLong and Clarke-Pearson 1988).

    The structural components are computed from sorted scores instead of all pairs, as Sun and Xu (2014) show.

    :param candidate: ranking by its scores.
    :param champion: ranking of the same rows by its scores.
    :param confidence: two-sided.
    """
    of_positives, of_negatives = zip(_components(candidate), _components(champion), strict=True)
    difference = float(np.mean(of_positives[0]) - np.mean(of_positives[1]))
    positives, negatives = of_positives[0] - of_positives[1], of_negatives[0] - of_negatives[1]
    if min(len(positives), len(negatives)) < 2:
        return Estimate(difference, note="DeLong's variance needs two rows of each class")
    variance = positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives)
    error = float(np.sqrt(variance))
    half = _NORMAL.inv_cdf((1 + confidence) / 2) * error
    p_value = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else 1.0
    return Estimate(difference, difference - half, difference + half, error, p_value)


def _components(ranking: Ranking) -> tuple[Array, Array]:
    """Return, per row, the share of rows of the other class that it is ranked correctly against."""
    below, up_to = ranking.below, ranking.below if ranking.up_to is None else ranking.up_to
    positives, negatives = len(ranking.positives), len(ranking.negatives)
    of_positives = (below + up_to) / (2 * negatives)
    # The negative row at place k in sorted order is below the positive rows with below > k, and below or equal to
    # those with up_to > k.
    above = positives - np.cumsum(np.bincount(below, minlength=negatives + 1))[:negatives]
    at_least = positives - np.cumsum(np.bincount(up_to, minlength=negatives + 1))[:negatives]
    return of_positives, ((above + at_least) / (2 * positives))[np.argsort(ranking.negatives)]


def metric_intervals(model: ScoredModel, metrics: Sequence[str]) -> dict[str, MetricInterval]:
    """Return the interval of each metric of one model, on a slice or on all rows.

    Proportions have Wilson's interval: accuracy, and with two classes precision and recall. Other metrics are
    bootstrapped.

    :param model: its predictions for these rows.
    :param metrics: metrics that are defined on these rows.
    """
    counts = _proportions(model)
    intervals = {}
    for metric in metrics:
        interval = _wilson(*counts[metric]) if metric in counts else _bootstrapped(model, metric)
        if interval is not None:
            intervals[metric] = interval
    return intervals


def _proportions(model: ScoredModel) -> dict[str, tuple[int, int]]:
    if model.classes is None:
        return {}
    right = model.true == model.predicted
    proportions = {"accuracy": (int(right.sum()), len(right))}
    positive = model.classes.positive
    if positive is not None:
        hits = int((right & (model.true == positive)).sum())
        proportions["precision"] = (hits, int((model.predicted == positive).sum()))
        proportions["recall"] = (hits, int((model.true == positive).sum()))
    return proportions


def _wilson(successes: int, trials: int) -> MetricInterval:
    low, high = wilson_interval(successes, trials, SLICE_CONFIDENCE)
    share = successes / trials
    error = math.sqrt(share * (1 - share) / trials)
    return MetricInterval(
        method="wilson",
        low=low,
        high=high,
        confidence=SLICE_CONFIDENCE,
        standard_error=error,
        successes=successes,
        trials=trials,
    )


def _bootstrapped(model: ScoredModel, metric: str) -> MetricInterval | None:
    request = ComparisonRequest(metric=metric, confidence=SLICE_CONFIDENCE, resamples=SLICE_RESAMPLES)
    found = paired_bootstrap([model], request)
    if found.low is None or found.high is None or found.standard_error is None or not _is_finite(found):
        return None
    limits: dict[str, Any] = {"low": found.low, "high": found.high, "standard_error": found.standard_error}
    return MetricInterval(method="bootstrap", confidence=SLICE_CONFIDENCE, **limits)
