"""Counts of categories in bounded memory, which can be merged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from airflow_mcp.core.drift.profile import Categories

CAPACITY = 4096
"""Categories that are counted while data are read; with no more, all counts are exact."""
MAX_NAME = 64
"""A longer category is named by its beginning and a hash."""
MOSTLY_DISTINCT = 0.5
"""Text with more different values than this share of its values is no category (as in Evidently 0.7.23)."""


@dataclass
class CategoryCounts:
    """Counts of categories. Beyond the capacity the rare ones are dropped, by the rule of Misra and Gries (1982) as
    Agarwal et al. (2012) merge it: no category has more than :attr:`error` rows above its count, none fewer."""

    capacity: float = CAPACITY
    """Infinite keeps all."""
    counts: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    error: int = 0
    distinct: int | None = 0
    """Categories; None when some were dropped."""

    def add(self, counts: Mapping[str, int] | Iterable[tuple[str, int]]) -> None:
        """Add rows.

        :param counts: rows of each category; one may come several times.
        """
        held, added = self.counts, 0
        for name, count in counts.items() if isinstance(counts, Mapping) else counts:
            key = name if len(name) <= MAX_NAME else _shortened(name)
            held[key] = held.get(key, 0) + count
            added += count
        self.rows += added
        if self.distinct is not None:
            self.distinct = len(held)
        if len(held) > self.capacity:
            self._drop(int(self.capacity))

    def merge(self, other: CategoryCounts) -> None:
        """Add the counts of another part of the data."""
        complete = self.is_exact and other.is_exact
        rows = self.rows + other.rows
        self.distinct, self.error = self.distinct if complete else None, self.error + other.error
        self.add(other.counts)
        self.rows = rows

    @property
    def other(self) -> int:
        """Rows of categories that are not kept."""
        return self.rows - sum(self.counts.values())

    @property
    def is_exact(self) -> bool:
        """Whether every category and its count are kept."""
        return self.distinct is not None and not self.error and not self.other

    @property
    def is_mostly_distinct(self) -> bool:
        """Whether these are texts rather than categories."""
        if self.distinct is not None:
            return self.distinct > MOSTLY_DISTINCT * self.rows
        return sum(self.counts.values()) + self.error < MOSTLY_DISTINCT * self.rows

    def kept(self, limit: int) -> Categories:
        """Give the most frequent categories as a document.

        :param limit: how many at most.
        """
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        if len(ordered) > limit and self.is_mostly_distinct:
            ordered = [item for item in ordered if item[1] > 1]
        shown = dict(ordered[:limit])
        dropped = max((count for name, count in self.counts.items() if name not in shown), default=0)
        return Categories(
            counts=shown,
            other=self.rows - sum(shown.values()),
            error=self.error + dropped,
            distinct=self.distinct,
        )

    def _drop(self, capacity: int) -> None:
        values = np.fromiter(self.counts.values(), dtype=np.int64, count=len(self.counts))
        least = int(np.partition(values, len(values) - capacity - 1)[len(values) - capacity - 1])
        self.counts = {name: count - least for name, count in self.counts.items() if count > least}
        self.error += least
        self.distinct = None


def from_document(categories: Categories) -> CategoryCounts:
    """Read counts."""
    return CategoryCounts(
        counts=dict(categories.counts), rows=categories.rows, error=categories.error, distinct=categories.distinct
    )


def _shortened(name: str) -> str:
    return f"{name[: MAX_NAME - 20]}…{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
