from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.evidence import DatasetPin, DriftRequest
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.runtime.drift_columns import comparable_frames, plan_columns


def request(**changes: object) -> DriftRequest:
    values: dict[str, object] = {
        "identity": "i",
        "run_id": "r",
        "reference": DatasetPin(uri="a.csv"),
        "current": DatasetPin(uri="b.csv"),
        "numerical_method": "ks",
        "numerical_threshold": 0.05,
        "categorical_method": "chisquare",
        "categorical_threshold": 0.05,
        "drift_share": 0.5,
        "min_rows": 2,
    }
    return DriftRequest.model_validate(values | changes)


def test_types_come_from_both_datasets_and_the_request() -> None:
    frame = pd.DataFrame({"n": [1, 2], "t": ["a", "b"], "flag": [True, False], "code": [1, 2]})
    plans = plan_columns(frame, frame, request(categorical_columns=("code",)))
    assert [(plan.name, plan.type, plan.problem) for plan in plans] == [
        ("n", "numerical", ""),
        ("t", "categorical", ""),
        ("flag", "categorical", ""),
        ("code", "categorical", ""),
    ]


def test_a_requested_column_that_is_missing_is_refused() -> None:
    both = pd.DataFrame({"a": [1, 2], "b": [1, 2]})
    with pytest.raises(DatasetError, match="'b', needed as a drift column in the current data"):
        plan_columns(both, both[["a"]], request(columns=("a", "b")))
    with pytest.raises(DatasetError, match="in the reference data"):
        plan_columns(both[["a"]], both, request(categorical_columns=("b",)))


def test_a_column_both_asked_for_and_ignored_is_refused() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    with pytest.raises(InvalidArgumentError, match="both name 'a'"):
        plan_columns(frame, frame, request(columns=("a",), ignored_columns=("a",)))


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ([1, 2, 3], None, "missing in the current data"),
        ([1.0, 2, 3], [np.nan] * 3, "0 values in the current data, at least 2 are needed"),
        ([None] * 3, ["a", "b", "c"], "0 values in the reference data"),
        ([1.0, 2, 3], [1.0, np.inf, np.nan], "1 values in the current data"),
        ([1, 2, 3], ["a", "b", "c"], "its type changed: int64 in the reference, object"),
        (pd.to_datetime(["2026-01-01"] * 3), pd.to_datetime(["2026-01-01"] * 3), "times are not compared"),
    ],
)
def test_what_cannot_be_compared_says_why(before: object, after: object, problem: str) -> None:
    current = pd.DataFrame({"other": [1, 2, 3]} if after is None else {"x": after, "other": [1, 2, 3]})
    plans = plan_columns(pd.DataFrame({"x": before, "other": [1, 2, 3]}), current, request())
    assert problem in plans[0].problem
    assert plans[1].problem == ""


def test_the_z_test_is_for_two_categories() -> None:
    before, after = pd.DataFrame({"x": ["a", "b"]}), pd.DataFrame({"x": ["a", "c"]})
    assert plan_columns(before, after, request(categorical_method="z"))[0].problem.startswith("3 categories")
    assert plan_columns(before, before, request(categorical_method="z"))[0].problem == ""


def test_a_changed_share_of_missing_values_is_noted() -> None:
    before, after = pd.DataFrame({"x": [1.0, 2, 3, 4]}), pd.DataFrame({"x": [1.0, 2, 3, None]})
    assert plan_columns(before, after, request())[0].note == "missing values: 0.0% then, 25.0% now"


def test_whole_numbers_with_gaps_are_the_same_categories() -> None:
    before, after = pd.DataFrame({"x": [1, 2, 1]}), pd.DataFrame({"x": [1.0, 2.0, None]})
    plans = plan_columns(before, after, request(categorical_columns=("x",)))
    reference, current = comparable_frames(before, after, plans)
    assert set(reference["x"]) == set(current["x"].dropna()) == {"1", "2"}
