"""Which columns of two datasets can be compared, as what, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.evidence import ColumnType, DriftRequest
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.runtime.classification import plain_label
from airflow_mcp.runtime.datasets import require_columns

if TYPE_CHECKING:
    import pandas as pd

_Z_TEST_MAX_CATEGORIES = 2


@dataclass(frozen=True)
class ColumnPlan:
    """What happens to one column."""

    name: str
    type: ColumnType
    problem: str = ""
    """Why it cannot be compared; empty when it can."""
    note: str = ""
    """What a reader should know although it can."""


def plan_columns(reference: pd.DataFrame, current: pd.DataFrame, request: DriftRequest) -> list[ColumnPlan]:
    """Plan the comparison, in the reference's order of columns.

    :param reference: data under which the model was judged.
    :param current: data to be watched.
    :param request: names, ignored and categorical columns, method and least number of rows.
    :raises DatasetError: when a column that the request names is missing.
    :raises InvalidArgumentError: when a column is both asked for and ignored.
    """
    both = sorted(set(request.columns) & set(request.ignored_columns))
    if both:
        raise InvalidArgumentError(
            f"columns and ignored_columns both name {', '.join(map(repr, both))}. Nothing was compared."
        )
    named = [*request.columns, *request.categorical_columns]
    require_columns(reference, named, "a drift column in the reference data")
    require_columns(current, named, "a drift column in the current data")
    names = list(dict.fromkeys(request.columns)) or [
        name for name in reference.columns if name not in request.ignored_columns
    ]
    return [_plan(name, reference, current, request) for name in names]


def comparable_frames(
    reference: pd.DataFrame, current: pd.DataFrame, plans: Sequence[ColumnPlan]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give both datasets with the comparable columns only, categories as text, so that ``1`` and ``1.0`` are one."""
    import pandas as pd  # noqa: PLC0415

    frames = []
    for frame in (reference, current):
        columns = {
            plan.name: _as_categories(frame[plan.name])
            if plan.type == "categorical"
            else frame[plan.name].astype(float)
            for plan in plans
            if not plan.problem
        }
        frames.append(pd.DataFrame(columns))
    return frames[0], frames[1]


def _plan(name: str, reference: pd.DataFrame, current: pd.DataFrame, request: DriftRequest) -> ColumnPlan:
    if name not in current.columns:
        kind: ColumnType = "numerical" if _is_numeric(reference[name]) else "categorical"
        return ColumnPlan(name, kind, "missing in the current data")
    before, after = reference[name], current[name]
    kind = _type_of(name, before, after, request)
    problem = _type_problem(before, after, kind) or _amount_problem(before, after, kind, request)
    return ColumnPlan(name, kind, problem, "" if problem else _missing_values_note(before, after))


def _type_of(name: str, before: pd.Series[Any], after: pd.Series[Any], request: DriftRequest) -> ColumnType:
    if name in request.categorical_columns:
        return "categorical"
    # A column without any value has no type of its own: the other one decides.
    typed = [column for column in (before, after) if column.notna().any()]
    return "numerical" if typed and all(_is_numeric(column) for column in typed) else "categorical"


def _type_problem(before: pd.Series[Any], after: pd.Series[Any], kind: ColumnType) -> str:
    if "M" in (before.dtype.kind, after.dtype.kind):
        return "times are not compared; ignore the column"
    if kind == "categorical" and before.notna().any() and after.notna().any():
        texts = [_is_text(column) for column in (before, after)]
        if texts[0] != texts[1]:
            return f"its type changed: {before.dtype} in the reference, {after.dtype} in the current data"
    return ""


def _amount_problem(before: pd.Series[Any], after: pd.Series[Any], kind: ColumnType, request: DriftRequest) -> str:
    for column, where in ((before, "reference"), (after, "current")):
        values = _count_values(column, kind)
        if values < request.min_rows:
            return f"{values} values in the {where} data, at least {request.min_rows} are needed"
    if kind == "categorical" and request.categorical_method == "z":
        categories = set(_as_categories(before).dropna()) | set(_as_categories(after).dropna())
        if len(categories) > _Z_TEST_MAX_CATEGORIES:
            return f"{len(categories)} categories, the z-test takes {_Z_TEST_MAX_CATEGORIES}"
    return ""


def _count_values(column: pd.Series[Any], kind: ColumnType) -> int:
    import numpy as np  # noqa: PLC0415

    if kind == "numerical":
        return int(np.isfinite(column.to_numpy(dtype=float, na_value=np.nan)).sum())
    return int(column.notna().sum())


def _missing_values_note(before: pd.Series[Any], after: pd.Series[Any]) -> str:
    shares = float(before.isna().mean()), float(after.isna().mean())
    return f"missing values: {shares[0]:.1%} then, {shares[1]:.1%} now" if any(shares) else ""


def _is_numeric(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "iuf"


def _is_text(column: pd.Series[Any]) -> bool:
    return column.dtype.kind not in "iufb"


def _as_categories(column: pd.Series[Any]) -> pd.Series[Any]:
    values = column.astype(object)
    try:
        texts = values.map(lambda value: str(plain_label(value)), na_action="ignore")
    except OverflowError:
        raise DatasetError(f"Column {column.name!r} has infinite values and cannot be categorical.") from None
    return texts.where(column.notna(), None)
