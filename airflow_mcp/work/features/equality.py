"""Whether a value of the online store and one of the offline store are the same value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mcp.work.measures.classes import plain_label

if TYPE_CHECKING:
    import pandas as pd


def is_missing(value: Any) -> bool:
    """Return whether there is no value: None, NaN, or what pandas has for a missing time or number."""
    if value is None or isinstance(value, float):
        return value is None or math.isnan(value)
    if isinstance(value, str | int | Sequence | Mapping):
        return False
    import pandas as pd  # noqa: PLC0415

    return value is pd.NaT or value is pd.NA


def equal_values(online: Sequence[Any], offline: pd.Series[Any], tolerance: float) -> list[bool]:
    """Return for each online value whether the offline value of the same row is the same; no online value is missing.

    :param online: as Feast returns them: their Python types are those of the feature.
    :param offline: as pandas holds them; whole numbers are floats where a row has none.
    :param tolerance: largest relative difference of two equal floats.
    """
    import numpy as np  # noqa: PLC0415

    kinds, dtype = set(map(type, online)), offline.dtype
    # pandas' own types of numbers have missing values, which NumPy would turn into rounded floats.
    if not kinds <= {int, float} or not isinstance(dtype, np.dtype) or dtype.kind not in "iuf":
        return [are_equal(one, other, tolerance) for one, other in zip(online, offline.tolist(), strict=True)]
    ours, theirs = np.asarray(online), offline.to_numpy()
    same = ours == theirs
    if float in kinds:
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(ours - theirs) <= tolerance * np.maximum(np.abs(ours), np.abs(theirs))
        same |= near & np.isfinite(ours) & np.isfinite(theirs)
    return list(same.tolist())


def are_equal(online: Any, offline: Any, tolerance: float) -> bool:
    """Return whether two values are the same; arrays are compared element by element.

    :param online: a value of the online store, which keeps times in whole seconds.
    :param offline: a value of the offline store.
    :param tolerance: largest relative difference of two equal floats.
    """
    if is_missing(online) or is_missing(offline):
        return is_missing(online) and is_missing(offline)
    if isinstance(online, datetime) and isinstance(offline, datetime):
        return abs((_in_utc(online) - _in_utc(offline)).total_seconds()) < 1
    if isinstance(online, list):
        elements = _elements(offline)
        return len(online) == len(elements) and all(
            are_equal(one, other, tolerance) for one, other in zip(online, elements, strict=True)
        )
    one, other = plain_label(online), plain_label(offline)
    if isinstance(online, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=tolerance)
    return bool(one == (set(other) if isinstance(online, set) else other))


def _elements(offline: Any) -> list[Any]:
    import pandas as pd  # noqa: PLC0415

    # Series: an array of numpy would list times as whole numbers.
    return list(pd.Series(offline).tolist())


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)  # as Feast reads times without a zone
