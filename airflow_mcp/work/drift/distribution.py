"""The distribution of a column of numbers as a curve that can be merged, thinned out and compared.

A curve is the cumulative count of rows over ascending values (knots): it jumps by the rows *at* a knot and rises
linearly by the rows *between* two knots. With all values as knots it is the empirical distribution. Thinning it out
makes an error; the error is measured each time and kept with the curve, so every number computed from a curve has a
known bound of its error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from airflow_mcp.core.drift.profile import Distribution

Array: TypeAlias = npt.NDArray[np.float64]
LOSSLESS = 1024
"""Different values up to which a curve stays exact while data are read: 24 KiB per column."""
GRID = 512
"""Knots of a curve with more values while data are read; some at both ends come on top."""
_REFINED = 4
"""How many times finer the first grid of a chunk is. The finer curve is then thinned out, and that error measured:
a chunk's own error can only be bounded, and the bound shrinks with the grid."""
FEW_DISTINCT = 20
"""Different numbers of the reference up to which columns are compared value by value instead of in bins."""
ROUNDING, COARSEST = 1e-4, 1e-2
"""Knots are stored rounded to this part of a standard deviation: shorter in JSON, and far below any threshold. The
coarser one is for profiles that would not fit otherwise."""
FREQUENT = 1e-3
"""A value with more than this share of the rows is stored unrounded, because it may be compared as a category."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared distances from the mean."""

    count: int
    mean: float
    squares: float

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Compute the moments of at least one finite value."""
        mean = float(values.mean())
        rest = values - mean
        return cls(len(values), mean, float(np.square(rest, out=rest).sum()))

    def __add__(self, other: Moments) -> Moments:
        """Merge with the formula of Chan, Golub and LeVeque (1979), which unlike a sum of squares loses no digits."""
        count, apart = self.count + other.count, other.mean - self.mean
        mean = self.mean + apart * other.count / count
        return Moments(count, mean, self.squares + other.squares + apart**2 * self.count * other.count / count)

    @property
    def deviation(self) -> float:
        """Standard deviation of the population."""
        return float(np.sqrt(self.squares / self.count))


@dataclass(frozen=True)
class Curve:
    """Cumulative distribution of at least one finite number."""

    values: Array
    """Knots, ascending; the first and last are minimum and maximum."""
    at: Array
    """Rows at each knot."""
    between: Array
    """Rows between each knot and the next; one element fewer than knots."""
    moments: Moments
    rank_error: float = 0.0
    """Largest error of the cumulative share at any value."""
    distance_error: float = 0.0
    """Upper bound of the Wasserstein distance to the true distribution, in units of the values."""
    distinct: int | None = None
    """Number of different values; None when there are too many to have been counted."""

    @property
    def rows(self) -> float:
        """Number of values."""
        return self.moments.count

    @property
    def is_exact(self) -> bool:
        """Whether every value and its count are kept."""
        return self.rank_error == 0 and not self.between.any()

    @property
    def knots_and_counts(self) -> tuple[Array, Array]:
        """Corners of the curve: every knot twice, with the rows below it and the rows up to it."""
        steps = np.empty(2 * len(self.values))
        steps[0] = 0.0
        steps[1::2] = self.at
        steps[2::2] = self.between
        return np.repeat(self.values, 2), np.cumsum(steps)

    def below(self, points: Array, *, inclusive: bool = False) -> Array:
        """Return the share of rows below each point.

        :param points: finite numbers.
        :param inclusive: whether rows at the point count.
        """
        corners, counts = self.knots_and_counts
        side = np.searchsorted(self.values, points, side="right" if inclusive else "left")
        # The corner just before the point is the one after the jump of the last knot passed.
        start = np.clip(2 * side - 1, 0, len(corners) - 1)
        end = np.clip(start + 1, 0, len(corners) - 1)
        width = corners[end] - corners[start]
        part = np.divide(points - corners[start], width, out=np.zeros(len(points)), where=width > 0)
        found: Array = counts[start] + np.clip(part, 0.0, 1.0) * (counts[end] - counts[start])
        found[side == 0] = 0.0
        shares: Array = found / counts[-1]
        return shares

    def sample(self, size: int) -> Array:
        """Return values at even ranks: for an exact curve, and a size equal to its rows, the values themselves."""
        corners, counts = self.knots_and_counts
        ranks = (np.arange(size) + 0.5) * (counts[-1] / size)
        values: Array = np.interp(ranks, counts, corners)
        return values


def curve_of_sorted(values: Array, *, lossless: float = LOSSLESS) -> Curve:
    """Return the curve of ascending finite values.

    :param values: shape (rows,), at least one.
    :param lossless: number of different values up to which the curve is exact; infinite keeps all.
    """
    rows, moments = len(values), Moments.of(values)
    differs = values[1:] != values[:-1]
    distinct = 1 + int(np.count_nonzero(differs))
    if distinct <= lossless:
        starts = np.concatenate([[0], np.flatnonzero(differs) + 1])
        counts = np.diff(starts, append=rows).astype(float)
        return Curve(values[starts], counts, np.zeros(distinct - 1), moments, distinct=distinct)
    knots = np.unique(values[_grid(rows, _REFINED * GRID)])
    low, high = np.searchsorted(values, knots, "left"), np.searchsorted(values, knots, "right")
    at, between = (high - low).astype(float), (low[1:] - high[:-1]).astype(float)
    # Between two knots the true curve may rise anywhere. In the worst case it jumps, and the straight line between the
    # knots then cuts a rectangle in half.
    rank_error, area = float(between.max()) / rows, float(between @ np.diff(knots)) / (2 * rows)
    return _thin(Curve(knots, at, between, moments, rank_error, area, distinct))


def _grid(rows: int, points: int = GRID) -> npt.NDArray[np.int64]:
    """Choose ranks: evenly, and denser towards both ends, where few rows cover a wide range of values."""
    steps = 2 ** np.arange(int(np.log2(max(rows // points, 1))) + 1)
    even = np.linspace(0, rows - 1, points).astype(np.int64)
    return np.unique(np.concatenate([even, steps - 1, rows - steps]))


def shortest_decimals(curve: Curve) -> Curve:
    """Return the curve of 32-bit floats as the shortest decimals that they stand for: 0.1, and not 0.10000000149."""
    values = np.array([float(str(value)) for value in curve.values.astype(np.float32)])
    return replace(curve, values=values) if (np.diff(values) > 0).all() else curve


def merge_curves(curves: Sequence[Curve]) -> Curve:
    """Return the curve of all rows of several curves.

    Its error is the mean error of the parts, weighted by rows, plus the error of thinning the sum out.

    :param curves: at least one.
    """
    if len(curves) == 1:
        return curves[0]
    knots = np.unique(np.concatenate([curve.values for curve in curves]))
    below, upto = np.zeros(len(knots)), np.zeros(len(knots))
    for curve in curves:
        below += curve.below(knots) * curve.rows
        upto += curve.below(knots, inclusive=True) * curve.rows
    moments = curves[0].moments
    for curve in curves[1:]:
        moments += curve.moments
    total = float(moments.count)
    exact = all(curve.is_exact for curve in curves)
    at, between = np.maximum(upto - below, 0.0), np.maximum(below[1:] - upto[:-1], 0.0)
    if exact:
        at, between = np.rint(at), np.zeros(len(at) - 1)
    merged = Curve(
        knots,
        at,
        between,
        moments,
        sum(curve.rank_error * curve.rows for curve in curves) / total,
        sum(curve.distance_error * curve.rows for curve in curves) / total,
        len(knots) if exact else None,
    )
    return merged if len(knots) <= LOSSLESS else _thin(merged)


def _thin(curve: Curve) -> Curve:
    """Keep knots at a grid of ranks."""
    _, counts = curve.knots_and_counts
    ranks = _grid(int(counts[-1]))
    kept = np.unique(np.r_[0, np.searchsorted(counts[1::2], ranks, "right"), len(curve.values) - 1])
    return with_knots(curve, kept[kept < len(curve.values)])


def with_knots(curve: Curve, kept: npt.NDArray[np.int64], values: Array | None = None) -> Curve:
    """Return the curve with some of its knots, and with the error that this makes added to its bounds.

    :param kept: ascending positions of knots; must include the first and the last.
    :param values: new, ascending values of the kept knots, for example rounded ones; None leaves them unchanged.
    """
    if len(kept) == len(curve.values) and values is None:
        return curve
    _, counts = curve.knots_and_counts
    below, upto = counts[0::2][kept], counts[1::2][kept]
    named = curve.values[kept] if values is None else values
    made = replace(curve, values=named, at=curve.at[kept], between=np.maximum(below[1:] - upto[:-1], 0.0))
    rank, distance = differences(curve, made)
    return replace(made, rank_error=curve.rank_error + rank, distance_error=curve.distance_error + distance)


def differences(first: Curve, second: Curve) -> tuple[float, float]:
    """Compare two curves.

    :return: the largest difference of their cumulative shares (the statistic of Kolmogorov and Smirnov), and the area
        between them (the first Wasserstein distance, in units of the values).
    """
    if first.is_exact and second.is_exact:
        return _differences_of_steps(first, second)
    points = np.unique(np.concatenate([first.values, second.values]))
    before = first.below(points) - second.below(points)
    after = first.below(points, inclusive=True) - second.below(points, inclusive=True)
    start, end, width = after[:-1], before[1:], np.diff(points)
    reach = np.abs(start) + np.abs(end)
    crossed = np.divide(start**2 + end**2, reach, out=np.zeros(len(width)), where=reach > 0)
    area = np.where(start * end >= 0, reach, crossed) / 2
    return float(max(np.abs(before).max(), np.abs(after).max())), float(area @ width)


def _differences_of_steps(first: Curve, second: Curve) -> tuple[float, float]:
    """Compare two exact curves: they are constant between their values, so one pass over both in order is enough."""
    values = np.concatenate([first.values, second.values])
    order = np.argsort(values, kind="stable")
    steps = np.concatenate([first.at / first.rows, -second.at / second.rows])[order]
    apart, width = np.abs(np.cumsum(steps))[:-1], np.diff(values[order])
    real = width > 0
    return float(apart[real].max(initial=0.0)), float(apart @ width)


# --- small enough to store --------------------------------------------------------------------------------------------


def simplify(curve: Curve, knots: int, order: Sequence[int] = (), rounding: float = ROUNDING) -> Curve:
    """Return the curve with its most important knots, rounded.

    :param knots: largest number of knots, at least 2.
    :param order: result of :func:`knots_by_importance` for this curve and at least as many knots; empty computes it.
    :param rounding: precision of the knots, in standard deviations.
    """
    if len(curve.values) <= knots:
        return curve
    positions = np.sort((order or knots_by_importance(curve, knots))[:knots])
    return with_knots(curve, positions, _rounded(curve, positions, rounding))


def knots_by_importance(curve: Curve, knots: int) -> list[int]:
    """Return positions of knots by importance; the first n of them are the result for n knots.

    Starting from the two ends, the segment with the largest error is split at its worst knot, again and again (Ramer,
    1972; Douglas and Peucker, 1973). The error is the largest error in rank plus the area in standard deviations.

    :param knots: number of positions, at least 2.
    """
    corners, counts = curve.knots_and_counts
    shares, spread = counts / counts[-1], curve.moments.deviation or 1.0
    order = [0, len(curve.values) - 1]
    stretches: list[tuple[float, int, int, int]] = []

    def look_at(start: int, end: int) -> None:
        if end - start > 1:
            error, position = _worst(corners, shares, start, end, spread)
            heappush(stretches, (-error, start, end, position))

    look_at(0, len(curve.values) - 1)
    while stretches and len(order) < knots:
        _, start, end, position = heappop(stretches)
        order.append(position)
        look_at(start, position)
        look_at(position, end)
    return order


def _worst(corners: Array, shares: Array, start: int, end: int, spread: float) -> tuple[float, int]:
    """Return the error of a straight line between two knots, and the knot between them at which it is largest."""
    inner = slice(2 * start + 1, 2 * end + 1)
    x, y = corners[inner], shares[inner]
    off = np.abs(y - (y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])))
    area = float((off[1:] + off[:-1]) @ np.diff(x)) / 2 / spread
    worst = int(np.argmax(off[1:-1])) + 1
    return float(off[worst]) + area, start + (worst + 1) // 2


def _rounded(curve: Curve, positions: npt.NDArray[np.int64], rounding: float) -> Array:
    """Round the kept knots to the precision that their column needs, and finer where knots are close to each other.

    Ends and frequent values stay unrounded.
    """
    values = curve.values[positions]
    step = curve.moments.deviation * rounding
    if not 1e-290 < step < 1e290:
        return values
    gaps = np.diff(values)
    finest = np.minimum(step, np.minimum(np.append(gaps, np.inf), np.append(np.inf, gaps)) / 2)
    stays = curve.at[positions] > FREQUENT * curve.rows
    stays[[0, -1]] = True
    rounded = np.array(
        [
            value if kept or size <= 0 else round(value, math.ceil(-math.log10(size)))
            for value, size, kept in zip(values.tolist(), finest.tolist(), stays.tolist(), strict=True)
        ]
    )
    return rounded if (np.diff(rounded) > 0).all() else values


def to_document(curve: Curve) -> Distribution:
    """Return a curve as it is stored; counts become whole numbers again, and the error of that is added."""
    _, counts = curve.knots_and_counts
    whole = np.diff(np.rint(counts), prepend=0.0).astype(np.int64)
    between = whole[2::2]
    added = 0.5 / curve.rows if np.abs(counts - np.rint(counts)).max() > 1e-6 else 0.0
    return Distribution(
        values=tuple(curve.values.tolist()),
        at=tuple(whole[1::2].tolist()),
        between=tuple(between.tolist()) if between.any() else (),
        mean=curve.moments.mean,
        variance=curve.moments.squares / curve.moments.count,
        rank_error=_upwards(min(curve.rank_error + added, 1.0)),
        distance_error=_upwards(curve.distance_error + added * float(np.ptp(curve.values))),
        distinct=curve.distinct if curve.distinct != len(curve.values) else None,
    )


def _upwards(error: float) -> float:
    """Round a bound to three digits without making it smaller."""
    return float(f"{error * 1.005:.3g}") if error else 0.0


def from_document(document: Distribution) -> Curve:
    """Return the curve of a stored column."""
    values = np.array(document.values)
    between = np.array(document.between, dtype=float) if document.between else np.zeros(len(values) - 1)
    rows = document.rows
    return Curve(
        values,
        np.array(document.at, dtype=float),
        between,
        Moments(rows, document.mean, document.variance * rows),
        document.rank_error,
        document.distance_error,
        len(values) if document.is_exact else document.distinct,
    )
