"""Whose fault it is that a model raises: that of the caller, which is answered 400, or that of the model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.scoring import TableReader, UnreadableRequestError
from airflow_mcp.core.serving.signature import Column, ModelSignature, Tensor

with warnings.catch_warnings():  # MLflow warns of type hints of its own
    warnings.simplefilter("ignore")
    from airflow_mcp.work.serve_model.batches import Batches, ModelRaisedError

NUMBERS = ModelSignature(columns=(Column("x", "double"), Column("y", "double")))
MIXED = ModelSignature(columns=(Column("x", "double"), Column("s", "string")))
ARRAY = ModelSignature(tensors=(Tensor("", "float64", (-1, 2)),))
NONE = ModelSignature()


class _Metadata:
    def get_input_schema(self) -> None:
        return None


class _Model:
    metadata = _Metadata()

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def predict(self, table: Any) -> Any:
        return self._answer(table)


def takes_no_null(table: Any) -> Any:
    if pd.isna(pd.DataFrame(table)).any(axis=None):
        raise ValueError("Input X contains NaN")
    return np.zeros(len(table))


def is_broken(_: Any) -> Any:
    raise ValueError("the model is broken")


def has_a_defect(_: Any) -> Any:
    raise RuntimeError("out of memory on the device")


def ask(answer: Callable[[Any], Any], signature: ModelSignature, *rows: dict[str, Any]) -> None:
    read = TableReader(signature).read(json.dumps({"dataframe_records": rows}).encode())
    assert read is not None
    kind, payload = read.kind, read.payload
    if kind is FrameKind.COLUMNS:
        payload = b"\x92" + read.form + b"\xdd" + read.number.to_bytes(4, "big") + payload
    Batches(_Model(answer), signature).answer(kind, payload, read.number)


def ask_unread(signature: ModelSignature, body: bytes, answer: Callable[[Any], Any], kind: str = "text/csv") -> None:
    Batches(_Model(answer), signature).answer(FrameKind.BODY, msgspec.msgpack.encode((kind, body, True)), 1)


@pytest.mark.parametrize(
    ("signature", "row"), [(NUMBERS, {"x": None, "y": 1}), (MIXED, {"x": None, "s": "a"}), (MIXED, {"x": 1, "s": None})]
)
def test_nulls_that_a_model_does_not_take_are_a_mistake_of_the_caller(
    signature: ModelSignature, row: dict[str, Any]
) -> None:
    with pytest.raises(UnreadableRequestError, match="raised ValueError for rows that hold nulls") as raised:
        ask(takes_no_null, signature, row)
    assert raised.value.code == "invalid_rows"


def test_nulls_in_an_array_are_one_too() -> None:
    payload = np.array([[np.nan, 1.0]]).tobytes()
    with pytest.raises(UnreadableRequestError, match="that hold nulls"):
        Batches(_Model(takes_no_null), ARRAY).answer(FrameKind.ARRAY, payload, 1)


@pytest.mark.parametrize("answer", [is_broken, has_a_defect])
@pytest.mark.parametrize("x", [None, 1.0])
def test_a_model_that_raises_without_nulls_too_is_to_blame(answer: Callable[[Any], Any], x: float | None) -> None:
    with pytest.raises(ModelRaisedError):
        ask(answer, NUMBERS, {"x": x, "y": 1})


def test_without_a_signature_values_that_a_model_does_not_take_are_a_mistake_of_the_caller() -> None:
    def wants_x(table: Any) -> Any:
        return table["x"].to_numpy()

    ask_unread(NONE, b"x\n1\n", wants_x)
    with pytest.raises(UnreadableRequestError, match=r"raised KeyError .* the model has no signature"):
        ask_unread(NONE, b"z\n1\n", wants_x)
    with pytest.raises(ModelRaisedError):
        ask_unread(NONE, b"x\n1\n", has_a_defect)


@pytest.mark.parametrize("signature", [NONE, NUMBERS])
def test_csv_without_rows_is_refused(signature: ModelSignature) -> None:
    with pytest.raises(UnreadableRequestError, match="at least one row"):
        ask_unread(signature, b"x,y\n", is_broken)
