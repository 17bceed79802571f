"""Drift statistics: scores of two distributions, each with a bound of its error.

On exact data the scores equal those of Evidently 0.7.23 (``evidently.legacy.calculations.stattests``). To add a method,
compute it in :func:`compare_numbers` or :func:`compare_counts`, and describe it in ``core.drift.policy.METHODS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from airflow_mcp.core.drift.result import OTHER
from airflow_mcp.work.drift.category_counts import CategoryCounts
from airflow_mcp.work.drift.column_data import as_categories
from airflow_mcp.work.drift.distribution import COARSEST, FEW_DISTINCT, Array, Curve, differences

LEAST_NORM = 0.001
"""Smallest standard deviation by which a distance is divided (as in Evidently)."""
EXACT_KS_ROWS = 10_000
"""Rows of the larger side up to which the p-value of KS is exact; above, it is the asymptotic one (as in SciPy)."""
_ZERO_SHARE, _SMALL_PART = 0.0001, 10**6
"""Evidently's replacement for empty bins; see :func:`_without_zeros`."""
_TVD_DRAWS, _TVD_SEED = 1000, 0
"""Fixed, so that a repeated check gives the same p-value."""


class Score(NamedTuple):
    """The result of a method."""

    value: float
    error: float | None = 0.0
    """Upper bound of the distance to the exact score; None when no useful bound is known."""


class Limits(NamedTuple):
    """What is certain of the shares of bins of one side, although its curve has an error."""

    least: Array
    """Lower bound of each share."""
    most: Array
    """Upper bound of each share; 0 for a bin that is surely empty."""
    rows: float
    """Number of values."""


class Bins(NamedTuple):
    """Both distributions in the same bins."""

    reference: Array
    """Shares of all values, shape (bins,)."""
    current: Array
    reference_error: float
    """Upper bound of the error of each share; infinite when it is not known."""
    current_error: float
    limits: tuple[Limits, Limits] | None = None
    """What is certain of both sides, for bins of numbers."""

    @property
    def are_exact(self) -> bool:
        """Whether neither side has an error."""
        return not (self.reference_error or self.current_error)


class NumberPair(NamedTuple):
    """A column of numbers in both datasets."""

    reference: Curve
    current: Curve
    is_integer: bool = False
    """Whether both hold whole numbers and no missing ones: NumPy then makes no bin narrower than 1."""
    is_single_precision: bool = False
    """Whether both hold 32-bit floats: the edges of bins are then 32-bit floats too."""


def compare_numbers(method: str, pair: NumberPair) -> Score:
    """Compare numbers.

    :param method: wasserstein, ks, jensenshannon, psi or kl_div; with few different values also chisquare, z or TVD.
    :param pair: the numbers of both sides.
    :return: NaN when the method is not defined on them.
    """
    if method == "wasserstein":
        return _wasserstein(pair.reference, pair.current)
    if method == "ks":
        return _kolmogorov_smirnov(pair.reference, pair.current)
    if _lost_values(pair.reference) and method not in ("chisquare", "z", "TVD"):
        return Score(_binned(method, bins_of_numbers(pair, sturges_edges(pair))).value, None)
    if method in ("chisquare", "z", "TVD") or is_compared_by_value(pair.reference):
        if not (pair.reference.is_exact and pair.current.is_exact):
            return _compared_by_value(method, pair)
        return compare_counts(method, as_categories(pair.reference), as_categories(pair.current))
    return _binned(method, bins_of_numbers(pair, sturges_edges(pair)))


def compare_counts(method: str, reference: CategoryCounts, current: CategoryCounts) -> Score:
    """Compare categories.

    :param method: jensenshannon, psi, kl_div, chisquare, z or TVD.
    :return: NaN when the method is not defined on them.
    """
    rows = aligned(reference, current)
    first, second = (np.array(side, dtype=float) for side in zip(*rows.values(), strict=True))
    is_exact = reference.is_exact and current.is_exact
    if not is_exact and list(rows) == [OTHER]:
        return Score(math.nan, None)  # no category is known on both sides
    if method in _TESTS_OF_COUNTS:
        return Score(_TESTS_OF_COUNTS[method](first, second), 0.0 if is_exact else None)
    errors = (0.0, 0.0) if is_exact else (math.inf, math.inf)
    bins = Bins(first / first.sum(), second / second.sum(), *errors)
    if method == "jensenshannon" and not is_exact:
        value = jensen_shannon(bins.reference, bins.current)
        return Score(value, _error_of_counts(value, bins, list(rows), (reference, current)))
    return _binned(method, bins)


