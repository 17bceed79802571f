"""One column in both datasets: the type as which it is compared, the method and the score."""

from __future__ import annotations

import math

import numpy as np

from airflow_mcp.core.drift.policy import (
    AUTO,
    FEW_INTEGERS,
    FEW_VALUES,
    METHODS,
    ComparisonPolicy,
    choose_method,
    has_drifted,
)
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.core.drift.result import ColumnResult, ColumnSide, DriftFinding
from airflow_mcp.work.drift.column_data import ColumnData, ColumnPair
from airflow_mcp.work.drift.column_findings import schema_findings, value_findings
from airflow_mcp.work.drift.column_histogram import histogram_of_both
from airflow_mcp.work.drift.statistics import NumberPair, Score, compare_counts, compare_numbers


def compare_column(pair: ColumnPair, policy: ComparisonPolicy) -> tuple[ColumnResult, list[DriftFinding]]:
    """Compare one column.

    :param pair: the column on both sides, at least one of which has it.
    :param policy: methods, thresholds and limits.
    :return: the result, with a note when the column could not be compared, and the findings.
    """
    known = pair.reference or pair.current
    if known is None:
        raise ValueError("a column is in neither dataset")
    kind, problem = column_type(pair, policy)
    note = problem or _why_not_as_categories(pair, kind, policy)
    base = ColumnResult(
        column=known.name,
        role=_role(known, policy),
        type=kind,
        method="",
        error=None,
        weight=policy.weights.get(known.name, 0.0) if policy.weights else 1.0,
        reference=_side(pair.reference),
        current=_side(pair.current),
        note=note,
    )
    findings = list(schema_findings(pair, known.name))
    if pair.reference is None or pair.current is None:
        return base, findings
    findings += value_findings(pair.reference, pair.current, kind, policy)
    if problem:
        return base, findings
    return _scored(base, pair.reference, pair.current, policy), findings


def column_type(pair: ColumnPair, policy: ComparisonPolicy) -> tuple[ColumnType, str]:
    """Return the type as which a column is compared, and the reason why it cannot be compared, or an empty text.

    The policy decides, then the current values, then those of the reference. As in Evidently 0.7.23, whole numbers of
    which the current data have at most ten are compared as categories; not if the reference is a profile that does not
    have them all.

    :param pair: the column on both sides.
    :param policy: rules and names of categorical columns.
    """
    reference, current = pair
    is_current = current is not None and current.kind in ("numerical", "categorical", "text")
    known = current if is_current or reference is None else reference
    if known is None:
        return "categorical", "missing in the reference, and has no value in the current data"
    kind = _declared_type(known.name, policy) or _type_of_values(pair, known)
    problem = _missing_side(pair) or _kind_problem(pair, kind, policy)
    return kind, problem or _amount_problem(pair, policy)


def _declared_type(name: str, policy: ComparisonPolicy) -> ColumnType | None:
    rule = policy.rules.get(name)
    if rule is not None and rule.type is not None:
        return rule.type
    return "categorical" if name in policy.categorical_columns else None


def _type_of_values(pair: ColumnPair, known: ColumnData) -> ColumnType:
    if known.kind != "numerical" or (pair.reference and pair.reference.holds_declared_categories):
        return "categorical"
    return "categorical" if _has_few_integers(known) and _can_be_categories(pair) else "numerical"


def _has_few_integers(column: ColumnData) -> bool:
    return column.is_integer and column.distinct <= FEW_INTEGERS


def _can_be_categories(pair: ColumnPair) -> bool:
    return all(column is None or column.curve is None or column.curve.is_exact for column in pair)


def _why_not_as_categories(pair: ColumnPair, kind: ColumnType, policy: ComparisonPolicy) -> str:
    current = pair.current
    if current is None or _declared_type(current.name, policy) or kind == "categorical":
        return ""
    if not _has_few_integers(current) or _can_be_categories(pair):
        return ""
    return "compared as numbers: the profile of the reference data does not have the column as categories"


def _missing_side(pair: ColumnPair) -> str:
    if pair.current is None:
        return "missing in the current data"
    return "missing in the reference" if pair.reference is None else ""


def _kind_problem(pair: ColumnPair, kind: ColumnType, policy: ComparisonPolicy) -> str:
    sides = [(column, where) for column, where in zip(pair, ("reference", "current"), strict=True) if column]
    problem = next(filter(None, (_side_problem(column, where, kind) for column, where in sides)), "")
    if problem:
        return _type_change(sides) or problem
    name = sides[0][0].name
    if not name and name not in policy.named_columns:
        return "it has no name, like the index that pandas writes into CSV: write it with index=False, or ignore ''"
    if _declared_type(name, policy) is None and all(column.kind == "text" for column, _ in sides):
        return "most texts differ, so they are not categories; ignore the column, or name it in categorical_columns"
    held_as_numbers = [column.counts is None for column, _ in sides]
    if kind == "categorical" and any(held_as_numbers):
        return _category_problem(sides)
    return ""


