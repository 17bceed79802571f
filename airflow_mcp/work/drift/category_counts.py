"""Counts of categories in bounded memory, mergeable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from airflow_mcp.core.drift.profile import Categories

CAPACITY = 4096
"""Categories counted while data are read. Up to this many, all counts are exact; beyond, the rare ones are dropped."""
MAX_NAME = 64
"""Characters of a name. A longer name is replaced by its beginning and a hash."""
MOSTLY_DISTINCT = 0.5
"""Texts are not categories when more than this share of them are different (as in Evidently 0.7.23)."""


@dataclass
class CategoryCounts:
    """Counts of categories.

    Beyond the capacity rare categories are dropped by the rule of Misra and Gries (1982), in the mergeable form of
    Agarwal et al. (2012): the true number of rows of a category is at least its count, and at most its count plus
    :attr:`error`.
    """

    capacity: float = CAPACITY
    """Largest number of categories to keep; infinite keeps all."""
    counts: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    error: int = 0
    distinct: int | None = 0
    """Number of categories; None when some were dropped."""

    def add(self, counts: Mapping[str, int] | Iterable[tuple[str, int]]) -> None:
        """Add rows.

        :param counts: rows of each category; a category may occur several times.
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
        """Whether most values are different, so that they are free text rather than categories."""
        if self.distinct is not None:
            return self.distinct > MOSTLY_DISTINCT * self.rows
        return sum(self.counts.values()) + self.error < MOSTLY_DISTINCT * self.rows

    def kept(self, limit: int) -> Categories:
        """Return the most frequent categories as they are stored in a profile.

        :param limit: largest number of categories.
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
        """Subtract the count of the most frequent category that does not fit from all; drop what reaches 0."""
        values = np.fromiter(self.counts.values(), dtype=np.int64, count=len(self.counts))
        least = int(np.partition(values, len(values) - capacity - 1)[len(values) - capacity - 1])
        self.counts = {name: count - least for name, count in self.counts.items() if count > least}
        self.error += least
        self.distinct = None


def from_document(categories: Categories) -> CategoryCounts:
    """Return the counts of a stored column."""
    return CategoryCounts(
        counts=dict(categories.counts), rows=categories.rows, error=categories.error, distinct=categories.distinct
    )


def _shortened(name: str) -> str:
    return f"{name[: MAX_NAME - 20]}…{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