def is_compared_by_value(reference: Curve) -> bool:
    """Return whether a column of numbers has so few different values that each is a bin of its own."""
    return reference.is_exact and len(reference.values) <= FEW_DISTINCT


def _lost_values(reference: Curve) -> bool:
    """Return whether the data would be compared value by value, but the profile does not have all these values."""
    return not reference.is_exact and reference.distinct is not None and reference.distinct <= FEW_DISTINCT


def aligned(reference: CategoryCounts, current: CategoryCounts) -> dict[str, tuple[int, int]]:
    """Return the rows of each category on both sides.

    A category whose count one side does not know is counted in ``(other)`` on both sides.
    """
    names = [
        name
        for name in sorted(reference.counts | current.counts)  # permutations must not depend on the order of counting
        if (name in reference.counts or reference.is_exact) and (name in current.counts or current.is_exact)
    ]
    rows = {name: (reference.counts.get(name, 0), current.counts.get(name, 0)) for name in names}
    rest = reference.rows - sum(row[0] for row in rows.values()), current.rows - sum(row[1] for row in rows.values())
    return rows | {OTHER: rest} if any(rest) else rows


# --- numbers ----------------------------------------------------------------------------------------------------------


def _wasserstein(reference: Curve, current: Curve) -> Score:
    """Return the first Wasserstein distance in standard deviations of the reference.

    The errors of both sides add up, by the triangle inequality.
    """
    norm = max(reference.moments.deviation, LEAST_NORM)
    _, area = differences(reference, current)
    return Score(area / norm, (reference.distance_error + current.distance_error) / norm)


def _kolmogorov_smirnov(reference: Curve, current: Curve) -> Score:
    """Return the p-value of the two-sample, two-sided test of Kolmogorov and Smirnov."""
    from scipy import stats  # noqa: PLC0415  (slow to import, and few columns need it)

    rows = int(reference.rows), int(current.rows)
    statistic, _ = differences(reference, current)
    error = reference.rank_error + current.rank_error
    effective = np.round(rows[0] * rows[1] / (rows[0] + rows[1]))
    limit, most, least = stats.kstwo.sf(np.clip(statistic + np.array([0, -error, error]), 0, 1), effective).tolist()
    if max(rows) > EXACT_KS_ROWS:
        return Score(limit, max(most - limit, limit - least))
    value = float(stats.ks_2samp(reference.sample(rows[0]), current.sample(rows[1])).pvalue)
    # The bounds are those of the asymptotic p-value, widened by its distance to the exact one.
    return Score(value, max(most - value, value - least) + 2 * abs(limit - value) if error else 0.0)


def sturges_edges(pair: NumberPair) -> Array:
    """Return the edges of Sturges' bins (1926) over both sides together, as ``numpy.histogram_bin_edges`` does."""
    number = np.float32 if pair.is_single_precision else np.float64
    first = number(min(pair.reference.values[0], pair.current.values[0]))
    last = number(max(pair.reference.values[-1], pair.current.values[-1]))
    if first == last:
        first, last = first - number(0.5), last + number(0.5)
    reach = last - first
    width = reach / (np.log2(pair.reference.rows + pair.current.rows) + 1.0)
    if pair.is_integer and width < 1:
        width = np.float64(1.0)
    count = int(np.ceil(reach / width))
    return np.linspace(first, last, count + 1, dtype=number).astype(np.float64)


def bins_of_numbers(pair: NumberPair, edges: Array) -> Bins:
    """Return the shares between edges; a bin includes its lower edge, and the last one its upper edge too."""
    shares = []
    for curve in (pair.reference, pair.current):
        heights = curve.below(edges)
        heights[-1] = curve.below(edges[-1:], inclusive=True)[0]
        shares.append(np.diff(heights))
    limits = _limits(pair.reference, edges, shares[0]), _limits(pair.current, edges, shares[1])
    return Bins(shares[0], shares[1], 2 * pair.reference.rank_error, 2 * pair.current.rank_error, limits)


