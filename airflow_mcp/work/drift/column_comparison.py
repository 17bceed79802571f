"""One column in both datasets: as what it is compared, its score, and what else has changed about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from airflow_mcp.core.drift.policy import (
    AUTO,
    FEW_INTEGERS,
    FEW_VALUES,
    METHODS,
    ComparisonPolicy,
    FindingKind,
    choose_method,
    has_drifted,
)
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.core.drift.result import OTHER, ColumnHistogram, ColumnResult, ColumnSide, DriftFinding
from airflow_mcp.work.drift.category_counts import CategoryCounts
from airflow_mcp.work.drift.column_data import ColumnData, as_categories
from airflow_mcp.work.drift.distribution import Array, Curve
from airflow_mcp.work.drift.statistics import NumberPair, Score, aligned, compare_counts, compare_numbers

_HISTOGRAM_BINS, _HISTOGRAM_LABELS, _TAIL = 20, 12, 0.005


class ColumnPair(NamedTuple):
    """A column of the reference and of the current data; None where it does not exist."""

    reference: ColumnData | None
    current: ColumnData | None


def compare_column(pair: ColumnPair, policy: ComparisonPolicy) -> tuple[ColumnResult, list[DriftFinding]]:
    """Compare one column.

    :param pair: at least the reference's.
    :param policy: methods, thresholds and limits.
    :return: its result, with a note where it could not be compared, and its findings.
    """
    known = pair.reference or pair.current
    if known is None:
        raise ValueError("a column is in neither dataset")
    kind, problem = column_type(pair, policy)
    base = ColumnResult(
        column=known.name,
        role=_role(known, policy),
        type=kind,
        method="",
        error=None,
        weight=policy.weights.get(known.name, 0.0) if policy.weights else 1.0,
        reference=_side(pair.reference),
        current=_side(pair.current),
        note=problem,
    )
    findings = list(_schema_findings(pair, known.name))
    if pair.reference is None or pair.current is None:
        return base, findings
    findings += _findings(pair.reference, pair.current, kind, policy)
    if problem:
        return base, findings
    return _scored(base, pair.reference, pair.current, policy), findings


def column_type(pair: ColumnPair, policy: ComparisonPolicy) -> tuple[ColumnType, str]:
    """Say as what a column is compared, and why it cannot be; the reference decides where both could.

    As in Evidently 0.7.23, whole numbers of at most ten values are categories.
    """
    reference, current = pair
    known = reference if reference is not None and reference.kind != "empty" else current
    if known is None:
        return "categorical", "missing in the current data, and without a value in the reference"
    rule = policy.rules.get(known.name)
    if rule is not None and rule.type is not None:
        kind = rule.type
    elif known.name in policy.categorical_columns or known.kind != "numerical":
        kind = "categorical"
    else:
        kind = "categorical" if known.is_integer and _count_distinct(known) <= FEW_INTEGERS else "numerical"
    return kind, _missing_side(pair) or _kind_problem(pair, kind) or _amount_problem(pair, policy)


def _count_distinct(column: ColumnData) -> float:
    """Give the number of different values; infinite when there are too many to have counted."""
    known = column.curve or column.counts
    if known is None:
        return 0
    return math.inf if known.distinct is None else known.distinct


def _missing_side(pair: ColumnPair) -> str:
    if pair.current is None:
        return "missing in the current data"
    return "missing in the reference" if pair.reference is None else ""


def _kind_problem(pair: ColumnPair, kind: ColumnType) -> str:
    sides = [(column, where) for column, where in zip(pair, ("reference", "current"), strict=True) if column]
    problem = next(filter(None, (_side_problem(column, where, kind) for column, where in sides)), "")
    if problem:
        return problem
    if pair.reference is not None and pair.reference.kind == "text":
        return "texts of their own rather than categories; ignore the column, or name it in categorical_columns"
    held_as_numbers = [column.counts is None for column, _ in sides]
    if kind == "categorical" and any(held_as_numbers):
        return _category_problem(sides)
    return ""


def _side_problem(column: ColumnData, where: str, kind: ColumnType) -> str:
    problems = (
        (column.kind == "empty", f"no value in the {where} data"),
        (column.is_mixed, f"values of several types in the {where} data: {column.type}"),
        (column.kind == "time", f"times are not compared ({column.type}); ignore the column"),
        (column.kind == "other", f"values of type {column.type} are not compared; ignore the column"),
        (
            kind == "numerical" and column.curve is None,
            f"no finite number in the {where} data, its type there is {column.type}",
        ),
    )
    return next((words for holds, words in problems if holds), "")


def _category_problem(sides: list[tuple[ColumnData, str]]) -> str:
    """Numbers are compared as categories when every value was counted, and the other side has numbers or them too."""
    kinds = {column.kind for column, _ in sides}
    if len(kinds) > 1 and any("string" in column.type or column.type == "bool" for column, _ in sides):
        (before, _), (after, _) = sides
        return f"its type changed: {before.type} in the reference, {after.type} in the current data"
    reference = sides[0][0]
    for column, where in sides:
        # Few values of the reference can be looked up in many of the current data, but not the other way round.
        needs_counts = column is reference or reference.counts is not None
        if needs_counts and column.curve is not None and not column.curve.is_exact:
            return f"the {where} data was not profiled with the column as categories"
    return ""


def _amount_problem(pair: ColumnPair, policy: ComparisonPolicy) -> str:
    for column, where in zip(pair, ("reference", "current"), strict=True):
        values = _values(column) if column else 0
        if values < policy.min_rows:
            return f"{values} values in the {where} data, at least {policy.min_rows} are needed"
    return ""


def _values(column: ColumnData) -> int:
    held = column.counts or column.curve
    return int(held.rows) if held else 0


# --- score ------------------------------------------------------------------------------------------------------------


def _scored(base: ColumnResult, reference: ColumnData, current: ColumnData, policy: ComparisonPolicy) -> ColumnResult:
    method, threshold = policy.method_of(base.column, base.type)
    chosen = method == AUTO
    if chosen:
        method = choose_method(base.type, _values(reference), _distinct(reference, current))
    score = _score(method, base.type, reference, current)
    limit = METHODS[method].threshold if threshold is None else threshold
    fields: dict[str, object] = {"method": method, "chosen": chosen, "threshold": limit}
    fields["histogram"] = _histogram(base.type, reference, current)
    if math.isfinite(score.value):
        drifted = has_drifted(method, score.value, limit)
        error = score.error if score.error is None or math.isfinite(score.error) else None
        ends = [has_drifted(method, score.value + sign * error, limit) for sign in (-1, 1)] if error else []
        fields |= {"score": score.value, "error": error, "drifted": drifted, "close": (not drifted) in ends}
        fields["note"] = _note(reference, current)
    else:
        fields["note"] = f"{method} gives no answer: {_why_none(method)}"
    return base.model_copy(update=fields)


def _score(method: str, kind: ColumnType, reference: ColumnData, current: ColumnData) -> Score:
    with np.errstate(all="ignore"):  # a score that is no number is reported as such
        if reference.curve is not None and current.curve is not None:
            pair = NumberPair(
                reference.curve,
                current.curve,
                is_integer=reference.is_integer and current.is_integer,
                is_single_precision=reference.is_single_precision and current.is_single_precision,
            )
            if kind == "numerical" or not (pair.reference.is_exact and pair.current.is_exact):
                return compare_numbers(method, pair)
        return compare_counts(method, _as_counts(reference), _as_counts(current))


def _as_counts(column: ColumnData) -> CategoryCounts:
    if column.counts is not None:
        return column.counts
    return as_categories(column.curve) if column.curve is not None else CategoryCounts()


def _distinct(reference: ColumnData, current: ColumnData) -> int:
    """Different values in both together; one more than few when they are too many to tell."""
    if max(_count_distinct(reference), _count_distinct(current)) > FEW_VALUES:
        return FEW_VALUES + 1
    return len(_as_counts(reference).counts | _as_counts(current).counts)


def _why_none(method: str) -> str:
    return "it compares two categories" if method == "z" else "it is not defined on these values"


def _as_counts_are_exact(column: ColumnData) -> bool:
    return column.counts is None or column.counts.is_exact


def _note(reference: ColumnData, current: ColumnData) -> str:
    notes = []
    if reference.unusable_share or current.unusable_share:
        notes.append(f"without a usable value: {reference.unusable_share:.1%} then, {current.unusable_share:.1%} now")
    if reference.type != current.type:
        notes.append(f"type {reference.type} then, {current.type} now")
    if not (_as_counts_are_exact(reference) and _as_counts_are_exact(current)):
        notes.append("rare categories were counted together")
    return "; ".join(notes)


# --- what else has changed --------------------------------------------------------------------------------------------


def _schema_findings(pair: ColumnPair, name: str) -> Iterator[DriftFinding]:
    reference, current = pair
    if current is None:
        yield _change("removed_column", name, f"column {name!r} is missing in the current data")
    elif reference is None:
        yield _change("added_column", name, f"column {name!r} is only in the current data")
    elif _family(reference) != _family(current) and "empty" not in (reference.kind, current.kind):
        yield _change(
            "retyped_column",
            name,
            f"column {name!r} had values of type {reference.type} in the reference and has {current.type} now",
        )


def _family(column: ColumnData) -> str:
    if column.is_mixed:
        return "mixed"
    return "categorical" if column.kind == "text" else column.kind


def _change(kind: FindingKind, name: str, message: str) -> DriftFinding:
    return DriftFinding(kind=kind, column=name, exceeded=True, message=message)


def _findings(
    reference: ColumnData, current: ColumnData, kind: ColumnType, policy: ComparisonPolicy
) -> Iterator[DriftFinding]:
    before, after = reference.unusable_share, current.unusable_share
    if reference.rows and current.rows and abs(after - before) > policy.missing_rate_change:
        yield DriftFinding(
            kind="missing_rate",
            column=reference.name,
            reference=before,
            current=after,
            limit=policy.missing_rate_change,
            exceeded=True,
            message=f"column {reference.name!r} has no usable value in {after:.1%} of the rows, {before:.1%} then",
        )
    if kind == "numerical" and reference.curve is not None and current.curve is not None:
        share = _out_of_range(reference.curve, current.curve)
        words = f"column {reference.name!r} is outside the reference's range in {share:.2%} of its values"
        if share > policy.out_of_range_share:  # a few rows beyond are no news
            yield from _share_finding("out_of_range", reference.name, share, policy.out_of_range_share, words)
    if kind == "categorical" and _kept_in_full(reference) and _values(current):
        known, now = _as_counts(reference), _as_counts(current)
        new = {name: rows for name, rows in now.counts.items() if name not in known.counts}
        share = sum(new.values()) / now.rows
        most = ", ".join(map(repr, sorted(new, key=lambda name: (-new[name], name))[:5]))
        words = f"column {reference.name!r} has new categories in {share:.2%} of its values: {most}"
        yield from _share_finding("new_categories", reference.name, share, policy.new_category_share, words)


def _share_finding(kind: FindingKind, column: str, share: float, limit: float, message: str) -> Iterator[DriftFinding]:
    if share > 0:
        yield DriftFinding(
            kind=kind,
            column=column,
            reference=0.0,
            current=share,
            limit=limit,
            exceeded=share > limit,
            message=message,
        )


def _kept_in_full(column: ColumnData) -> bool:
    held = column.counts or column.curve
    return held is not None and held.is_exact and column.kind not in ("text", "time")


def _out_of_range(reference: Curve, current: Curve) -> float:
    ends = reference.values[[0, -1]]
    below, above = current.below(ends[:1])[0], 1.0 - current.below(ends[1:], inclusive=True)[0]
    return float(max(0.0, below) + max(0.0, above))


# --- for pictures -----------------------------------------------------------------------------------------------------


def _role(column: ColumnData, policy: ComparisonPolicy) -> str:
    role = policy.role_of(column.name)
    return column.role if role == "feature" else role


def _side(column: ColumnData | None) -> ColumnSide | None:
    if column is None:
        return None
    distinct = _count_distinct(column)
    side = ColumnSide(
        type=column.type,
        kind=column.kind,
        rows=column.rows,
        missing=column.missing + column.nan,
        infinite=column.infinite,
        distinct=int(distinct) if math.isfinite(distinct) else None,
    )
    if column.curve is None or column.kind == "other":
        return side
    return side.model_copy(
        update={
            "mean": column.curve.moments.mean,
            "deviation": column.curve.moments.deviation,
            "minimum": float(column.curve.values[0]),
            "maximum": float(column.curve.values[-1]),
        }
    )


def _histogram(kind: ColumnType, reference: ColumnData, current: ColumnData) -> ColumnHistogram:
    if kind == "numerical" and reference.curve is not None and current.curve is not None:
        edges = _picture_edges(reference.curve, current.curve)
        return ColumnHistogram(
            edges=tuple(float(f"{edge:.6g}") for edge in edges),
            reference=_picture_shares(reference.curve, edges),
            current=_picture_shares(current.curve, edges),
        )
    before, after = _as_counts(reference), _as_counts(current)
    if not (before.is_exact or before.counts) or not (after.is_exact or after.counts):
        return ColumnHistogram()
    rows = aligned(before, after)
    first, second = max(before.rows, 1), max(after.rows, 1)
    shares = {name: (row[0] / first, row[1] / second) for name, row in rows.items()}
    shown = sorted(shares.keys() - {OTHER}, key=lambda name: (-max(shares[name]), name))[:_HISTOGRAM_LABELS]
    pairs = [shares[name] for name in shown]
    rest = tuple(1.0 - sum(pair[side] for pair in pairs) for side in (0, 1))
    if max(rest) > 1e-9:
        shown.append(OTHER)
        pairs.append((max(rest[0], 0.0), max(rest[1], 0.0)))
    return ColumnHistogram(
        labels=tuple(shown),
        reference=tuple(round(pair[0], 6) for pair in pairs),
        current=tuple(round(pair[1], 6) for pair in pairs),
    )


def _picture_edges(reference: Curve, current: Curve) -> Array:
    """Edges from the lowest to the highest of both, without the last half percent at each end."""
    corners = [curve.knots_and_counts for curve in (reference, current)]
    ends = [np.interp([_TAIL * counts[-1], (1 - _TAIL) * counts[-1]], counts, values) for values, counts in corners]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _HISTOGRAM_BINS + 1)


def _picture_shares(curve: Curve, edges: Array) -> tuple[float, ...]:
    heights = curve.below(edges)
    heights[0], heights[-1] = 0.0, 1.0
    return tuple(round(share, 6) for share in np.diff(heights).tolist())
