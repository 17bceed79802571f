"""Columns of a dataset in the types of a model's signature, converted only where nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.exceptions import DatasetError

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_EXACT_INTEGER = 2**53  # above, a double skips integers
_TYPES: dict[str, np.dtype[Any]] = {
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}
"""MLflow's numeric types."""


CONVERTED = frozenset({*_TYPES, "boolean", "string", "datetime"})
"""MLflow types that are checked here; MLflow itself checks binary data, arrays and objects."""


def cast_columns(frame: pd.DataFrame, columns: Sequence[tuple[str, str, bool]], model: str) -> pd.DataFrame:
    """Select and convert a model's input columns.

    Whole numbers become ``double`` where the model was trained with fractions, and a ``double`` column of whole numbers
    becomes ``long``; MLflow itself refuses both. Nothing is truncated or guessed. The one loss is that of a model of
    32-bit floats: fractions are rounded to the nearest one, as they were for its training.

    :param frame: dataset, one row per example.
    :param columns: name, MLflow type and whether the column is required, in the model's order.
    :param model: address of the model, for the message.
    :return: a new DataFrame with these columns only.
    :raises DatasetError: when columns are missing or do not fit; lists them all, without their values.
    """
    problems: list[str] = []
    cast: dict[str, pd.Series[Any]] = {}
    for name, kind, required in columns:
        if name not in frame.columns:
            if required:
                problems.append(f"{name!r} is missing")
            continue
        try:
            cast[name] = _cast(frame[name], kind)
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"{name!r} is {frame[name].dtype} and cannot be converted to {kind}: {error}")
    if problems:
        raise DatasetError(
            f"the dataset does not fit the signature of model {model}: {'; '.join(problems)}. Nothing was measured"
        )
    import pandas as pd  # noqa: PLC0415

    return pd.DataFrame(cast, index=frame.index)


def cast_array(frame: pd.DataFrame, dtype: np.dtype[Any], model: str) -> np.ndarray[Any, Any]:
    """Convert all columns to one array, as :func:`cast_columns` converts them.

    :param frame: columns in the model's order.
    :param dtype: type of the array.
    :param model: address of the model, for the message.
    :raises DatasetError: when columns do not fit; lists them all, without their values.
    """
    fits = cast_columns(frame, [(str(name), _kind_of(dtype), True) for name in frame.columns], model)
    return np.asarray(fits.to_numpy(dtype=dtype))


def _kind_of(dtype: np.dtype[Any]) -> str:
    """Return MLflow's name of a type, or NumPy's for one that MLflow does not have."""
    if dtype.kind in "bUM":
        return {"b": "boolean", "U": "string", "M": "datetime"}[dtype.kind]
    return next((name for name, known in _TYPES.items() if known == dtype), dtype.name)


def _cast(column: pd.Series[Any], kind: str) -> pd.Series[Any]:
    others = {"boolean": _as_boolean, "string": _as_text, "datetime": _as_datetime}
    if kind in others:
        return others[kind](column)
    dtype = _numeric(kind)
    if dtype is None:
        return column  # binary data, arrays and objects: MLflow checks them itself
    numbers = _as_numbers(column)
    if numbers.dtype.kind not in "iuf":
        raise TypeError("it is not numeric")
    return _as_float(numbers, dtype) if dtype.kind == "f" else _as_integer(numbers, dtype)


def _numeric(kind: str) -> np.dtype[Any] | None:
    """Return the NumPy type of a kind of numbers; None for anything else."""
    if kind in _TYPES:
        return _TYPES[kind]
    try:
        dtype = np.dtype(kind)
    except TypeError:
        return None
    return dtype if dtype.kind in "iuf" else None


