"""Columns of a dataset in the types that a model's signature asks for, without losing anything on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.exceptions import DatasetError

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_EXACT_INTEGER = 2**53  # of a double
_INTEGERS: dict[str, np.dtype[Any]] = {"integer": np.dtype(np.int32), "long": np.dtype(np.int64)}
_FLOATS = {"float": np.float32, "double": np.float64}


def cast_columns(frame: pd.DataFrame, columns: Sequence[tuple[str, str, bool]], model: str) -> pd.DataFrame:
    """Select and cast a model's input columns.

    A file's column of whole numbers becomes ``double`` when the model was trained with fractions, and a ``double`` of
    whole numbers becomes ``long``: MLflow itself refuses both. Nothing is rounded, cut or guessed.

    :param frame: dataset, one row per example.
    :param columns: name, MLflow type and whether it is required, in the model's order.
    :param model: the model's address, for the message.
    :return: a new DataFrame with these columns only.
    :raises DatasetError: listing every column that is missing or does not fit.
    """
    problems: list[str] = []
    cast: dict[str, pd.Series[Any]] = {}
    for name, kind, required in columns:
        if name not in frame.columns:
            if required:
                problems.append(f"{name!r} is missing")
            continue
        try:
            cast[name] = _caster(kind)(frame[name], kind)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name!r} is {frame[name].dtype} and cannot be given as {kind}: {error}")
    if problems:
        raise DatasetError(
            f"The dataset does not fit the signature of model {model}: {'; '.join(problems)}. Nothing was measured."
        )
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(cast, index=frame.index)


def _caster(kind: str) -> Callable[[pd.Series[Any], str], pd.Series[Any]]:
    if kind in _INTEGERS:
        return _as_integer
    if kind in _FLOATS:
        return _as_float
    return {"boolean": _as_boolean, "string": _as_text, "datetime": _as_datetime}.get(kind, _as_it_is)


def _as_integer(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if column.dtype.kind not in "iuf":
        raise TypeError("it is not numeric")
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(f"{missing} values are missing and integers cannot be")
    if column.dtype.kind == "f" and not (column == np.floor(column)).all():
        raise ValueError("it has fractions")
    limits = np.iinfo(_INTEGERS[kind])
    if column.min() < limits.min or column.max() > limits.max:
        raise ValueError(f"values are outside {limits.min} … {limits.max}")
    return column.astype(_INTEGERS[kind])


def _as_float(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if column.dtype.kind not in "iuf":
        raise TypeError("it is not numeric")
    if column.dtype.kind in "iu" and (column.abs() > _LARGEST_EXACT_INTEGER).any():
        raise ValueError("whole numbers above 2**53 are not exact as a double")
    return column.astype(_FLOATS[kind])


def _as_boolean(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if column.dtype.kind == "b":
        return column.astype(bool)
    if column.isin([0, 1]).all():
        return column.astype(bool)
    raise TypeError("values other than true and false")


def _as_text(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    texts = column.dropna()
    if not texts.map(lambda value: isinstance(value, str)).all():
        raise TypeError("it is not text")
    return column.astype(object)


def _as_datetime(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    import pandas as pd  # noqa: PLC0415

    if column.dtype.kind == "M":
        return column
    if column.dtype != object:
        raise TypeError("it is neither a time nor text")
    times = pd.to_datetime(column, format="ISO8601", errors="coerce")
    broken = int((times.isna() & column.notna()).sum())
    if broken:
        raise ValueError(f"{broken} values are not ISO 8601 times")
    return times


def _as_it_is(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """Binary, arrays and objects: MLflow checks these itself."""
    return column
