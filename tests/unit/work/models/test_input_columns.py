from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.models.input_columns import cast_columns


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        ([1, 2], "double", "float64"),
        ([1.0, 2.0], "long", "int64"),
        ([1, 2], "integer", "int32"),
        ([0.5, None], "float", "float32"),
        ([1, 0], "boolean", "bool"),
        ([True, False], "boolean", "bool"),
        (["a", None], "string", "object"),
        (["2026-01-01", "2026-01-02"], "datetime", "datetime64[ns]"),
    ],
)
def test_what_can_be_given_without_loss_is_cast(values: list[object], kind: str, dtype: str) -> None:
    frame = pd.DataFrame({"x": values, "extra": [1, 2]})
    result = cast_columns(frame, [("x", kind, True)], "m")
    assert result.columns.tolist() == ["x"]
    assert str(result["x"].dtype) == dtype


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        ([1.5, 2.0], "long", "it has fractions"),
        ([1.0, None], "long", "1 values are missing"),
        ([2**40, 1], "integer", "values are outside"),
        ([np.inf, 1.0], "long", "values are outside"),
        ([2**53 + 1, 1], "double", r"2\*\*53 exactly"),
        (["1", "2"], "double", "it is not numeric"),
        ([True, False], "long", "it is not numeric"),
        ([7, 8], "string", "it is not text"),
        ([1, 2], "boolean", "other than true and false"),
        ([1, 2], "datetime", "neither a time nor text"),
        (["soon", "later"], "datetime", "2 values are not ISO 8601"),
    ],
)
def test_what_would_lose_something_is_refused(values: list[object], kind: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=f"'x' is .* cannot be converted to {kind}: .*{reason}"):
        cast_columns(pd.DataFrame({"x": values}), [("x", kind, True)], "m")


def test_every_problem_is_listed_and_optional_columns_may_be_absent() -> None:
    columns = [("x", "long", True), ("gone", "double", True), ("maybe", "double", False)]
    with pytest.raises(DatasetError, match=r"'x' is float64.*; 'gone' is missing") as caught:
        cast_columns(pd.DataFrame({"x": [0.5]}), columns, "m")
    assert "maybe" not in str(caught.value)


def test_columns_come_in_the_order_of_the_model() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2]})
    result = cast_columns(frame, [("b", "long", True), ("a", "long", True)], "m")
    assert result.columns.tolist() == ["b", "a"]