def _side_problem(column: ColumnData, where: str, kind: ColumnType) -> str:
    problems = (
        (column.kind == "empty", f"no value in the {where} data"),
        (bool(column.problem), f"{where} data: {column.problem}"),
        (column.is_mixed, f"values of several types in the {where} data: {column.type}"),
        (column.kind == "time", f"times are not compared ({column.type}); ignore the column"),
        (
            column.type == "binary",
            f"bytes are not compared, or its text in the {where} data is not UTF-8; convert it, or ignore the column",
        ),
        (column.kind == "other", f"values of type {column.type} are not compared; ignore the column"),
        (
            kind == "numerical" and column.curve is None,
            f"no finite number in the {where} data, where its type is {column.type}",
        ),
    )
    return next((words for holds, words in problems if holds), "")


def _category_problem(sides: list[tuple[ColumnData, str]]) -> str:
    """Return why numbers cannot be compared as categories: that takes a count of every value."""
    if change := _type_change(sides):
        return change
    reference = sides[0][0]
    for column, where in sides:
        # The few values of an exact reference can be looked up in a thinned-out curve, but not the other way round.
        needs_counts = column is reference or reference.counts is not None
        if needs_counts and column.curve is not None and not column.curve.is_exact:
            return f"the profile of the {where} data does not have the column as categories"
    return ""


def _type_change(sides: list[tuple[ColumnData, str]]) -> str:
    """Return that numbers became texts or flags, or the other way round; empty when they did not."""
    if {"text" if column.kind == "categorical" else column.kind for column, _ in sides} != {"numerical", "text"}:
        return ""
    if not any("string" in column.type or column.type == "bool" for column, _ in sides):
        return ""
    (before, _), (after, _) = sides
    return f"its type changed: {before.type} in the reference, {after.type} in the current data"


def _amount_problem(pair: ColumnPair, policy: ComparisonPolicy) -> str:
    for column, where in zip(pair, ("reference", "current"), strict=True):
        values = column.values if column else 0
        if values < policy.min_rows:
            return f"{values} values in the {where} data; at least {policy.min_rows} are needed"
    return ""


# --- score ------------------------------------------------------------------------------------------------------------


def _scored(base: ColumnResult, reference: ColumnData, current: ColumnData, policy: ComparisonPolicy) -> ColumnResult:
    method, threshold = policy.method_of(base.column, base.type)
    chosen = method == AUTO
    if chosen:
        method = choose_method(base.type, reference.values, _distinct(reference, current))
    score = _score(method, base.type, reference, current)
    limit = METHODS[method].threshold if threshold is None else threshold
    fields: dict[str, object] = {"method": method, "chosen": chosen, "threshold": limit}
    fields["histogram"] = histogram_of_both(base.type, reference, current)
    if math.isfinite(score.value):
        drifted = has_drifted(method, score.value, limit)
        error = score.error if score.error is None or math.isfinite(score.error) else None
        ends = [has_drifted(method, score.value + sign * error, limit) for sign in (-1, 1)] if error else []
        fields |= {"score": score.value, "error": error, "drifted": drifted, "close": (not drifted) in ends}
        fields["note"] = "; ".join(filter(None, (base.note, *_notes(reference, current))))
    else:
        fields["note"] = f"{method} has no value: {_why_undefined(method)}"
    return base.model_copy(update=fields)


def _score(method: str, kind: ColumnType, reference: ColumnData, current: ColumnData) -> Score:
    with np.errstate(all="ignore"):  # a score that is not a number is reported as such
        is_single = reference.is_single_precision and current.is_single_precision
        before, after = (side.curve if is_single else side.decimal_curve for side in (reference, current))
        if before is not None and after is not None:
            pair = NumberPair(
                before,
                after,
                is_integer=reference.is_integer and current.is_integer,
                is_single_precision=is_single,
            )
            if kind == "numerical" or not (pair.reference.is_exact and pair.current.is_exact):
                return compare_numbers(method, pair)
        return compare_counts(method, reference.as_counts(), current.as_counts())


def _distinct(reference: ColumnData, current: ColumnData) -> int:
    """Count the different values of both sides; any number above ``FEW_VALUES`` selects the same method."""
    if max(reference.distinct, current.distinct) > FEW_VALUES:
        return FEW_VALUES + 1
    return len(reference.as_counts().counts | current.as_counts().counts)


def _why_undefined(method: str) -> str:
    return "it compares exactly two categories" if method == "z" else "it is not defined on these values"


def _notes(reference: ColumnData, current: ColumnData) -> list[str]:
    notes = []
    if reference.unusable_share or current.unusable_share:
        before, now = reference.unusable_share, current.unusable_share
        notes.append(f"no usable value in {before:.1%} of the reference, {now:.1%} now")
    if reference.type != current.type:
        notes.append(f"type {reference.type} in the reference, {current.type} now")
    if not all(column.counts is None or column.counts.is_exact for column in (reference, current)):
        notes.append("rare categories were counted together")
    return notes


# --- what the result shows of the column ------------------------------------------------------------------------------


def _role(column: ColumnData, policy: ComparisonPolicy) -> str:
    role = policy.role_of(column.name)
    return column.role if role == "feature" else role


def _side(column: ColumnData | None) -> ColumnSide | None:
    if column is None:
        return None
    distinct = column.distinct
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
