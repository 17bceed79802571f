"""Names of categories: one value has one name, whatever type, file or block it was read from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mcp.work.reading.arrow_values import by_type

_FLAGS = {"true": "True", "TRUE": "True", "false": "False", "FALSE": "False"}
"""Spellings of flags that parsers of CSV take for one."""
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0")
"""A whole number as a float writes it: pandas writes 7 as 7.0 when its column has missing values."""


def category_names(values: Iterable[Any]) -> list[str]:
    """Return one name per value, the same for equal values of different types, such as ``1``, ``1.0`` and ``"1.0"``.

    Otherwise texts keep their spelling: ``007`` is not ``7``, and version ``1.10`` is not ``1.1``.

    :param values: Python values, none of them missing.
    """
    return [_name(value) for value in values]


def _name(value: Any) -> str:
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value) if value.endswith(".0") else None  # asked for every distinct text
        return whole[1] if whole else _FLAGS.get(value, value)
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value))
        text = repr(value)
        return f"{Decimal(text):f}" if "e" in text else text
    if isinstance(value, Decimal):
        text = f"{abs(value):f}"
        shown = text.rstrip("0").rstrip(".") if "." in text else text
        return f"-{shown}" if value < 0 else shown
    return _name_of_time(value) if isinstance(value, date) else str(value)


def _name_of_time(value: date) -> str:
    """Name a time in UTC if it has a zone; midnight without a zone like the day."""
    if not isinstance(value, datetime):
        return value.isoformat()
    if value.tzinfo is not None:
        return value.astimezone(UTC).isoformat(sep=" ")
    return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")


def counted(values: pa.Array) -> Iterable[tuple[str, int]]:
    """Return the number of rows of each name; a name may occur several times.

    :param values: values of one plain type, without missing ones.
    """
    found = pc.value_counts(values)
    return zip(category_names(_python(found.field("values"))), found.field("counts").to_pylist(), strict=True)


def named(values: pa.Array) -> pa.Array:
    """Return the name of each value as text; null where it is missing or NaN.

    :param values: a column in plain types.
    """
    names = np.full(len(values), None, dtype=object)
    for column in by_type(values):
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        encoded = column.drop_null().dictionary_encode()
        known = np.array([*_names_or_none(_python(encoded.dictionary)), None], dtype=object)
        names[rows] = known[encoded.indices.to_numpy()]
    return pa.array(names, pa.string())


def _names_or_none(values: list[Any]) -> list[str | None]:
    return [None if isinstance(value, float) and isnan(value) else _name(value) for value in values]


def _python(values: pa.Array) -> list[Any]:
    """Return Python values; a float of 32 bits as the shortest number that it stands for, such as 0.1."""
    if pa.types.is_float32(values.type):
        values = values.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)  # Python has no nanoseconds
    return list(values.to_pylist())
