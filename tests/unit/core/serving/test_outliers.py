"""Rows with values that the training data does not cover."""

from __future__ import annotations

import math

from airflow_mcp.core.drift.profile import Categories, ColumnProfile, DataProfile, Distribution
from airflow_mcp.core.serving.outliers import OutlierRanges

NAMES = ("amount", "country", "note")


def ranges(*, is_exact: bool = True) -> OutlierRanges:
    amount = Distribution(values=(0.0, 10.0, 100.0), at=(1, 1, 1), mean=36.0, variance=1.0)
    categories = Categories(counts={"DE": 5, "AT": 3}, other=0 if is_exact else 2)
    columns = (
        ColumnProfile(name="amount", kind="numerical", type="double", distribution=amount),
        ColumnProfile(name="country", kind="categorical", type="string", categories=categories),
        ColumnProfile(name="note", kind="text", type="string"),
    )
    return OutlierRanges(DataProfile(rows=8, columns=columns))


def test_rows_are_counted_once_however_many_values_are_unlike() -> None:
    rows = [(5.0, "DE", "a"), (0.0, "AT", "b"), (100.0, "DE", "c"), (-0.1, "DE", ""), (101, "XX", ""), (1, "XX", "")]
    assert ranges().count(NAMES, rows) == 3


def test_missing_values_are_no_outliers() -> None:
    assert ranges().count(NAMES, [(None, None, None), (math.nan, "DE", "")]) == 0


def test_infinite_numbers_are_outliers() -> None:
    assert ranges().count(NAMES, [(math.inf, "DE", ""), (-math.inf, "DE", "")]) == 2


def test_categories_that_the_profile_does_not_list_completely_judge_nothing() -> None:
    assert ranges(is_exact=False).columns == {"amount"}
    assert ranges(is_exact=False).count(NAMES, [(1.0, "XX", "")]) == 0


def test_columns_that_the_profile_does_not_know_judge_nothing() -> None:
    assert ranges().count(("age",), [(1000,)]) == 0


def test_columns_may_come_in_any_order() -> None:
    assert ranges().count(("country", "amount"), [("DE", 5.0), ("DE", 500.0)]) == 1
