"""The verdict on compared columns and findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airflow_mcp.core.drift.policy import ComparisonPolicy, has_drifted
from airflow_mcp.core.drift.result import ColumnResult, DriftFinding, DriftVerdict


class Judgement(NamedTuple):
    """A verdict with its reason."""

    verdict: DriftVerdict
    reason: str
    drifted: int
    """Number of drifted features."""
    compared: int
    """Number of compared features."""
    share: float | None
    """Weight of the drifted features divided by the weight of the compared features."""


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that a limit on them bounds the false discovery rate (Benjamini and Hochberg, 1995).

    :param p_values: one per column.
    :return: adjusted p-values in the same order; never below the p-value, never above 1.
    """
    count, least = len(p_values), 1.0
    adjusted = [1.0] * count
    for rank, position in sorted(enumerate(_by_value(p_values), start=1), reverse=True):
        least = min(least, p_values[position] * count / rank)
        adjusted[position] = least
    return adjusted


def _by_value(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__)


def correct(columns: Sequence[ColumnResult]) -> list[ColumnResult]:
    """Judge columns with p-values again, by adjusted p-values.

    :param columns: all columns of a comparison.
    :return: the same columns; those with a distance are unchanged.
    """
    tested = [column for column in columns if column.score is not None and column.is_p_value]
    adjusted = adjust_p_values([column.score for column in tested if column.score is not None])
    judged = {
        column.column: column.model_copy(
            update={"adjusted": value, "drifted": has_drifted(column.method, value, column.threshold or 0.0)}
        )
        for column, value in zip(tested, adjusted, strict=True)
    }
    return [judged.get(column.column, column) for column in columns]


def judge(
    columns: Sequence[ColumnResult], findings: Sequence[DriftFinding], rows: tuple[int, int], policy: ComparisonPolicy
) -> Judgement:
    """Decide whether the data has drifted.

    ``drifted`` when the weighted share of drifted features among those compared reaches the policy's, when a
    prediction, label or quality has drifted, or when a finding of a kind in ``drift_on`` exceeds its limit.
    ``not_drifted`` only when no column was removed or retyped, every column of those roles is known, and the share
    would not be reached even if every feature that could not be compared had drifted. Otherwise ``inconclusive``.

    :param columns: every column of the plan, compared or not.
    :param rows: rows of the reference and of the current data.
    """
    features = [column for column in columns if column.role == "feature"]
    known = [column for column in features if column.drifted is not None]
    drifted = [column for column in known if column.drifted]
    compared_weight = sum(column.weight for column in known)
    share = sum(column.weight for column in drifted) / compared_weight if compared_weight else None
    short = min(rows) < policy.min_rows
    reasons = _why_drifted(columns, findings, share, policy)
    if not reasons or short:
        verdict, why = _without_drift(columns, findings, rows, share, policy)
    else:
        verdict, why = "drifted", reasons
    found = _in_words(len(drifted), len(known), share, policy)
    return Judgement(verdict, "; ".join(dict.fromkeys([*why, found])), len(drifted), len(known), share)


def _in_words(drifted: int, known: int, share: float | None, policy: ComparisonPolicy) -> str:
    if share is None:
        return "no feature could be compared"
    weighted = f", {share:.1%} by weight" if policy.weights else ""
    return f"{drifted} of {known} compared features drifted{weighted}; the data drifts from {policy.drift_share:.0%} on"


def _why_drifted(
    columns: Sequence[ColumnResult], findings: Sequence[DriftFinding], share: float | None, policy: ComparisonPolicy
) -> list[str]:
    reasons = []
    if share is not None and share >= policy.drift_share:
        reasons.append("the features drifted")
    reasons += [
        f"the {column.role} {column.column!r} drifted"
        for column in columns
        if column.drifted and column.role in policy.drift_on_roles
    ]
    return reasons + [found.message for found in findings if found.exceeded and found.kind in policy.drift_on]


def _without_drift(
    columns: Sequence[ColumnResult],
    findings: Sequence[DriftFinding],
    rows: tuple[int, int],
    share: float | None,
    policy: ComparisonPolicy,
) -> tuple[DriftVerdict, list[str]]:
    """Return the conclusion when nothing drifted: not drifted, or inconclusive with the reason."""
    if min(rows) < policy.min_rows:
        return "inconclusive", [
            f"{rows[0]} reference rows and {rows[1]} current rows, at least {policy.min_rows} of each are needed"
        ]
    doubts = [found.message for found in findings if found.kind in ("removed_column", "retyped_column")]
    doubts += [
        f"the {column.role} {column.column!r} could not be compared: {column.note}"
        for column in columns
        if column.drifted is None and column.role in policy.drift_on_roles
    ]
    features = [column for column in columns if column.role == "feature"]
    unknown = [column for column in features if column.drifted is None]
    total = sum(column.weight for column in features)
    possible = sum(column.weight for column in features if column.drifted is not False)
    if unknown and total and possible / total >= policy.drift_share:
        doubts.append(f"{len(unknown)} features could not be compared and would decide")
    if share is None and not doubts and not _roles_known(columns):
        doubts.append("nothing could be compared")
    return ("inconclusive", doubts) if doubts else ("not_drifted", [])


def _roles_known(columns: Sequence[ColumnResult]) -> bool:
    """Return whether a column other than a feature was compared: a check of predictions alone has no features."""
    return any(column.drifted is not None for column in columns if column.role != "feature")