def _as_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Convert decimals to whole numbers or to doubles with the same digits, and missing values alone to NaN."""
    import pandas as pd  # noqa: PLC0415

    if column.dtype != object:
        return column
    known = column.dropna()
    if not len(known):
        return column.astype(float)  # files without types of their own have missing numbers only
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        raise ValueError("a double does not represent whole numbers above 2**53 exactly")
    if not all(isinstance(value, Decimal) for value in known):
        return column
    if len(known) == len(column) and all(value == value.to_integral_value() for value in known):
        return pd.Series([int(value) for value in column], index=column.index)
    numbers = [None if value is None else float(value) for value in column.astype(object).where(column.notna(), None)]
    if any(Decimal(repr(number)) != value for number, value in zip(numbers, column, strict=True) if number is not None):
        raise ValueError("a double does not hold all digits of its decimals")
    return pd.Series(numbers, index=column.index, dtype=float)


def _as_integer(column: pd.Series[Any], dtype: np.dtype[Any]) -> pd.Series[Any]:
    missing = int(column.isna().sum())
    if missing:
        raise ValueError(f"{missing} values are missing, and an integer column cannot have missing values")
    is_float = column.dtype.kind == "f"
    if is_float and not (column == np.floor(column)).all():
        raise ValueError("it has fractions")
    limits = np.iinfo(dtype)
    # As a double, the largest 64-bit integer is rounded up to the first number that does not fit.
    is_above = column.max() >= float(limits.max) + 1 if is_float else column.max() > limits.max
    if column.min() < limits.min or is_above:
        raise ValueError(f"values are outside {limits.min} … {limits.max}")
    if is_float and (column.abs() > _LARGEST_EXACT_INTEGER).any():
        raise ValueError("they are doubles above 2**53, so they may have been rounded")
    return column.astype(dtype)


def _as_float(column: pd.Series[Any], dtype: np.dtype[Any]) -> pd.Series[Any]:
    if column.dtype.kind in "iu" and (column.abs() > _LARGEST_EXACT_INTEGER).any():
        raise ValueError("a double does not represent whole numbers above 2**53 exactly")
    wide = column.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(dtype)
    lost = np.isfinite(wide) & (narrow.astype(np.float64) != wide)
    if not lost.any():
        return narrow
    limits = np.finfo(dtype)
    bits, size = f"a {limits.bits}-bit float", wide[lost].abs()
    if (size > float(limits.max)).any():
        raise ValueError(f"values are larger than {bits} can be")
    if (size > 2.0 ** (limits.nmant + 1)).any():
        raise ValueError(f"{bits} does not represent numbers above 2**{limits.nmant + 1} exactly")
    if (size < float(limits.tiny)).any():
        raise ValueError(f"values are smaller than {bits} can be")
    return narrow


def _as_boolean(column: pd.Series[Any]) -> pd.Series[Any]:
    if column.dtype.kind == "b":
        return column.astype(bool)
    if column.isin([0, 1]).all():
        return column.astype(bool)
    raise TypeError("it has values other than true and false")


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    texts = column.dropna()
    if not texts.map(lambda value: isinstance(value, str)).all():
        raise TypeError("it is not text")
    return column.astype(object)


def _as_datetime(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd  # noqa: PLC0415

    if column.dtype.kind == "M":
        return _without_zone(column)
    if column.dtype != object or not column.dropna().map(lambda value: isinstance(value, str | date)).all():
        raise TypeError("it is neither a time nor text")
    times = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    broken = int((times.isna() & column.notna()).sum())
    if broken:
        raise ValueError(f"{broken} values are not ISO 8601 times of the years 1678 to 2261")
    return _without_zone(pd.to_datetime(column, format="ISO8601"))


def _without_zone(times: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd  # noqa: PLC0415

    if times.dtype == object or isinstance(times.dtype, pd.DatetimeTZDtype):
        raise ValueError("its times have a time zone, and MLflow's datetime has none. Store them without one")
    try:
        return times.astype("datetime64[ns]")
    except (ValueError, OverflowError):  # the error quotes the time
        raise ValueError("it has times outside the years 1678 to 2261") from None
