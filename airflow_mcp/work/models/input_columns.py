"""Columns of a dataset in the types of a model's signature, converted only where nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.exceptions import DatasetError

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_EXACT_INTEGER = 2**53  # above, a double skips integers
_INTEGERS: dict[str, np.dtype[Any]] = {"integer": np.dtype(np.int32), "long": np.dtype(np.int64)}
_FLOATS = {"float": np.float32, "double": np.float64}


def cast_columns(frame: pd.DataFrame, columns: Sequence[tuple[str, str, bool]], model: str) -> pd.DataFrame:
    """Select and convert a model's input columns.

    Whole numbers become ``double`` where the model was trained with fractions, and a ``double`` column of whole numbers
    becomes ``long``; MLflow itself refuses both. Nothing is rounded, truncated or guessed.

    :param frame: dataset, one row per example.
    :param columns: name, MLflow type and whether the column is required, in the model's order.
    :param model: address of the model, for the message.
    :return: a new DataFrame with these columns only.
    :raises DatasetError: when columns are missing or do not fit; lists them all.
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
            problems.append(f"{name!r} is {frame[name].dtype} and cannot be converted to {kind}: {error}")
    if problems:
        raise DatasetError(
            f"the dataset does not fit the signature of model {model}: {'; '.join(problems)}. Nothing was measured"
        )
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(cast, index=frame.index)


def _caster(kind: str) -> Callable[[pd.Series[Any], str], pd.Series[Any]]:
    if kind in _INTEGERS:
        return _as_integer
    if kind in _FLOATS:
        return _as_float
    return {"boolean": _as_boolean, "string": _as_text, "datetime": _as_datetime}.get(kind, _unchanged)


def _as_integer(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if column.dtype.kind not in "iuf":
        raise TypeError("it is not numeric")
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(f"{missing} values are missing, and an integer column cannot have missing values")
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
        raise ValueError("a double does not represent whole numbers above 2**53 exactly")
    return column.astype(_FLOATS[kind])


def _as_boolean(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    if column.dtype.kind == "b":
        return column.astype(bool)
    if column.isin([0, 1]).all():
        return column.astype(bool)
    raise TypeError("it has values other than true and false")


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


def _unchanged(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    """Leave binary data, arrays and objects to MLflow, which checks them itself."""
    return column
