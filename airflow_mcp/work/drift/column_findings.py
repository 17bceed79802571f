"""What has changed about a column besides its distribution: schema, missing values, range and categories."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_mcp.core.drift.policy import ComparisonPolicy, FindingKind
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.core.drift.result import DriftFinding
from airflow_mcp.work.drift.column_data import ColumnData, ColumnPair
from airflow_mcp.work.drift.distribution import Curve


def schema_findings(pair: ColumnPair, name: str) -> Iterator[DriftFinding]:
    """Find a column that was removed, added or given another type.

    :param pair: the column on both sides.
    :param name: its name.
    """
    reference, current = pair
    if current is None:
        yield _change("removed_column", name, f"column {name!r} is missing in the current data")
    elif reference is None:
        yield _change("added_column", name, f"column {name!r} is only in the current data")
    elif _family(reference) != _family(current) and "empty" not in (reference.kind, current.kind):
        message = f"column {name!r} changed its type from {reference.type} in the reference to {current.type}"
        yield _change("retyped_column", name, message)


def _family(column: ColumnData) -> str:
    if column.is_mixed:
        return "mixed"
    return "categorical" if column.kind == "text" else column.kind


def _change(kind: FindingKind, name: str, message: str) -> DriftFinding:
    return DriftFinding(kind=kind, column=name, exceeded=True, message=message)


def value_findings(
    reference: ColumnData, current: ColumnData, kind: ColumnType, policy: ComparisonPolicy
) -> Iterator[DriftFinding]:
    """Find more or fewer missing values, numbers outside the reference's range, and new categories.

    :param reference: the column in the reference.
    :param current: the column in the current data.
    :param kind: type as which it is compared.
    :param policy: limits.
    """
    before, after = reference.unusable_share, current.unusable_share
    if reference.rows and current.rows and abs(after - before) > policy.missing_rate_change:
        yield DriftFinding(
            kind="missing_rate",
            column=reference.name,
            reference=before,
            current=after,
            limit=policy.missing_rate_change,
            exceeded=True,
            message=f"column {reference.name!r} has no usable value in {after:.1%} of the current rows, against "
            f"{before:.1%} of the reference's",
        )
    if kind == "numerical" and reference.curve is not None and current.curve is not None:
        share = _out_of_range(reference.curve, current.curve)
        message = f"column {reference.name!r} is outside the reference's range in {share:.2%} of its values"
        if share > policy.out_of_range_share:  # a few values beyond the range are normal, and not worth a note
            yield from _share_finding("out_of_range", reference.name, share, policy.out_of_range_share, message)
    if kind == "categorical" and _has_all_categories(reference) and current.values and not current.is_mixed:
        known, now = reference.as_counts(), current.as_counts()
        new = {name: rows for name, rows in now.counts.items() if name not in known.counts}
        share = sum(new.values()) / now.rows
        most = ", ".join(map(repr, sorted(new, key=lambda name: (-new[name], name))[:5]))
        message = f"column {reference.name!r} has new categories in {share:.2%} of its values: {most}"
        yield from _share_finding("new_categories", reference.name, share, policy.new_category_share, message)


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


def _has_all_categories(column: ColumnData) -> bool:
    held = column.counts or column.curve
    return held is not None and held.is_exact and column.kind not in ("text", "time")


def _out_of_range(reference: Curve, current: Curve) -> float:
    ends = reference.values[[0, -1]]
    below, above = current.below(ends[:1])[0], 1.0 - current.below(ends[1:], inclusive=True)[0]
    return float(max(0.0, below) + max(0.0, above))
