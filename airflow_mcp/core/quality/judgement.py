"""The verdict on one window of predictions, and on the whole check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from airflow_mcp.core.evaluation.evidence import MetricInterval
from airflow_mcp.core.quality.policy import QualityLimit, QualityPolicy
from airflow_mcp.core.quality.summary import (
    Baseline,
    EstimateBasis,
    LabelGroup,
    LabelGroups,
    LimitResult,
    LimitVerdict,
    ProbabilityOf,
    QualityVerdict,
    QualityWindow,
)

BIAS_P_VALUE = 0.01
"""A difference between groups counts as bias only when chance alone would make it less often than this."""


class WindowFacts(NamedTuple):
    """What is known of one window whose label delay has passed."""

    rows: int
    labelled: int
    versions: Mapping[str, int]
    metrics: Mapping[str, float]
    undefined: Mapping[str, str]
    intervals: Mapping[str, MetricInterval]
    label_groups: Sequence[LabelGroups]


class WindowJudgement(NamedTuple):
    """The verdict on one window."""

    verdict: QualityVerdict
    reason: str
    limits: tuple[LimitResult, ...] = ()


def judge_window(facts: WindowFacts, policy: QualityPolicy, baseline: Baseline | None) -> WindowJudgement:
    """Return the verdict on a window; labels that are too few or biased never let it pass.

    :param facts: what was measured.
    :param policy: limits and shares.
    :param baseline: what the champion's evaluation measured, for limits that depend on it.
    """
    if doubt := _doubt(facts, policy):
        return WindowJudgement("inconclusive", doubt)
    limits = tuple(_judge_limit(limit, facts, baseline) for limit in policy.limits)
    broken = [each for each in limits if each.verdict == "broken"]
    if broken:
        return WindowJudgement("degraded", "; ".join(map(_words, broken)), limits)
    unknown = [each for each in limits if each.verdict == "unknown"]
    if unknown:
        return WindowJudgement("inconclusive", "; ".join(map(_words, unknown)), limits)
    return WindowJudgement("not_degraded", "; ".join(map(_words, limits)), limits)


def judge_check(windows: Sequence[QualityWindow]) -> tuple[QualityVerdict, str]:
    """Return the verdict of a check, which is that of its newest window whose label delay has passed.

    :param windows: oldest first.
    """
    due = [window for window in windows if window.is_due]
    newest = due[-1]
    return newest.verdict or "inconclusive", f"window {newest.start:%Y-%m-%d %H:%M}: {newest.reason}"


def find_bias(column: str, groups: Sequence[LabelGroup], p_value: float | None, policy: QualityPolicy) -> LabelGroups:
    """Return whether labels arrive for some groups of predictions more than for others.

    :param column: what the predictions are grouped by.
    :param groups: the groups, largest first.
    :param p_value: of the test that the labelled share is the same in every group; None when it cannot be tested.
    :param policy: how large a difference may be, and which groups are compared.
    """
    rows, labelled = sum(group.rows for group in groups), sum(group.labelled for group in groups)
    share = labelled / rows if rows else 0.0
    gaps = {
        group.value: abs(group.labelled / group.rows - share) for group in groups if group.rows >= policy.min_group_rows
    }
    worst = max(gaps, key=lambda value: gaps[value], default="")
    gap = gaps.get(worst, 0.0)
    is_biased = gap > policy.largest_label_gap and p_value is not None and p_value < BIAS_P_VALUE
    return LabelGroups(
        column=column, groups=tuple(groups), p_value=p_value, gap=gap, worst=worst if gap else "", is_biased=is_biased
    )


def estimate_basis(
    classes: int, probability: ProbabilityOf, baseline: Baseline | None, policy: QualityPolicy
) -> EstimateBasis:
    """Return whether quality may be estimated without labels: only from probabilities known to be calibrated.

    :param classes: number of classes; 0 for a regressor.
    :param probability: what the log's probabilities are about.
    :param baseline: what the champion's evaluation measured.
    :param policy: the largest calibration error.
    """
    if classes != 2:
        what = "a regressor" if not classes else f"a classifier with {classes} classes"
        return EstimateBasis(is_allowed=False, reason=f"only classifiers of two classes can be estimated; got {what}")
    if not probability:
        return EstimateBasis(is_allowed=False, reason="probability does not say what the log's probabilities are about")
    error = None if baseline is None else baseline.calibration_error
    if baseline is None or error is None:
        return EstimateBasis(
            is_allowed=False, reason="the champion's evaluation does not say whether its probabilities are calibrated"
        )
    limit = policy.largest_calibration_error
    if error > limit:
        return EstimateBasis(
            is_allowed=False,
            reason=f"the probabilities of version {baseline.version} are not calibrated: their expected calibration "
            f"error is {error:.3g}, and largest_calibration_error is {limit:g}",
        )
    return EstimateBasis(
        is_allowed=True,
        reason=f"the expected calibration error of version {baseline.version} was {error:.3g} in its evaluation; the "
        "estimate holds only as long as the probabilities stay calibrated",
    )


def _doubt(facts: WindowFacts, policy: QualityPolicy) -> str:
    """Return why a window cannot be judged; empty when it can."""
    if not facts.rows:
        return "the log has no prediction in it"
    share = facts.labelled / facts.rows
    if share < policy.min_labelled:
        return f"{share:.1%} of {facts.rows} predictions are labelled, and min_labelled is {policy.min_labelled:.1%}"
    if facts.labelled < policy.min_rows:
        return f"{facts.labelled} predictions are labelled, and min_rows is {policy.min_rows}"
    biased = [groups for groups in facts.label_groups if groups.is_biased]
    return "; ".join(_bias_words(groups, share) for groups in biased)


def _bias_words(found: LabelGroups, share: float) -> str:
    worst = next(group for group in found.groups if group.value == found.worst)
    return (
        f"labels are biased: {worst.labelled / worst.rows:.0%} of the predictions with {found.column} "
        f"{worst.value!r} are labelled, and {share:.0%} of all"
    )


def _judge_limit(limit: QualityLimit, facts: WindowFacts, baseline: Baseline | None) -> LimitResult:
    known = baseline.metrics.get(limit.metric) if baseline is not None else None
    bound, value = limit.bound(known), facts.metrics.get(limit.metric)
    interval = facts.intervals.get(limit.metric)
    verdict, note = _compare(limit, facts, baseline, bound)
    return LimitResult(
        metric=limit.metric,
        needs_at_least=limit.needs_at_least,
        bound=bound,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        verdict=verdict,
        note=note,
    )


def _compare(
    limit: QualityLimit, facts: WindowFacts, baseline: Baseline | None, bound: float | None
) -> tuple[LimitVerdict, str]:
    if limit.is_relative and baseline is not None and set(facts.versions) - {baseline.version}:
        others = ", ".join(sorted(set(facts.versions) - {baseline.version}))
        return "unknown", f"version {others} answered too, and the baseline is that of version {baseline.version}"
    if bound is None:
        return "unknown", "the champion's evaluation did not measure it"
    if limit.metric not in facts.metrics:
        return "unknown", facts.undefined.get(limit.metric, "it was not measured")
    interval = facts.intervals.get(limit.metric)
    if interval is None:
        return "unknown", "its interval could not be computed"
    worst, best = (interval.low, interval.high) if limit.needs_at_least else (-interval.high, -interval.low)
    wanted = bound if limit.needs_at_least else -bound
    if worst >= wanted:
        return "kept", ""
    return ("broken", "") if best < wanted else ("unknown", "its interval contains the limit")


def _words(result: LimitResult) -> str:
    sign = "at least" if result.needs_at_least else "at most"
    limit = "unknown" if result.bound is None else f"{result.bound:.4g}"
    value = "unknown" if result.value is None else f"{result.value:.4g}"
    interval = "" if result.low is None or result.high is None else f" ({result.low:.4g} to {result.high:.4g})"
    note = f"; {result.note}" if result.note else ""
    return f"{result.metric} is {value}{interval}, and must be {sign} {limit}{note}"