def _limits(curve: Curve, edges: Array, shares: Array) -> Limits:
    if not curve.rank_error:
        return Limits(shares, shares, curve.rows)

    def bin_of(points: Array) -> npt.NDArray[np.int64]:
        return np.clip(np.searchsorted(edges, points, side="right") - 1, 0, len(shares) - 1)

    # A knot is a value of the data, rounded at most so far, and the bin that has it is not empty. Ends are not rounded.
    inner, tolerance = curve.values[1:-1], COARSEST * curve.moments.deviation
    lowest, highest = bin_of(inner - tolerance), bin_of(inner + tolerance)
    one_row = np.zeros(len(shares))
    one_row[lowest[(lowest == highest) & (curve.at[1:-1] >= 1)]] = 1 / curve.rows
    one_row[bin_of(curve.values[[0, -1]])] = 1 / curve.rows
    is_empty = (edges[1:] <= curve.values[0]) | (edges[:-1] > curve.values[-1])
    is_empty[-1] = edges[-2] > curve.values[-1]  # the last bin includes its upper edge
    error = 2 * curve.rank_error
    least, most = np.maximum(shares - error, one_row), shares + error
    return Limits(np.where(is_empty, 0.0, least), np.where(is_empty, 0.0, most), curve.rows)


def _compared_by_value(method: str, pair: NumberPair) -> Score:
    """Compare at the few values of the reference; all other values of the current side are one more bin."""
    values = pair.reference.values
    found = pair.current.below(values, inclusive=True) - pair.current.below(values)
    reference = np.append(pair.reference.at / pair.reference.rows, 0.0)
    current = np.append(found, max(0.0, 1.0 - float(found.sum())))
    if method in _TESTS_OF_COUNTS:
        counts = np.rint(reference * pair.reference.rows), np.rint(current * pair.current.rows)
        return Score(_TESTS_OF_COUNTS[method](*counts), None)
    return _binned(method, Bins(reference, current, 0.0, math.inf))


# --- shares -----------------------------------------------------------------------------------------------------------


def _binned(method: str, bins: Bins) -> Score:
    if method == "jensenshannon":
        return Score(jensen_shannon(bins.reference, bins.current), _jensen_shannon_error(bins))
    if method not in _DIVERGENCES:
        return Score(math.nan, None)
    value = _DIVERGENCES[method](_without_zeros(bins.reference), _without_zeros(bins.current))
    return Score(value, 0.0 if bins.are_exact else _psi_error(bins, value) if method == "psi" else None)


