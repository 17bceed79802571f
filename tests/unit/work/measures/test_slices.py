from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.slices import MAX_VALUES, MISSING, measure_slices


def scored(true: list[int], predicted: list[int]) -> ScoredModel:
    nothing: Any = None  # slices ask a scored model for its answers only
    return ScoredModel(nothing, None, np.array(true), np.array(predicted), Classes(("no", "yes"), 1))


def test_every_value_is_a_slice_and_missing_values_are_one_too() -> None:
    frame = pd.DataFrame({"region": ["north", None, "north", "south"]})
    slices = measure_slices(frame, ["region"], scored([1, 1, 0, 0], [1, 0, 1, 0]), None)
    assert [(part.value, part.rows, part.candidate["accuracy"]) for part in slices] == [
        (MISSING, 1, 0.0),
        ("north", 2, 0.5),
        ("south", 1, 1.0),
    ]
    assert all(part.champion is None for part in slices)


def test_metrics_that_a_slice_does_not_define_are_left_out() -> None:
    frame = pd.DataFrame({"region": ["north", "south"]})
    north, south = measure_slices(frame, ["region"], scored([1, 0], [1, 0]), scored([1, 0], [0, 0]))
    assert north.candidate == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert north.champion == {"accuracy": 0.0, "recall": 0.0, "f1": 0.0}
    assert south.candidate == {"accuracy": 1.0}


def test_columns_with_too_many_values_are_all_named() -> None:
    rows = MAX_VALUES + 1
    frame = pd.DataFrame(
        {"id": range(rows), "name": [f"n{n}" for n in range(rows)], "fine": [n % 50 for n in range(rows)]}
    )
    with pytest.raises(InvalidArgumentError, match="at most 50 values; got 'id' with 51, 'name' with 51"):
        measure_slices(frame, ["id", "name", "fine"], scored([0] * rows, [0] * rows), None)


def test_a_slice_has_one_name_whether_its_column_has_gaps_elsewhere_or_not() -> None:
    whole, gaps = pd.DataFrame({"size": [1, 2]}), pd.DataFrame({"size": [1.0, 2.0, None]}).head(2)
    for frame in (whole, gaps, pd.DataFrame({"size": [1, 2]}, dtype=object)):
        assert [part.value for part in measure_slices(frame, ["size"], scored([1, 0], [1, 0]), None)] == ["1", "2"]
