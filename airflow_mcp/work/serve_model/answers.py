"""Predictions of a model, written as the answer of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from mlflow.utils.proto_json_utils import NumpyEncoder

from airflow_mcp.core.serving.frames import AnswerKind

_encoder = NumpyEncoder()


class Answer(NamedTuple):
    """The answer of a batch."""

    kind: AnswerKind
    payload: bytes
    rows: int


def answer_of(predictions: Any, rows: int) -> Answer:
    """Write predictions in the shape that MLflow's own server gives them.

    :param predictions: what the model returned.
    :param rows: rows that it was asked for; 0 when that is not known.
    :return: one entry per row where the predictions allow it, otherwise one text for all.
    """
    if isinstance(predictions, np.ndarray) and predictions.ndim == 1 and len(predictions) == (rows or len(predictions)):
        if predictions.dtype.kind == "f":
            return Answer(AnswerKind.FLOATS, predictions.astype("<f8").tobytes(), len(predictions))
        if predictions.dtype.kind in "iu" and predictions.dtype != np.uint64:
            return Answer(AnswerKind.INTEGERS, predictions.astype("<i8").tobytes(), len(predictions))
    if isinstance(predictions, dict) and not _is_one_document(predictions) and (mapping := _by_row(predictions, rows)):
        return mapping
    plain = _plain(predictions)
    if isinstance(plain, list) and rows in (0, len(plain)) and not _is_one_document(predictions):
        texts = [json_text(entry) for entry in plain]
        return Answer(AnswerKind.ROWS, msgspec.msgpack.encode(texts), len(texts))
    return Answer(AnswerKind.WHOLE, json_text(plain), rows or 1)


def _by_row(predictions: Mapping[Any, Any], rows: int) -> Answer | None:
    """Return the outputs of a model that names them, if each of them is an array with one entry per row."""
    lengths = {len(values) if isinstance(values, np.ndarray) and values.ndim else -1 for values in predictions.values()}
    if len(lengths) != 1 or -1 in lengths or rows not in (0, *lengths):
        return None
    texts = {str(name): [json_text(entry) for entry in values.tolist()] for name, values in predictions.items()}
    return Answer(AnswerKind.MAPPING, msgspec.msgpack.encode(texts), lengths.pop())


def _plain(predictions: Any) -> Any:
    if isinstance(predictions, np.ndarray):
        return predictions.tolist()
    if isinstance(predictions, pd.Series):
        predictions = pd.DataFrame(predictions)
    if isinstance(predictions, pd.DataFrame):
        return predictions.to_dict(orient="records")
    if _is_one_document(predictions):
        return predictions["predictions"]
    return predictions


def _is_one_document(predictions: Any) -> bool:
    """Return whether a model wraps its answer by itself, which must not be wrapped a second time."""
    return isinstance(predictions, Mapping) and set(predictions) == {"predictions"}


def json_text(value: Any) -> bytes:
    """Return a value as JSON; what is not finite becomes null, since JSON has no word for it."""
    return msgspec.json.encode(value, enc_hook=_convert)


def _convert(value: Any) -> Any:
    converted, known = _encoder.try_convert(value)
    if not known:
        raise TypeError(f"the model returned an object of type {type(value).__name__}, which JSON cannot hold")
    return converted
