"""Rules on the improvement over the champion: is it larger than chance explains?

The work plane measures the interval of the difference, on the same rows for both models. Here it is compared with the
smallest improvement that counts.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, NamedTuple

from pydantic import Field, field_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.evidence import Confidence, EvaluationEvidence, MethodChoice, MetricComparison
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.thresholds import in_mode
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict
from airflow_mcp.core.metrics import metric_direction, metric_name

POWER = 0.8
"""Probability that the estimated number of rows decides, if the true difference is the measured one."""


class SignificanceRule(Document):
    """The smallest improvement over the champion that must be certain."""

    metric: str
    min_effect: float = 0.0
    """Smallest improvement, in units of the metric, towards the better side. A negative value is the largest
    deterioration that is accepted."""
    confidence: Confidence = 0.95
    """The comparison must have been made with at least this confidence."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """The rule is inconclusive with fewer rows."""
    method: MethodChoice = "auto"
    """Comparison method to use; ``auto`` takes the first comparison of the metric."""
    mode: RuleMode = "enforce"

    @field_validator("metric")
    @classmethod
    def _be_known(cls, metric: str) -> str:
        metric_direction(metric)
        return metric_name(metric)

    def improvement(self, difference: float) -> float:
        """Return how much better the candidate is, from candidate minus champion."""
        return difference if metric_direction(self.metric) == "maximize" else 0.0 - difference

    def __str__(self) -> str:
        """Return the rule with every setting that affects its verdict."""
        by = "" if self.method == "auto" else f", {self.method}"
        return in_mode(
            self.mode,
            f"{self.metric} better than champion by >= {self.min_effect:.12g} "
            f"({self.confidence:.6g} confidence, >= {self.min_rows} rows{by})",
        )


class Assessment(NamedTuple):
    """The verdict on one comparison."""

    verdict: Verdict
    reason: str
    rows_needed: int | None = None


def judge_significance(rule: SignificanceRule, evidence: EvaluationEvidence, *, same_model: bool) -> RuleResult:
    """Judge one significance rule.

    :param rule: the rule.
    :param evidence: result of the evaluation, with its comparisons.
    :param same_model: whether candidate and champion are the same model.
    """
    comparison = _find(rule, evidence)
    verdict: Verdict | None
    if evidence.self_reported:
        verdict, reason, rows_needed = Assessment(
            Verdict.ERROR, "refused: self-reported metrics cannot be compared with the champion; evaluate on data"
        )
    elif evidence.champion is None:
        verdict, reason, rows_needed = None, "does not apply: there is no champion yet", None
    elif same_model:
        verdict, reason, rows_needed = Assessment(
            Verdict.INCONCLUSIVE, "the candidate is the champion; there is nothing to compare"
        )
    elif comparison is None:
        verdict, reason, rows_needed = Assessment(Verdict.INCONCLUSIVE, _not_compared(rule, evidence))
    else:
        verdict, reason, rows_needed = assess(rule, comparison)
    value, low, high = _improvements(rule, comparison) if comparison else (None, None, None)
    return RuleResult(
        rule=str(rule),
        metric=rule.metric,
        kind="significance",
        mode=rule.mode,
        verdict=verdict,
        value=value,
        bound=rule.min_effect,
        champion_value=evidence.champion.metrics.get(rule.metric) if evidence.champion else None,
        low=low,
        high=high,
        rows_needed=rows_needed,
        reason=reason,
    )


def assess(rule: SignificanceRule, comparison: MetricComparison) -> Assessment:
    """Compare the interval of the improvement with the smallest one that counts.

    :param rule: what must be certain.
    :param comparison: what was measured; it is of the rule's metric.
    :return: passed when the whole interval is at or above the minimum, failed when the whole of it is below,
        otherwise inconclusive. A number that is missing or not finite never passes and never fails.
    """
    cannot = _why_not(rule, comparison)
    value, low, high = _improvements(rule, comparison)
    error = comparison.standard_error
    if cannot is not None or value is None or low is None or high is None or error is None:
        return cannot or Assessment(
            Verdict.INCONCLUSIVE, f"no interval by {comparison.method}: {comparison.note or 'no reason'}"
        )
    measured = f"{value:+.4g}, {comparison.confidence:.4g} interval [{low:+.4g}, {high:+.4g}] by {comparison.method}"
    minimum = f"{rule.min_effect:+.4g}"
    if low >= rule.min_effect:
        return Assessment(Verdict.PASSED, f"{measured}: all of it at least {minimum}")
    if high < rule.min_effect:
        return Assessment(Verdict.FAILED, f"{measured}: all of it below {minimum}")
    needed = rows_needed(comparison.rows, error, value - rule.min_effect, comparison.confidence)
    return Assessment(Verdict.INCONCLUSIVE, f"{measured}: {minimum} is inside; {_in_words(needed)}", needed)


def _why_not(rule: SignificanceRule, comparison: MetricComparison) -> Assessment | None:
    """Return the assessment of a comparison that decides nothing whatever its interval; None when it may decide."""
    given, wanted = comparison.confidence, rule.confidence
    if given < wanted:
        why = f"the comparison was made with confidence {given:g}, the rule wants {wanted:g}; ask the evaluation for it"
        return Assessment(Verdict.INCONCLUSIVE, why)
    if comparison.rows < rule.min_rows:
        few = f"{comparison.rows} rows; at least {rule.min_rows} are needed"
        return Assessment(Verdict.INCONCLUSIVE, few, rule.min_rows)
    numbers = (comparison.difference, comparison.low, comparison.high, comparison.standard_error)
    if not all(number is None or math.isfinite(number) for number in numbers):
        return Assessment(Verdict.INCONCLUSIVE, f"the interval by {comparison.method} is not finite")
    if comparison.standard_error == 0:
        is_drawn = comparison.method == "bootstrap"
        cause = "every resample gives the same difference" if is_drawn else "the standard error of the difference is 0"
        return Assessment(Verdict.INCONCLUSIVE, f"{cause}, so nothing says how certain it is")
    return None


def rows_needed(rows: int, standard_error: float, distance: float, confidence: float) -> int | None:
    """Estimate how many rows would decide, if the true difference is the measured one.

    ``n = ((z(1-alpha/2) + z(power)) * sigma / distance) ** 2`` with ``sigma = standard_error * sqrt(rows)`` (Lachin,
    "Introduction to sample size determination and power analysis for clinical trials", 1981, section 3) and a power
    of 0.8. It is an estimate: ``distance`` itself was measured on few rows.

    :param rows: rows measured on.
    :param standard_error: standard error of the measured number on these rows.
    :param distance: difference between the measured number and the limit.
    :param confidence: confidence of the two-sided interval.
    :return: more than ``rows``; None when the distance is 0, which no number of rows decides.
    """
    if not distance:
        return None
    normal = NormalDist()
    quantiles = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(POWER)
    needed = rows * (quantiles * standard_error / distance) ** 2
    return max(rows + 1, math.ceil(needed)) if math.isfinite(needed) else None


def _find(rule: SignificanceRule, evidence: EvaluationEvidence) -> MetricComparison | None:
    for comparison in evidence.comparisons:
        if comparison.metric == rule.metric and rule.method in ("auto", comparison.method):
            return comparison
    return None


def _not_compared(rule: SignificanceRule, evidence: EvaluationEvidence) -> str:
    made = ", ".join(f"{item.metric} by {item.method}" for item in evidence.comparisons) or "none"
    return f"the evaluation made no such comparison of {rule.metric} (made: {made}); name it in its comparisons"


def _improvements(
    rule: SignificanceRule, comparison: MetricComparison
) -> tuple[float | None, float | None, float | None]:
    """Return the improvement and both ends of its interval; the ends swap for metrics where less is better."""
    value, low, high = (
        None if number is None else rule.improvement(number)
        for number in (comparison.difference, comparison.low, comparison.high)
    )
    if low is not None and high is not None and low > high:
        low, high = high, low
    return value, low, high


def _in_words(needed: int | None) -> str:
    if needed is None:
        return "more rows would not decide it, if the difference stays what it is"
    return f"about {needed} rows would decide it, if the difference stays what it is"
