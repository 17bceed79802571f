from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.models.input_columns import cast_array, cast_columns


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
        ([date(2026, 1, 1), None], "datetime", "datetime64[ns]"),
        (np.array(["2026-01-01"], "M8[us]"), "datetime", "datetime64[ns]"),
        ([2**24 + 2, 1e8], "float", "float32"),
        ([0.1, 1e-30, float(np.float32(3e38)), np.inf, None], "float", "float32"),
        ([Decimal("0.10"), None], "double", "float64"),
        ([None, None], "double", "float64"),
        ([Decimal("12"), Decimal("3.0")], "long", "int64"),
        ([-(2.0**53), 3.0], "long", "int64"),
        ([1e300, None], "double", "float64"),
    ],
)
def test_what_can_be_given_without_loss_is_cast(values: Any, kind: str, dtype: str) -> None:
    frame = pd.DataFrame({"x": values, "extra": range(len(values))})
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
        ([2**24 + 1, 1], "float", r"a 32-bit float does not represent numbers above 2\*\*24 exactly"),
        ([2.0**24 + 1.5], "float", r"a 32-bit float does not represent numbers above 2\*\*24 exactly"),
        ([2**53 + 2, 1], "float", r"2\*\*53 exactly"),
        ([1e300], "float", "values are larger than a 32-bit float can be"),
        ([1e-300, 1.0], "float", "values are smaller than a 32-bit float can be"),
        ([2.0**63], "long", "values are outside"),
        ([2.0**54], "long", "they may have been rounded"),
        ([2**63], "long", "values are outside"),
        ([Decimal("0.1234567890123456789")], "double", "does not hold all digits"),
        ([Decimal("0.5")], "long", "it has fractions"),
        ([Decimal("0.5"), "a"], "double", "it is not numeric"),
        (["2026-01-01T00:00:00Z"], "datetime", "have a time zone"),
        (["2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00"], "datetime", "have a time zone"),
        (pd.date_range("2026-01-01", periods=2, tz="UTC"), "datetime", "have a time zone"),
        (np.array(["2500-01-01"], "M8[us]"), "datetime", "outside the years"),
        (["2500-01-01"], "datetime", "1 values are not ISO 8601 times of the years 1678 to 2261"),
        ([1, "2026-01-01"], "datetime", "neither a time nor text"),
    ],
)
def test_what_would_lose_something_is_refused(values: Any, kind: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=f"'x' is .* cannot be converted to {kind}: .*{reason}") as caught:
        cast_columns(pd.DataFrame({"x": values}), [("x", kind, True)], "m")
    assert not any(repr(str(value)) in str(caught.value) for value in values)


def test_every_problem_is_listed_and_optional_columns_may_be_absent() -> None:
    columns = [("x", "long", True), ("gone", "double", True), ("maybe", "double", False)]
    with pytest.raises(DatasetError, match=r"'x' is float64.*; 'gone' is missing") as caught:
        cast_columns(pd.DataFrame({"x": [0.5]}), columns, "m")
    assert "maybe" not in str(caught.value)


def test_columns_come_in_the_order_of_the_model() -> None:
    frame = pd.DataFrame({"a": [1], "b": [2]})
    result = cast_columns(frame, [("b", "long", True), ("a", "long", True)], "m")
    assert result.columns.tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([1.5, 2.0], "int64", "cannot be converted to long: it has fractions"),
        ([300, 1], "uint8", "cannot be converted to uint8: values are outside 0 … 255"),
        ([2**24 + 1, 1], "float32", "cannot be converted to float: a 32-bit float"),
        ([2049, 1], "float16", "cannot be converted to float16: a 16-bit float"),
        (["Ada", "Bob"], "float64", "cannot be converted to double: it is not numeric"),
    ],
)
def test_an_array_loses_nothing_either_and_names_its_columns(values: Any, dtype: str, reason: str) -> None:
    frame = pd.DataFrame({"fine": [0, 1], "x": values})
    with pytest.raises(DatasetError, match=f"'x' is .* {reason}") as caught:
        cast_array(frame, np.dtype(dtype), "m")
    assert "Ada" not in str(caught.value)
    assert "'fine'" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8", "bool"])
def test_an_array_has_the_type_of_the_signature(dtype: str) -> None:
    array = cast_array(pd.DataFrame({"a": [0, 1], "b": [1.0, 0.0]}), np.dtype(dtype), "m")
    assert array.dtype == dtype
    assert array.tolist() == [[0, 1], [1, 0]]
