"""Rules on slices of the data: a floor for every slice, and the largest gap between slices.

Each slice is tested separately: is its metric certainly on the right side of the floor? With many slices, some would
fail by chance alone, so p-values are corrected over the slices of a column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.evaluation.evidence import Confidence, EvaluationEvidence, MetricInterval, SliceEvidence
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.significance import rows_needed
from airflow_mcp.core.gate.rules.thresholds import MetricThreshold, in_mode, parse_threshold
from airflow_mcp.core.gate.rules.verdicts import RuleMode, Verdict
from airflow_mcp.core.metrics import check_spelling
from airflow_mcp.exceptions import InvalidArgumentError

Correction = Literal["holm", "bonferroni", "none"]
Interval = tuple[float, float]
_NORMAL = NormalDist()


class SlicePolicy(Document):
    """Limits for every slice, and between slices."""

    floors: tuple[str, ...] = ()
    """Rules with a number, such as ``recall >= 0.8`` or ``mae <= 3``, that every slice must meet."""
    max_gap: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Largest difference between any two slices of one column, by metric."""
    by: tuple[str, ...] = ()
    """Slice columns to judge; empty judges every slice column of the evidence."""
    min_rows: Annotated[int, Field(ge=1)] = 30
    """A metric is inconclusive in a slice with fewer rows."""
    confidence: Confidence = 0.95
    correction: Correction = "holm"
    """How p-values are corrected over the slices of a column."""
    mode: RuleMode = "enforce"

    @field_validator("max_gap")
    @classmethod
    def _be_spelled(cls, gaps: dict[str, float]) -> dict[str, float]:
        return {check_spelling(metric): gap for metric, gap in gaps.items()}

    @model_validator(mode="after")
    def _say_something(self) -> SlicePolicy:
        if not self.floors and not self.max_gap:
            raise ValueError("floors and max_gap are both empty; give a rule such as floors=['recall >= 0.8']")
        try:
            of_champion = [str(rule) for rule in self.thresholds if rule.against_champion]
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from None
        if of_champion:
            raise ValueError(f"floors compare with numbers, not with the champion: {'; '.join(of_champion)}")
        if any(rule.mode != "enforce" for rule in self.thresholds):
            raise ValueError("floors cannot have a mode; set mode beside floors")
        return self

    @property
    def thresholds(self) -> tuple[MetricThreshold, ...]:
        """The floors, parsed."""
        return tuple(map(parse_threshold, self.floors))

    def rules(self) -> tuple[str, ...]:
        """Return every rule with every setting that affects its verdict."""
        return (
            *(self.written(str(threshold)) for threshold in self.thresholds),
            *(self.written(_gap_rule(metric, gap)) for metric, gap in self.max_gap.items()),
        )

    def written(self, rule: str) -> str:
        """Return one rule with every setting that affects its verdict."""
        where = ", ".join(self.by) or "every slice column"
        how = f"{self.confidence:.6g} confidence, >= {self.min_rows} rows, correction {self.correction}"
        return in_mode(self.mode, f"{rule} by {where} ({how})")


def judge_slices(policy: SlicePolicy, evidence: EvaluationEvidence) -> tuple[RuleResult, ...]:
    """Judge every rule in every slice.

    :param policy: the limits.
    :param evidence: result of the evaluation.
    :return: one result per floor and slice, and one per gap and column.
    """
    results: list[RuleResult] = []
    for column in policy.by or dict.fromkeys(part.column for part in evidence.slices) or ("",):
        parts = [part for part in evidence.slices if part.column == column]
        for threshold in policy.thresholds:
            rule = policy.written(str(threshold))
            if parts:
                results += _judge_floor(policy, threshold, column, parts)
            else:
                results.append(_missing(policy, rule, threshold.metric, "slice_floor", column, evidence))
        for metric, gap in policy.max_gap.items():
            rule = policy.written(_gap_rule(metric, gap))
            if parts:
                results.append(_judge_gap(policy, (metric, gap), column, parts))
            else:
                results.append(_missing(policy, rule, metric, "slice_gap", column, evidence))
    return tuple(results)


def correct(p_values: Sequence[float], correction: Correction) -> list[float]:
    """Correct p-values for multiple testing.

    ``holm`` is the step-down procedure of Holm (1979), ``bonferroni`` multiplies by the number of tests. Both keep the
    probability of any false decision below one minus the confidence.

    :param p_values: uncorrected p-values.
    :param correction: the method; ``none`` changes nothing.
    :return: corrected p-values in the same order, at most 1.
    """
    count = len(p_values)
    if correction == "none":
        return list(p_values)
    if correction == "bonferroni":
        return [min(1.0, count * value) for value in p_values]
    corrected, highest = [0.0] * count, 0.0
    for rank, position in enumerate(sorted(range(count), key=lambda item: p_values[item])):
        highest = max(highest, min(1.0, (count - rank) * p_values[position]))
        corrected[position] = highest
    return corrected