def jensen_shannon(first: Array, second: Array) -> float:
    """Return the Jensen-Shannon distance with natural logarithms (Lin, 1991; Endres and Schindelin, 2003)."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()) / 2
    return math.sqrt(max(float(divergence), 0.0))


def _jensen_shannon_error(bins: Bins) -> float | None:
    """Bound the error: the distance is a metric, so it is off by at most the distances of both sides to their truth."""
    if not (math.isfinite(bins.reference_error) and math.isfinite(bins.current_error)):
        return None
    return _off(bins.reference, bins.reference_error) + _off(bins.current, bins.current_error)


def _off(shares: Array, error: Array | float) -> float:
    """Bound the Jensen-Shannon distance of shares to the true ones.

    Its square is at most ``ln 2 / 2`` times the triangular discrimination (Topsøe, 2000).

    :param error: upper bound of the error of each share.
    """
    errors = np.broadcast_to(np.asarray(error, dtype=float), shares.shape)
    least = 2 * shares - errors
    triangles = np.where(least > errors, errors**2 / np.maximum(least, 1e-300), errors)
    return math.sqrt(math.log(2) / 2 * float(triangles.sum()))


def _error_of_counts(value: float, bins: Bins, names: list[str], sides: tuple[CategoryCounts, CategoryCounts]) -> float:
    """Bound the error when rare categories are counted together: in the worst case both sides share none of them."""
    off, together = 0.0, 0.0
    for shares, side in zip((bins.reference, bins.current), sides, strict=True):
        errors = np.full(len(shares), side.error / side.rows)
        if names[-1] == OTHER:
            errors[-1] = min(float(shares[-1]), float(errors[:-1].sum()))
            together += float(shares[-1]) / 2
        off += _off(shares, errors)
    return max(math.sqrt((value + off) ** 2 + math.log(2) * together) - value, off)


def _psi(reference: Array, current: Array) -> float:
    """Return the population stability index."""
    return float(((reference - current) * np.log(reference / current)).sum())


def _kullback_leibler(reference: Array, current: Array) -> float:
    """Return the Kullback-Leibler divergence of the reference from the current shares, KL(reference || current)."""
    return float(special.rel_entr(reference / reference.sum(), current / current.sum()).sum())


_DIVERGENCES: Mapping[str, Callable[[Array, Array], float]] = {"psi": _psi, "kl_div": _kullback_leibler}


def _psi_error(bins: Bins, value: float) -> float | None:
    """Bound the error bin by bin: a term grows as the two shares move apart, and is 0 where they may be equal."""
    if bins.limits is None:
        return None
    (low, high), (other_low, other_high) = map(_limits_without_zeros, bins.limits)
    most = np.maximum((high - other_low) * np.log(high / other_low), (low - other_high) * np.log(low / other_high))
    gap = np.maximum(low - other_high, other_low - high) > 0
    nearest = np.minimum((low - other_high) * np.log(low / other_high), (other_low - high) * np.log(other_low / high))
    least = np.where(gap, nearest, 0.0)
    return float(max(most.sum() - value, value - least.sum(), 0.0))


def _limits_without_zeros(limits: Limits) -> tuple[Array, Array]:
    """Return between which numbers the shares are after :func:`_without_zeros`, which depends on the least of them."""
    least, most, rows = limits
    some = least > 0
    smallest = min(float(least[some].min(initial=1.0)), 1 / rows if (~some & (most > 0)).any() else 1.0)
    largest = float(most[some].min(initial=1.0))
    zeros = sorted(share / _SMALL_PART if share <= _ZERO_SHARE else _ZERO_SHARE for share in (smallest, largest))
    return np.where(some, least, zeros[0]), np.where(some, most, np.maximum(most, zeros[1]))


def _without_zeros(shares: Array) -> Array:
    """Replace empty shares by a small one, by Evidently's rule, so that logarithms are finite."""
    least = float(shares[shares > 0].min())
    return np.where(shares > 0, shares, least / _SMALL_PART if least <= _ZERO_SHARE else _ZERO_SHARE)


# --- counts -----------------------------------------------------------------------------------------------------------


def _chi_square(reference: Array, current: Array) -> float:
    """Return the p-value of Pearson's test of the current counts against those expected from the reference."""
    if len(reference) == 1:
        return 1.0
    expected = reference * (current.sum() / reference.sum())
    if not expected.all():
        return 0.0
    return float(special.chdtrc(len(reference) - 1, float(((current - expected) ** 2 / expected).sum())))


def _z(reference: Array, current: Array) -> float:
    """Return the two-sided p-value of the z-test of two proportions; NaN for more than two categories."""
    if len(reference) > 2:
        return math.nan
    if len(reference) == 1:
        return 1.0
    rows = reference.sum(), current.sum()
    shares = reference[1] / rows[0], current[1] / rows[1]
    pooled = (reference[1] + current[1]) / (rows[0] + rows[1])
    z = (shares[0] - shares[1]) / math.sqrt(pooled * (1 - pooled) * (1 / rows[0] + 1 / rows[1]))
    return float(2 * (1 - special.ndtr(abs(z))))


def _total_variation(reference: Array, current: Array) -> float:
    """Return the p-value of the total variation distance, by 1000 permutations drawn with a fixed seed."""
    rows = reference.sum(), current.sum()
    observed = 0.5 * float(np.abs(reference / rows[0] - current / rows[1]).sum())
    both = (reference + current).astype(np.int64)
    drawn = np.random.default_rng(_TVD_SEED).multivariate_hypergeometric(
        both, int(rows[0]), size=_TVD_DRAWS, method="marginals"
    )
    distances = 0.5 * np.abs(drawn / rows[0] - (both - drawn) / rows[1]).sum(axis=1)
    return float((observed <= distances + 1e-12).mean())


_TESTS_OF_COUNTS: Mapping[str, Callable[[Array, Array], float]] = {
    "chisquare": _chi_square,
    "z": _z,
    "TVD": _total_variation,
}
