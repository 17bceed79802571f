"""Rows unlike the training data: values outside of the ranges and categories of its stored profile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_mcp.core.drift.profile import ColumnProfile, DataProfile


class _Range(NamedTuple):
    low: float
    high: float

    def has(self, value: Any) -> bool:
        return not isinstance(value, int | float) or math.isnan(value) or self.low <= value <= self.high


class _Known(NamedTuple):
    categories: frozenset[str]

    def has(self, value: Any) -> bool:
        return not isinstance(value, str) or value in self.categories


class OutlierRanges:
    """What the training data contained, column by column.

    Missing values do not count: the drift check counts those.

    :param profile: profile of the training data.
    """

    def __init__(self, profile: DataProfile) -> None:
        self._columns: Mapping[str, _Range | _Known] = {
            column.name: seen for column in profile.columns if (seen := _seen(column)) is not None
        }

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that can be judged."""
        return frozenset(self._columns)

    def count(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
        """Return how many rows have at least one value that the training data does not cover.

        :param names: names of the columns, in the order of the values.
        :param rows: the rows.
        """
        return sum(self.outside(names, rows))

    def outside(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[bool]:
        """Return for each row whether it has at least one value that the training data does not cover.

        :param names: names of the columns, in the order of the values.
        :param rows: the rows.
        """
        judged = [(index, self._columns[name]) for index, name in enumerate(names) if name in self._columns]
        return [any(row[index] is not None and not seen.has(row[index]) for index, seen in judged) for row in rows]


def _seen(column: ColumnProfile) -> _Range | _Known | None:
    if column.kind == "numerical" and column.distribution is not None:
        return _Range(column.distribution.values[0], column.distribution.values[-1])
    categories = column.categories
    if column.kind == "categorical" and categories is not None and categories.is_exact:
        return _Known(frozenset(categories.counts))
    return None
