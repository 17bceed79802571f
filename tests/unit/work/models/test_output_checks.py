"""Answers of models against their example and their signature, with MLflow's own schemas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType

from airflow_mcp.work.models.output_checks import check_output, rows_of_example

pytestmark = pytest.mark.filterwarnings("ignore")
TABLE = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]})


def findings(example: Any, output: Any, schema: Any = None) -> dict[str, Any]:
    return {finding.name: finding for finding in check_output(example, output, schema)[1]}


def schema_of(output: Any) -> Any:
    return infer_signature(model_output=output).outputs


@pytest.mark.parametrize(
    ("example", "rows"),
    [
        (TABLE, 3),
        (TABLE.to_numpy(), 3),
        ([[1.0], [2.0]], 2),
        (["one", "two"], 2),
        ([{"a": 1}, {"a": 2}], 2),
        ({"a": [1, 2]}, None),
        ({"messages": []}, None),
        ("one text", None),
        (np.array([1.0, 2.0]), None),
        ([1.0, 2.0], None),
        ([], None),
    ],
)
def test_rows_are_counted_where_an_example_has_rows(example: Any, rows: int | None) -> None:
    assert rows_of_example(example) == rows


@pytest.mark.parametrize(
    "output",
    [
        np.array([0, 1, 0]),
        pd.Series([0.5, 0.1, 0.9]),
        pd.DataFrame({"p": [0.1, 0.2, 0.3], "label": ["a", "b", "c"]}),
        [["x"], ["y"], ["z"]],
        ["x", "y", "z"],
        {"p": np.array([1, 2, 3]), "q": [1, 2, 3]},
        np.ones((3, 4)),
    ],
)
def test_one_answer_per_row_in_any_container_is_fine(output: Any) -> None:
    found = findings(TABLE, output, schema_of(output))
    assert (found["rows"].holds, found["finite"].holds) == (True, True), found
    assert found["signature"].holds is not False, found


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (np.array([0, 1]), "2 answers for 3 rows"),
        (np.array(7), "one ndarray for 3 rows"),
        ("a text", "one str for 3 rows"),
        ({"p": [1, 2, 3], "q": [1]}, "one dict for 3 rows"),
        (None, "no answer (NoneType)"),
        ([], "no answer (list)"),
        (pd.DataFrame(), "no answer (DataFrame)"),
    ],
)
def test_more_or_fewer_answers_than_rows_are_counted(output: Any, says: str) -> None:
    rows = findings(TABLE, output)["rows"]
    assert rows.holds is False
    assert says in rows.note


def test_one_input_may_have_one_answer_of_any_form_but_some_answer() -> None:
    assert findings({"question": "?"}, "an answer")["rows"].holds is None
    assert findings({"question": "?"}, None)["rows"].holds is False


@pytest.mark.parametrize(
    ("output", "missing"),
    [
        (np.array([1.0, np.nan, np.inf]), 2),
        (np.array([1, 2, 3]), 0),
        (pd.Series([1, None, 3], dtype="Int64"), 1),
        (pd.DataFrame({"p": [0.1, np.nan, 0.3], "label": ["a", None, "c"]}), 2),
        ([{"p": 1.0}, {"p": float("nan")}, {"p": None}], 2),
        (np.array(["a", None, "c"], dtype=object), 1),
        (pd.Series(pd.to_datetime(["2026-01-01", None, "2026-01-03"])), 1),
        ({"p": np.array([-np.inf, 1.0, 1.0])}, 1),
    ],
)
def test_what_is_missing_or_not_finite_is_found_at_any_depth(output: Any, missing: int) -> None:
    finite = findings(TABLE, output)["finite"]
    assert finite.holds is (missing == 0)
    assert finite.note == ("" if missing == 0 else f"{missing} of its answers are missing, NaN or infinite")


ONE_LONG = Schema([ColSpec(DataType.long)])
TWO = Schema([ColSpec(DataType.double, "p"), ColSpec(DataType.string, "label")])


@pytest.mark.parametrize(
    ("schema", "output", "problem"),
    [
        (ONE_LONG, np.array([1, 0, 1], dtype="int32"), ""),
        (ONE_LONG, pd.Series([1, 0, 1]), ""),
        (ONE_LONG, np.array([[1], [0], [1]]), ""),
        (ONE_LONG, np.array([0.2, 0.1, 0.5]), "the type is float64, not int64"),
        (ONE_LONG, np.array(["a", "b", "c"]), "not int64"),
        (ONE_LONG, np.ones((3, 2)), "2 columns instead of 1"),
        (Schema([ColSpec(DataType.double)]), np.array([1, 0, 1]), ""),
        (Schema([ColSpec(DataType.string)]), np.array(["a", "b", "c"]), ""),
        (TWO, pd.DataFrame({"p": [1.0] * 3, "label": ["x"] * 3}), ""),
        (TWO, pd.DataFrame({"p": [1.0] * 3}), "label is missing"),
        (TWO, pd.DataFrame({"p": [1.0] * 3, "label": ["x"] * 3, "more": 1}), "more is not in the signature"),
        (TWO, pd.DataFrame({"p": ["x"] * 3, "label": ["x"] * 3}), "p: the type is object, not float64"),
        (TWO, [{"p": 1.0, "label": "x"}] * 3, ""),
        (Schema([TensorSpec(np.dtype("float64"), (-1, 2))]), np.ones((3, 2)), ""),
        (Schema([TensorSpec(np.dtype("float64"), (-1, 2))]), np.ones((3, 4)), "the shape is (3, 4), not (-1, 2)"),
        (Schema([TensorSpec(np.dtype("int64"), (-1,))]), np.ones((3, 1), dtype="int64"), ""),
        (Schema([TensorSpec(np.dtype("int64"), (-1,))]), np.array([0.5, 1, 1]), "the type is float64"),
    ],
)
def test_answers_are_held_to_names_number_and_types_of_the_signature(schema: Any, output: Any, problem: str) -> None:
    signature = findings(TABLE, output, schema)["signature"]
    assert signature.holds is (problem == ""), signature
    assert problem in signature.note


def test_what_cannot_be_compared_is_said_and_not_a_pass_by_itself() -> None:
    assert findings(TABLE, np.ones(3))["signature"].holds is None
    nested = findings(TABLE, pd.DataFrame({"p": [[1.0], [2.0], [3.0]]}), Schema([ColSpec(Array(DataType.double), "p")]))
    assert nested["signature"].holds is None
    assert "nested types were not compared" in nested["signature"].note


class Unreadable:
    """Raises when NumPy looks at it, as a tensor on another device does."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no host memory")


def test_an_output_that_cannot_be_examined_is_a_finding_and_no_crash() -> None:
    within: list[Any] = []
    within.append(within)
    assert findings(TABLE, within)["finite"].note.startswith("its answers cannot be examined: RecursionError")
    found = findings(TABLE, Unreadable(), Schema([ColSpec("double")]))
    assert (found["signature"].holds, "RuntimeError: no host memory" in found["signature"].note) == (False, True)


def test_columns_of_one_name_are_each_examined() -> None:
    output = pd.DataFrame([[1.0, np.nan]] * 3, columns=["a", "a"])
    assert findings(TABLE, output)["finite"].note == "3 of its answers are missing, NaN or infinite"
    assert findings(TABLE, output, Schema([ColSpec("double"), ColSpec("double")]))["signature"].holds