def wilson_interval(successes: int, trials: int, confidence: float) -> Interval:
    """Return the score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, equation 4).

    :param successes: number of successes.
    :param trials: 1 or more.
    :param confidence: two-sided confidence, 0 to 1.
    """
    z2 = _NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    share = successes / trials
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class _Measured:
    """A metric of one slice that can be tested."""

    part: SliceEvidence
    value: float
    interval: MetricInterval

    @property
    def rows(self) -> int:
        """Rows that the metric is computed from: for recall, the rows with a positive label."""
        return self.interval.trials or self.part.rows

    def error_if(self, supposed: float) -> float:
        """Standard error if the metric's true value is the supposed one; for a proportion that of the score test."""
        if self.interval.trials is None:
            return self.interval.standard_error
        return math.sqrt(max(0.0, supposed * (1 - supposed)) / self.interval.trials)

    @property
    def error_beside_another(self) -> float:
        """Standard error for the difference of two slices; for proportions that of Agresti and Caffo (2000)."""
        if self.interval.trials is None or self.interval.successes is None:
            return self.interval.standard_error
        trials = self.interval.trials + 2
        share = (self.interval.successes + 1) / trials
        return math.sqrt(share * (1 - share) / trials)

    def limits(self, confidence: float) -> Interval:
        """Interval to show to people; not corrected for multiple testing."""
        if self.interval.trials is not None and self.interval.successes is not None:
            return wilson_interval(self.interval.successes, self.interval.trials, confidence)
        half = _NORMAL.inv_cdf((1 + confidence) / 2) * self.interval.standard_error
        return self.value - half, self.value + half


class _Unmeasured(NamedTuple):
    part: SliceEvidence
    reason: str
    rows_needed: int | None = None


def _measure(policy: SlicePolicy, metric: str, part: SliceEvidence) -> _Measured | _Unmeasured:
    value, interval = part.candidate.get(metric), part.intervals.get(metric)
    if value is None:
        return _Unmeasured(part, f"no value of {metric!r} in this slice of {part.rows} rows")
    if interval is None:
        return _Unmeasured(part, f"the evidence has no interval of {metric!r} in this slice")
    measured = _Measured(part, value, interval)
    if measured.rows < policy.min_rows:
        why = f"{metric} rests on {measured.rows} rows; at least {policy.min_rows} are needed"
        return _Unmeasured(part, why, policy.min_rows)
    if interval.trials is None and interval.standard_error <= 0:
        return _Unmeasured(part, "every resample gives the same value, so nothing says how certain it is")
    return measured


def _p_value(distance: float, error: float) -> float:
    """Two-sided p-value of a distance from what is supposed; without any error the distance itself decides."""
    if error <= 0:
        return 1.0 if distance == 0 else 0.0
    return 2 * _NORMAL.cdf(-abs(distance) / error)


def _judge_floor(
    policy: SlicePolicy, threshold: MetricThreshold, column: str, parts: Sequence[SliceEvidence]
) -> Iterator[RuleResult]:
    metric, floor = threshold.metric, threshold.threshold
    found = [_measure(policy, metric, part) for part in parts]
    tested = [item for item in found if isinstance(item, _Measured)]
    raw = [_p_value(item.value - floor, item.error_if(floor)) for item in tested]
    corrected = iter(correct(raw, policy.correction))
    for item in found:
        name = f"{column}={item.part.value}"
        limits: tuple[float, float] | tuple[None, None] = (None, None)
        if isinstance(item, _Unmeasured):
            verdict, reason, needed = Verdict.INCONCLUSIVE, item.reason, item.rows_needed
        else:
            verdict, reason, needed = _decide(policy, threshold, item, next(corrected), len(tested))
            limits = item.limits(policy.confidence)
        yield RuleResult(
            rule=policy.written(str(threshold)),
            metric=metric,
            kind="slice_floor",
            mode=policy.mode,
            slice=name,
            verdict=verdict,
            value=item.part.candidate.get(metric),
            bound=floor,
            low=limits[0],
            high=limits[1],
            rows_needed=needed,
            reason=reason,
        )


def _decide(
    policy: SlicePolicy, threshold: MetricThreshold, item: _Measured, p_value: float, tests: int
) -> tuple[Verdict, str, int | None]:
    low, high = item.limits(policy.confidence)
    floor = threshold.threshold
    holds = threshold.holds(item.value, floor)
    said = (
        f"{item.value:.4g} on {item.rows} rows, interval [{low:.4g}, {high:.4g}], p = {p_value:.2g} over {tests} slices"
    )
    if p_value < 1 - policy.confidence:
        certain = f"certainly {'' if holds else 'not '}{threshold.comparison} {floor:g}"
        return (Verdict.PASSED if holds else Verdict.FAILED), f"{said}: {certain}", None
    level = 1 - policy.confidence if policy.correction == "none" else (1 - policy.confidence) / tests
    needed = rows_needed(item.rows, item.error_if(floor), item.value - floor, 1 - level)
    return Verdict.INCONCLUSIVE, f"{said}: not certain on which side of {floor:g} it is{_words(needed)}", needed


