"""A model's answers to requests of all kinds: every request gets a state, and every silence a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.exceptions import RefusedError
from airflow_mcp.work.measures import replay_predictions
from airflow_mcp.work.measures.replay_predictions import ANSWERED, FAILED, UNFIT, Replayed
from airflow_mcp.work.models.input_columns import cast_columns
from airflow_mcp.work.models.loaded_model import LoadedModel

COLUMNS = [("x", "double", True), ("n", "long", True), ("name", "string", False)]


class Model:
    """A model whose answers a test chooses."""

    uri = "models:/m-1"
    classes: list[Any] | None = None

    def __init__(
        self, answer: Callable[[pd.DataFrame], Any], columns: list[tuple[str, str, bool]] | None = None
    ) -> None:
        self._answer, self.columns, self.calls = answer, COLUMNS if columns is None else columns, 0

    def predict(self, inputs: pd.DataFrame) -> Any:
        self.calls += 1
        try:
            return self._answer(inputs)
        except Exception as error:
            raise RefusedError(
                f"model m failed to predict {len(inputs)} rows: {error}. Nothing was recorded"
            ) from error

    def probabilities(self, inputs: pd.DataFrame) -> tuple[None, str]:
        return None, "none"


def replayed(answer: Callable[[pd.DataFrame], Any], **options: Any) -> Replayed:
    return Replayed(cast("LoadedModel", Model(answer, **options)), "regressor")


def requests(rows: int = 64) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(rows) / 2, "n": range(rows), "name": "a", "more": 1})


def everything(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.ones(len(frame), dtype=bool)


def test_every_request_that_fits_is_answered_in_one_call() -> None:
    model, frame = replayed(lambda rows: rows["x"] * 2), requests()
    answers = model.answer(frame, everything(frame))
    assert answers.predictions.tolist() == list(range(64))
    assert set(answers.state) == {ANSWERED}
    assert cast("Model", model.model).calls == 1
    assert (model.troubles().unfit, model.troubles().failed, model.troubles().reasons) == (0, 0, ())


def test_requests_that_do_not_fit_are_found_by_cell_and_the_others_are_answered() -> None:
    frame = requests().astype(object)
    frame.loc[3, "x"] = "three"
    frame.loc[7, "n"] = 7.5
    frame.loc[9, "n"] = None
    frame.loc[11, "name"] = 11
    frame.loc[13, "x"] = None  # missing numbers are for the model to judge
    model = replayed(lambda rows: rows["n"])
    answers = model.answer(frame, everything(frame))
    assert np.flatnonzero(answers.state == UNFIT).tolist() == [3, 7, 9, 11]
    assert [answers.predictions[row] for row in (2, 13, 63)] == [2, 13, 63]
    assert np.isnan(answers.predictions[3])
    assert {(item.reason, item.requests) for item in model.troubles().reasons} == {
        ("'x' cannot be converted to double", 1),
        ("'n' cannot be converted to long", 2),
        ("'name' cannot be converted to string", 1),
    }


def count_casts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of each cast."""
    casts: list[int] = []

    def cast(frame: pd.DataFrame, *arguments: Any) -> pd.DataFrame:
        casts.append(len(frame))
        return cast_columns(frame, *arguments)

    monkeypatch.setattr(replay_predictions, "cast_columns", cast)
    return casts


