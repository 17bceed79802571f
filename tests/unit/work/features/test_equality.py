"""Whether values of the two stores are the same, for every type that Feast has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.work.features.equality import are_equal, equal_values, is_missing

TOLERANCE = 1e-6
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
PART = pd.Timestamp("2026-11-29T12:00:00.9")


@pytest.mark.parametrize(
    ("online", "offline", "equal"),
    [
        (0.10000000149011612, 0.1, True),
        (123456792.0, 123456789.0, True),  # Float32 online, doubles offline: both whole
        (7.0, 7, True),
        (7.0, 7.1, False),
        (0.0, 1e-9, False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1.0, False),
        (7, 7.0, True),
        (1_000_000_000, 1_000_000_001, False),  # whole numbers are exact
        (2**53, 2**53 + 1, False),
        (True, np.True_, True),
        (True, False, False),
        ("a", "a", True),
        ("1", 1, False),
        (b"x", b"x", True),
        (NOON, PART.tz_localize("UTC"), True),  # Feast keeps whole seconds online
        (NOON, PART.tz_localize("UTC") + pd.Timedelta(seconds=1), False),
        (NOON, PART, True),  # and reads times without a zone as UTC
        (NOON, PART.tz_localize("UTC").tz_convert("Asia/Kathmandu"), True),
        ([0.10000000149011612, 2.0], np.array([0.1, 2.0]), True),
        ([0.1, 2.0], np.array([0.1]), False),
        ([0.1, 2.0], np.array([0.1, 3.0]), False),
        ([], np.array([]), True),
        (["a", "b"], np.array(["a", "b"], dtype=object), True),
        (["a", None], np.array(["a", None], dtype=object), True),
        ([NOON], np.array(["2026-11-29T12:00:00.9"], dtype="datetime64[us]"), True),
        ([NOON], np.array(["2026-11-29T12:00:01.9"], dtype="datetime64[ns]"), False),
        ({"a"}, np.array(["a"], dtype=object), True),
        ({"a": 1}, {"a": 1}, True),
        (None, float("nan"), True),
        (None, pd.NaT, True),
        (1, None, False),
        (1, pd.NA, False),
        (NOON, pd.NaT, False),
    ],
)
def test_values_of_every_type(online: Any, offline: Any, equal: bool) -> None:
    assert are_equal(online, offline, TOLERANCE) is equal


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), pd.NaT, pd.NA])
def test_what_stores_have_for_no_value_is_missing(missing: Any) -> None:
    assert is_missing(missing)


@pytest.mark.parametrize("value", [0, "", b"", [], {}, False, np.array([]), NOON])
def test_empty_values_are_values(value: Any) -> None:
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("online", "offline"),
    [
        ([1.0, 2.5, 1e9, float("inf"), 3.0], pd.Series([1.0, 2.5000001, 1e9 + 1, float("inf"), None])),
        ([1, 2, 2**53], pd.Series([1, 3, 2**53 + 1])),
        ([1, 2, 3], pd.Series([1.0, None, 3.0])),
        ([1, 2, 2**53], pd.Series([1, None, 2**53 + 1], dtype="Int64")),
        ([True, False], pd.Series([True, None])),
        (["a", "b"], pd.Series(["a", None])),
        ([1.0, 2], pd.Series([1, 2])),
        ([], pd.Series([], dtype=float)),
    ],
)
def test_a_batch_is_compared_as_its_values_are(online: list[Any], offline: pd.Series[Any]) -> None:
    alone = [are_equal(one, other, TOLERANCE) for one, other in zip(online, offline.tolist(), strict=True)]
    assert equal_values(online, offline, TOLERANCE) == alone