def _judge_gap(
    policy: SlicePolicy, allowed: tuple[str, float], column: str, parts: Sequence[SliceEvidence]
) -> RuleResult:
    metric, gap = allowed
    found = [_measure(policy, metric, part) for part in parts]
    tested = [item for item in found if isinstance(item, _Measured)]
    left_out = [item for item in found if isinstance(item, _Unmeasured)]
    pairs = [_Pair(*sorted(pair, key=lambda item: -item.value)) for pair in combinations(tested, 2)]
    corrected = correct([_p_value(pair.gap - gap, pair.error) for pair in pairs], policy.correction)
    verdict, decisive, reason = _decide_gap(policy, gap, pairs, corrected, left_out)
    return RuleResult(
        rule=policy.written(_gap_rule(metric, gap)),
        metric=metric,
        kind="slice_gap",
        mode=policy.mode,
        slice=column,
        verdict=verdict,
        value=decisive.gap if decisive else None,
        bound=gap,
        low=decisive.limits(policy.confidence)[0] if decisive else None,
        high=decisive.limits(policy.confidence)[1] if decisive else None,
        reason=reason,
    )


class _Pair(NamedTuple):
    higher: _Measured
    lower: _Measured

    @property
    def gap(self) -> float:
        return self.higher.value - self.lower.value

    @property
    def error(self) -> float:
        return math.hypot(self.higher.error_beside_another, self.lower.error_beside_another)

    def limits(self, confidence: float) -> Interval:
        half = _NORMAL.inv_cdf((1 + confidence) / 2) * self.error
        return self.gap - half, self.gap + half


def _decide_gap(
    policy: SlicePolicy,
    allowed: float,
    pairs: Sequence[_Pair],
    p_values: Sequence[float],
    left_out: Sequence[_Unmeasured],
) -> tuple[Verdict, _Pair | None, str]:
    """Decide a gap: one pair that is certainly too far apart fails; all pairs certainly close enough pass."""
    if not pairs:
        why = "; ".join(f"{item.part.value}: {item.reason}" for item in left_out) or "there is only one slice"
        return Verdict.INCONCLUSIVE, None, f"fewer than two slices can be compared: {why}"
    level = 1 - policy.confidence
    sure = [pair for pair, value in zip(pairs, p_values, strict=True) if value < level]
    too_far = [pair for pair in sure if pair.gap > allowed]
    widest = max(too_far or pairs, key=lambda pair: pair.gap)
    low, high = widest.limits(policy.confidence)
    said = (
        f"largest gap {widest.gap:.4g} between {widest.higher.part.value} ({widest.higher.value:.4g}) and "
        f"{widest.lower.part.value} ({widest.lower.value:.4g}), interval [{low:.4g}, {high:.4g}], {len(pairs)} pairs"
    )
    if too_far:
        return Verdict.FAILED, widest, f"{said}: certainly above {allowed:g}"
    if left_out:
        names = ", ".join(f"{item.part.value} ({item.reason})" for item in left_out)
        return Verdict.INCONCLUSIVE, widest, f"{said}; not compared: {names}"
    if len(sure) == len(pairs):
        return Verdict.PASSED, widest, f"{said}: certainly at most {allowed:g}"
    return Verdict.INCONCLUSIVE, widest, f"{said}: not certain that it is at most {allowed:g}"


def _missing(
    policy: SlicePolicy,
    rule: str,
    metric: str,
    kind: Literal["slice_floor", "slice_gap"],
    column: str,
    evidence: EvaluationEvidence,
) -> RuleResult:
    where = f"by {column!r}" if column else "at all"
    verdict, reason = (
        (Verdict.ERROR, "refused: self-reported metrics have no slices; evaluate on data")
        if evidence.self_reported
        else (Verdict.INCONCLUSIVE, f"the evaluation has no slices {where}; name the column in its slices")
    )
    return RuleResult(
        rule=rule,
        metric=metric,
        kind=kind,
        mode=policy.mode,
        slice=column,
        verdict=verdict,
        value=None,
        bound=None,
        reason=reason,
    )


def _gap_rule(metric: str, gap: float) -> str:
    return f"gap of {metric} <= {gap:.12g}"


def _words(needed: int | None) -> str:
    return "" if needed is None else f"; about {needed} rows in the slice would decide it"
