"""What the input example of a model says about it: whether it answers, and whether requests may share a batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from airflow_mcp.core.serving.frames import AnswerKind
from airflow_mcp.core.serving.signature import ModelDescription
from airflow_mcp.work.serve_model.answers import Answer, answer_of
from airflow_mcp.work.serve_model.batches import Batches

MAX_ROWS = 8
"""Rows of the example that are asked one by one."""
_ROW_WISE_FLAVORS = frozenset({"sklearn", "xgboost", "lightgbm", "catboost", "onnx", "pytorch", "tensorflow", "keras"})
"""Flavors that answer each row by itself as far as is known, where no example can show it."""
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8
"""Answers this close are equal: matrix libraries sum in another order when there are more rows."""


class Batching(NamedTuple):
    """Whether requests to a model may share a batch."""

    allowed: bool
    why_not: str = ""


def try_example(pyfunc: Any, path: Path, description: ModelDescription, batches: Batches) -> Batching:
    """Let a model answer its input example, which also warms it up.

    :param pyfunc: MLflow's ``PyFuncModel``.
    :param path: folder of its files.
    :param description: what its ``MLmodel`` file says.
    :param batches: the model.
    :return: whether requests may share a batch, as far as the example shows.
    :raises ModelRaisedError: when it does not answer.
    """
    example = pyfunc.metadata.load_input_example(str(path)) if description.example_path else None
    together = None if example is None else batches.predict_frame(example)
    if why_never := _why_never(description):
        return Batching(False, why_never)
    if example is None:
        if _ROW_WISE_FLAVORS.intersection(description.flavors):
            return Batching(True)
        return Batching(False, "it was logged without an input example that could show that it answers row by row")
    number = _number_of_rows(example)
    if not number:
        return Batching(False, "its input example is not a table or an array with rows")
    if number > MAX_ROWS:
        return _compare(_rows(example, 0, MAX_ROWS), MAX_ROWS, None, batches)
    return _compare(example, number, together, batches)


def _why_never(description: ModelDescription) -> str:
    signature = description.signature
    if not signature.is_fast and signature.array is None:
        return "its inputs are neither named columns of plain types nor one array of numbers"
    return "" if description.is_of_tables else "its flavor does not answer row by row"


def _number_of_rows(example: Any) -> int:
    if isinstance(example, dict):
        numbers = {_number_of_rows(values) for values in example.values()}
        return numbers.pop() if len(numbers) == 1 else 0
    if isinstance(example, pd.DataFrame):
        return len(example)
    return len(example) if isinstance(example, np.ndarray) and example.ndim else 0


def _rows(example: Any, start: int, end: int) -> Any:
    if isinstance(example, dict):
        return {name: values[start:end] for name, values in example.items()}
    return example.iloc[start:end] if isinstance(example, pd.DataFrame) else example[start:end]


def _twice(example: Any) -> Any:
    if isinstance(example, dict):
        return {name: np.concatenate([values, values]) for name, values in example.items()}
    if isinstance(example, pd.DataFrame):
        return pd.concat([example, example], ignore_index=True)
    return np.concatenate([example, example])


def _compare(rows: Any, number: int, together: Any, batches: Batches) -> Batching:
    if number == 1:
        rows, number, together = _twice(rows), 2, None
    if together is None:
        together = batches.predict_frame(rows)
    whole = answer_of(together, number)
    if whole.kind is AnswerKind.WHOLE:
        return Batching(False, "it does not return one answer per row")
    single = [answer_of(batches.predict_frame(_rows(rows, index, index + 1)), 1) for index in range(number)]
    one_by_one = [entry for answer in single for entry in _entries(answer)]
    if not _close(_entries(whole), one_by_one):
        return Batching(False, "it answers rows of its input example differently when they come together")
    return Batching(True)


def _entries(answer: Answer) -> list[Any]:
    if answer.kind is AnswerKind.FLOATS:
        return list(np.frombuffer(answer.payload, "<f8").tolist())
    if answer.kind is AnswerKind.INTEGERS:
        return list(np.frombuffer(answer.payload, "<i8").tolist())
    if answer.kind is AnswerKind.ROWS:
        return [msgspec.json.decode(text) for text in msgspec.msgpack.decode(answer.payload)]
    if answer.kind is AnswerKind.MAPPING:
        columns = msgspec.msgpack.decode(answer.payload)
        return [[msgspec.json.decode(text) for text in row] for row in zip(*columns.values(), strict=True)]
    return [msgspec.json.decode(answer.payload)]


def _close(left: Any, right: Any) -> bool:
    if isinstance(left, float | int) and isinstance(right, float | int):
        return math.isclose(left, right, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE) or (
            math.isnan(left) and math.isnan(right)
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_close, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(left[key], right[key]) for key in left)
    return bool(left == right)