WRONG: dict[str, tuple[list[Any], set[int]]] = {
    "every": ([f"a{row}" for row in range(256)], set(range(256))),
    "one-value": (["a"] * 256, set(range(256))),
    "every-other": ([f"a{row}" if row % 2 else row / 2 for row in range(256)], set(range(1, 256, 2))),
    "two-values": (["a", 1.5] * 128, set(range(0, 256, 2))),
    "beside-missing": ([1.5, "a", None, "a", True, None] + [2.5] * 250, {1, 3, 4}),
    "lists": ([[1], {"a": 1}, [1], 2.5] * 64, {row for row in range(256) if row % 4 != 3}),
    "beyond-doubles": ([10**400, 1.5, 2**53 + 1, None] + [2.5] * 252, {0, 2}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_found_with_few_casts(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(replay_predictions, "MAX_ISOLATING_CALLS", 20)
    casts = count_casts(monkeypatch)
    values, wrong = WRONG[case]
    frame = requests(256).astype(object)
    frame["x"] = pd.Series(values, dtype=object)
    model = replayed(lambda rows: rows["n"])
    answers = model.answer(frame, everything(frame))
    assert set(np.flatnonzero(answers.state == UNFIT)) == wrong
    assert [(item.reason, item.requests) for item in model.troubles().reasons] == [
        ("'x' cannot be converted to double", len(wrong))
    ]
    assert len(casts) < 40


def test_where_too_many_values_of_one_kind_are_wrong_their_neighbours_count_as_unfit_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay_predictions, "MAX_ISOLATING_CALLS", 20)
    casts = count_casts(monkeypatch)
    frame = requests(256)
    frame["n"] = np.where(np.arange(256) < 128, np.arange(256) / 2, np.arange(256))  # fractions in every other row
    answers = replayed(lambda rows: rows["n"]).answer(frame, everything(frame))
    unfit = set(np.flatnonzero(answers.state == UNFIT))
    assert unfit >= set(range(1, 128, 2))
    assert unfit.isdisjoint(range(128, 256))
    assert len(casts) < 40


def test_a_column_that_is_missing_altogether_is_said_once() -> None:
    frame = requests().drop(columns="x")
    model = replayed(lambda rows: rows["n"])
    assert set(model.answer(frame, everything(frame)).state) == {UNFIT}
    assert [(item.reason, item.requests) for item in model.troubles().reasons] == [("'x' is missing", 64)]
    assert cast("Model", model.model).calls == 0


def test_an_optional_column_may_be_missing() -> None:
    frame = requests().drop(columns="name")
    assert set(replayed(lambda rows: rows["n"]).answer(frame, everything(frame)).state) == {ANSWERED}


def test_the_very_requests_that_a_model_breaks_on_are_found() -> None:
    def answer(rows: pd.DataFrame) -> Any:
        if rows["n"].isin([5, 40]).any():
            raise KeyError("five or forty")
        return rows["n"]

    frame, model = requests(), replayed(answer)
    answers = model.answer(frame, everything(frame))
    assert np.flatnonzero(answers.state == FAILED).tolist() == [5, 40]
    assert model.troubles().failed == 2
    ((reason, count),) = [(item.reason, item.requests) for item in model.troubles().reasons]
    assert re.fullmatch(r"KeyError at measures/test_replay_predictions\.py:\d+", reason)
    assert count == 2


def test_an_answer_that_is_not_finite_is_no_answer() -> None:
    frame, model = requests(), replayed(lambda rows: rows["x"].where(rows["n"] != 8, np.nan))
    assert np.flatnonzero(model.answer(frame, everything(frame)).state == FAILED).tolist() == [8]


def test_a_model_that_always_breaks_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_predictions, "MAX_ISOLATING_CALLS", 10)

    def answer(rows: pd.DataFrame) -> Any:
        raise RuntimeError("never")

    frame, model = requests(1000), replayed(answer)
    assert set(model.answer(frame, everything(frame)).state) == {FAILED}
    assert model.troubles().failed == 1000
    assert cast("Model", model.model).calls <= 25


def test_lines_that_are_not_readable_are_nobodys_fault() -> None:
    frame = requests()
    readable = everything(frame)
    readable[4] = False
    model = replayed(lambda rows: rows["n"])
    answers = model.answer(frame, readable)
    assert answers.state[4] == FAILED
    assert (model.unfit, model.failed) == (0, 0)


def test_a_model_of_unnamed_columns_is_refused() -> None:
    with pytest.raises(RefusedError, match="unnamed array"):
        replayed(lambda rows: rows, columns=[])


def test_reasons_are_bounded_however_many_there_are() -> None:
    def answer(rows: pd.DataFrame) -> Any:
        raise type(f"Error{rows['n'].iloc[0]}", (RuntimeError,), {})

    frame, model = requests(500), replayed(answer)
    model.answer(frame, everything(frame))
    assert len(model.reasons) <= 101
    assert sum(model.reasons.values()) == 500
    assert len(model.troubles().reasons) == 10


def test_what_a_model_says_about_the_values_of_requests_stays_out_of_the_evidence() -> None:
    def answer(rows: pd.DataFrame) -> Any:
        if (rows["name"] == "Ada Lovelace").any():
            raise ValueError(f"cannot convert {rows['name'].tolist()}")
        return rows["n"]

    frame = requests()
    frame.loc[[3, 4], "name"] = "Ada Lovelace"
    model = replayed(answer)
    model.answer(frame, everything(frame))
    ((reason, count),) = [(item.reason, item.requests) for item in model.troubles().reasons]
    assert (reason.partition(" at ")[0], count) == ("ValueError", 2)
    assert "Ada" not in reason


@pytest.mark.parametrize(
    ("output", "what"),
    [(0.25, "fractions"), ({"label": 1}, "values of type dict"), (pd.Timestamp(0), "values of type Timestamp")],
)
def test_one_answer_that_is_no_class_refuses_the_whole_replay_and_names_the_model(output: Any, what: str) -> None:
    def answer(rows: pd.DataFrame) -> Any:
        return [output if number == 9 else 1 for number in rows["n"]]

    model = Replayed(cast("LoadedModel", Model(answer)), "classifier")
    with pytest.raises(RefusedError, match=f"models:/m-1 answers with {what}, which cannot be classes"):
        model.answer(requests(), everything(requests()))


def test_classes_may_come_as_whole_floats_or_texts_in_a_list() -> None:
    model = Replayed(cast("LoadedModel", Model(lambda rows: [float(number) for number in rows["n"]])), "classifier")
    answers = model.answer(requests(3), everything(requests(3)))
    assert answers.predictions.tolist() == [0, 1, 2]
    assert {type(answer) for answer in answers.predictions} == {int}
    mixed = Replayed(cast("LoadedModel", Model(lambda rows: ["1", 1, "a"])), "classifier")
    assert mixed.answer(requests(3), everything(requests(3))).predictions.tolist() == ["1", 1, "a"]


@pytest.mark.filterwarnings("ignore:.*AnyType")  # importing mlflow.pyfunc warns about a class of MLflow's own
def test_mlflows_dump_of_the_rows_is_replaced_by_the_columns_that_it_checks() -> None:
    from mlflow.models import Model as LoggedModel
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    signature = ModelSignature(Schema([ColSpec(Array(DataType.double), "v"), ColSpec("double", "x")]))
    # MLflow would read type hints of predict, so it has none.
    implementation = type("Implementation", (), {"predict": lambda _, rows, params=None: rows["x"]})()
    model = LoadedModel("models:/m-1", PyFuncModel(LoggedModel(signature=signature), implementation))
    frame = pd.DataFrame({"v": [[1.0], "Ada Lovelace", [2.0], "Ada Lovelace"], "x": [1.0, 2.0, 3.0, 4.0]})
    requested = Replayed(model, "regressor")
    answers = requested.answer(frame, everything(frame))
    assert answers.state.tolist() == [ANSWERED, FAILED, ANSWERED, FAILED]
    assert [(item.reason, item.requests) for item in requested.troubles().reasons] == [
        ("the input does not fit the signature. Check the values of 'v' (Array(double))", 2)
    ]
