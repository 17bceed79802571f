"""What is known of one column: how it is collected while data are read, and what a comparison asks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mcp.core.drift.profile import ColumnKind, ColumnProfile, ColumnRole
from airflow_mcp.work.drift import category_counts
from airflow_mcp.work.drift import distribution as distributions
from airflow_mcp.work.drift.category_counts import CategoryCounts
from airflow_mcp.work.drift.category_names import category_names, counted
from airflow_mcp.work.drift.distribution import Array, Curve, curve_of_sorted, merge_curves
from airflow_mcp.work.reading.arrow_values import as_floats, by_type, plain

LARGEST = 1e140
"""A number farther from 0 counts as infinite, because its square would be."""
_CHUNK_ROWS = 65_536
"""Numbers that are collected before they are sorted into a curve: 512 KiB per column."""
_FAN_IN = 8
"""Curves that are merged at a time. Merging in levels, like a tree, keeps the error small: it grows with the levels."""
_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


@dataclass
class Numbers:
    """Collects numbers as a few curves; the curves of one level were merged equally often."""

    is_exact: bool = False
    """Whether every value is kept."""
    nan: int = 0
    positive_infinite: int = 0
    negative_infinite: int = 0
    _waiting: list[Array] = field(default_factory=list)
    _levels: list[list[Curve]] = field(default_factory=list)

    def add(self, values: Array) -> None:
        """Add values, finite or not."""
        self._waiting.append(values)
        if not self.is_exact and sum(map(len, self._waiting)) >= _CHUNK_ROWS:
            self._digest()

    def curve(self) -> Curve | None:
        """Return the distribution of the finite values; None when there are none."""
        self._digest()
        curves = [curve for level in self._levels for curve in level]
        return merge_curves(curves) if curves else None

    def _digest(self) -> None:
        if not self._waiting:
            return
        values = np.sort(np.concatenate(self._waiting))
        self._waiting = []
        start, end = np.searchsorted(values, [-LARGEST, LARGEST])
        finite_or_more = int(np.searchsorted(values, np.inf, side="right"))
        self.negative_infinite += int(start)
        self.positive_infinite += finite_or_more - int(end)
        self.nan += len(values) - finite_or_more
        if end > start:
            limit = math.inf if self.is_exact else distributions.LOSSLESS
            self._keep(curve_of_sorted(values[start:end], lossless=limit))

    def _keep(self, curve: Curve, level: int = 0) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(curve)
        if len(self._levels[level]) == _FAN_IN:
            merged = merge_curves(self._levels[level])
            self._levels[level] = []
            self._keep(merged, level + 1)


@dataclass
class ColumnData:
    """What is known of a column: as far as it was read, or from a stored profile."""

    name: str
    role: ColumnRole = "feature"
    rows: int = 0
    missing: int = 0
    types: dict[str, None] = field(default_factory=dict)
    """Types of the batches that have a value, in the order in which they were read."""
    kinds: set[ColumnKind] = field(default_factory=set)
    curve: Curve | None = None
    counts: CategoryCounts | None = None
    nan: int = 0
    positive_infinite: int = 0
    negative_infinite: int = 0
    is_text: bool | None = None
    """Whether its values are free text rather than categories; None when the counts decide."""
    was_declared: bool = False
    """Whether the caller declared the column as categories, or its file, which stores a dictionary of its values."""
    problem: str = ""
    """Why its values could not be read."""
    guesses: set[str] = field(default_factory=set)
    """Families of types that a parser guessed from text."""
    families: set[str] = field(default_factory=set)
    """Families of types that files declare."""
    _order: list[int] = field(default_factory=list, repr=False, compare=False)
    """Knots of the curve by importance, computed once: a smaller document keeps the first of them."""

    @property
    def type(self) -> str:
        """Arrow types of the values, joined by ``|``."""
        return "|".join(self.types) or "null"

    @property
    def kind(self) -> ColumnKind:
        """Kind of the values; a column that mixes kinds is ``other``."""
        if not self.kinds:
            return "empty"
        if len(self.kinds) > 1:
            return "other"
        (kind,) = self.kinds
        return "text" if kind == "categorical" and self._holds_texts else kind

    @property
    def _holds_texts(self) -> bool:
        if self.is_text is not None or self.counts is None:
            return bool(self.is_text)
        return self.type != "bool" and not self.was_declared and self.counts.is_mostly_distinct

    @property
    def holds_declared_categories(self) -> bool:
        """Whether its categories are numbers or times, which someone declared to be categories."""
        return self.kind == "categorical" and not any("string" in name or name == "bool" for name in self.types)

    @property
    def is_partly_declared(self) -> bool:
        """Whether some files declare the column as categories, and others store numbers."""
        return self.was_declared and not self.kinds.isdisjoint(("numerical", "time"))

    @property
    def is_doubtful(self) -> bool:
        """Whether types were guessed that do not hold for all values, which must then be read as text."""
        return bool(self.guesses) and len(self.guesses | self.families) > 1

    @property
    def is_mixed(self) -> bool:
        """Whether it holds values of different kinds, such as numbers and text."""
        return len(self.kinds) > 1

    @property
    def is_integer(self) -> bool:
        """Whether pandas, and so Evidently, would read it as whole numbers."""
        return bool(self.types) and self.types.keys() <= _INTEGERS and not self.missing and not self.nan

    @property
    def is_single_precision(self) -> bool:
        """Whether all its numbers are 32-bit floats."""
        return self.types.keys() == {"float"}

    @property
    def infinite(self) -> int:
        """Rows with an infinite number."""
        return self.positive_infinite + self.negative_infinite

    @property
    def unusable_share(self) -> float:
        """Share of rows without a value that can be compared."""
        return (self.missing + self.nan + self.infinite) / self.rows if self.rows else 0.0

    @property
    def values(self) -> int:
        """Number of values that can be compared."""
        held = self.counts or self.curve
        return int(held.rows) if held else 0

    @property
    def distinct(self) -> float:
        """Number of different values; infinite when there are too many to have been counted."""
        known = self.curve or self.counts
        if known is None:
            return 0
        return math.inf if known.distinct is None else known.distinct

    def as_counts(self) -> CategoryCounts:
        """Return its values as categories, also when they are numbers."""
        if self.counts is not None:
            return self.counts
        curve = self.decimal_curve
        return as_categories(curve) if curve is not None else CategoryCounts()

    @property
    def decimal_curve(self) -> Curve | None:
        """Distribution whose values can be found among numbers of any width; None without a finite number."""
        if self.curve is None or not self.is_single_precision:
            return self.curve
        return distributions.shortest_decimals(self.curve)

    def document(self, knots: int, categories: int, rounding: float = distributions.ROUNDING) -> ColumnProfile:
        """Return the column as it is stored in a profile.

        :param knots: largest number of values to keep of its distribution.
        :param categories: largest number of categories to keep.
        :param rounding: precision of these values, in standard deviations.
        """
        kind = self.kind
        has_numbers = kind in ("numerical", "time") and self.curve is not None
        has_categories = kind in ("categorical", "text") and self.counts is not None
        return ColumnProfile(
            name=self.name,
            kind=kind,
            type=self.type,
            role=self.role,
            missing=self.missing,
            nan=self.nan,
            positive_infinite=self.positive_infinite,
            negative_infinite=self.negative_infinite,
            distribution=distributions.to_document(self._simplified(self.curve, knots, rounding))
            if has_numbers and self.curve is not None
            else None,
            categories=self.counts.kept(categories) if has_categories and self.counts is not None else None,
        )

    def _simplified(self, curve: Curve, knots: int, rounding: float) -> Curve:
        if len(self._order) < knots < len(curve.values):
            self._order = distributions.knots_by_importance(curve, knots)
        return distributions.simplify(curve, knots, self._order, rounding)


def of_profile(column: ColumnProfile, rows: int) -> ColumnData:
    """Return a column of a stored profile.

    :param column: the stored column.
    :param rows: rows of the profile.
    """
    kinds: dict[ColumnKind, set[ColumnKind]] = {
        "empty": set(),
        "text": {"categorical"},
        "other": {"other", "categorical"} if "|" in column.type else {"other"},
    }
    return ColumnData(
        column.name,
        column.role,
        rows,
        column.missing,
        {} if column.kind == "empty" else dict.fromkeys(column.type.split("|")),
        kinds.get(column.kind, {column.kind}),
        distributions.from_document(column.distribution) if column.distribution else None,
        category_counts.from_document(column.categories) if column.categories else None,
        column.nan,
        column.positive_infinite,
        column.negative_infinite,
        column.kind == "text",
    )


class ColumnPair(NamedTuple):
    """A column of the reference and of the current data; None where it does not exist."""

    reference: ColumnData | None
    current: ColumnData | None


class ColumnReader:
    """Collects a column batch by batch.

    :param name: name of the column.
    :param role: role of the column for the model.
    :param as_categories: whether its values are categories whatever their type.
    :param is_exact: whether to keep every value instead of a sketch.
    """

    def __init__(self, name: str, role: ColumnRole, *, as_categories: bool, is_exact: bool) -> None:
        self.data = ColumnData(name, role, was_declared=as_categories)
        self._numbers = Numbers(is_exact)
        self._counts = CategoryCounts(capacity=math.inf if is_exact else category_counts.CAPACITY)

    def absent(self, rows: int) -> None:
        """Count the rows of a part of the data that lacks the column as missing values."""
        self.data.rows += rows
        self.data.missing += rows

    def add(self, values: pa.Array, *, is_guess: bool = False) -> None:
        """Add values; the next batch may have another type. Values that cannot be read make the column unknown.

        :param values: the values of a batch.
        :param is_guess: whether a parser guessed their type from text.
        """
        rows, missing = self.data.rows, self.data.missing
        self.data.was_declared |= pa.types.is_dictionary(values.type)
        try:
            self._add(plain(values), is_guess=is_guess)
        except (pa.ArrowException, ArithmeticError, ValueError) as error:
            # One odd column must not refuse its neighbours.
            self.data.rows, self.data.missing = rows + len(values), missing + values.null_count
            self.data.types[str(values.type)] = None
            self.data.kinds.add("other")
            self.data.problem = f"its values cannot be read: {type(error).__name__}: {str(error)[:200]}"

    def _add(self, values: pa.Array, *, is_guess: bool) -> None:
        self.data.rows += len(values)
        self.data.missing += values.null_count
        for column in by_type(values):
            (self.data.guesses if is_guess else self.data.families).add(_family(column.type))
            self._add_known(column)

    def _add_known(self, values: pa.Array) -> None:
        data, kind = self.data, kind_of(values.type)
        data.types[_shown(values.type)] = None
        is_category = kind == "categorical" or (self.data.was_declared and kind != "other")
        data.kinds.add("categorical" if is_category else kind)
        if kind != "other" and values.null_count:
            values = values.drop_null()
        if is_category:
            self._counts.add(counted(self._finite(values) if pa.types.is_floating(values.type) else values))
        elif kind != "other":
            self._numbers.add(_as_numbers(values, kind))

    def _finite(self, values: pa.Array) -> pa.Array:
        """Count NaN and infinite numbers, and return the others, which can be categories."""
        self._numbers.nan += pc.sum(pc.is_nan(values)).as_py()
        self._numbers.positive_infinite += pc.sum(pc.equal(values, math.inf)).as_py()
        self._numbers.negative_infinite += pc.sum(pc.equal(values, -math.inf)).as_py()
        return values.filter(pc.is_finite(values))

    def finish(self) -> ColumnData:
        """Return the column when all batches were added."""
        data, numbers = self.data, self._numbers
        data.curve = numbers.curve()
        data.nan, data.positive_infinite = numbers.nan, numbers.positive_infinite
        data.negative_infinite = numbers.negative_infinite
        data.counts = self._counts if self._counts.rows else None
        return data


def kind_of(arrow_type: pa.DataType) -> ColumnKind:
    """Return the kind of an Arrow type; whether texts are categories is decided later, by their number."""
    types = pa.types
    if types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return "numerical"
    if types.is_boolean(arrow_type) or types.is_string(arrow_type) or types.is_large_string(arrow_type):
        return "categorical"
    return "time" if types.is_timestamp(arrow_type) or types.is_date(arrow_type) else "other"


def _family(arrow_type: pa.DataType) -> str:
    """Return what a parser takes a text for: guesses of one family hold for a column together."""
    if pa.types.is_timestamp(arrow_type) and arrow_type.tz is not None:
        return "time with a zone"
    return "flag" if pa.types.is_boolean(arrow_type) else kind_of(arrow_type)


def _shown(arrow_type: pa.DataType) -> str:
    return "string" if pa.types.is_large_string(arrow_type) else str(arrow_type)


def as_categories(curve: Curve) -> CategoryCounts:
    """Return the values of a curve as categories; meaningful for an exact curve."""
    counts = CategoryCounts(capacity=math.inf)
    counts.add(zip(category_names(curve.values.tolist()), map(int, curve.at.tolist()), strict=True))
    return counts


def _as_numbers(values: pa.Array, kind: ColumnKind) -> Array:
    if kind == "time":
        moment = pa.timestamp("us", getattr(values.type, "tz", None))
        return np.asarray(values.cast(moment, safe=False).cast(pa.int64()), dtype=float) / 1e6
    return np.asarray(as_floats(values), dtype=float)
