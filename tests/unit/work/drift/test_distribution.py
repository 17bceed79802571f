from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from airflow_mcp.work.drift.column_data import ColumnData
from airflow_mcp.work.drift.distribution import (
    LOSSLESS,
    Array,
    Curve,
    Moments,
    curve_of_sorted,
    differences,
    from_document,
    merge_curves,
    simplify,
    to_document,
)

SHAPES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda r, n: r.normal(size=n),
    "log-normal": lambda r, n: r.lognormal(0, 2, n),
    "heavy tails": lambda r, n: r.standard_t(1.5, size=n),
    "mostly zero": lambda r, n: np.where(r.random(n) < 0.7, 0.0, r.exponential(5, n)),
    "two peaks": lambda r, n: np.where(r.random(n) < 0.5, r.normal(-9, 1, n), r.normal(9, 1, n)),
    "rounded": lambda r, n: r.normal(size=n).round(2),
    "far from zero": lambda r, n: r.normal(1e9, 1e-3, n),
    "one far away": lambda r, n: np.append(r.normal(size=n - 1), 1e12),
    "uniform": lambda r, n: r.random(n),
}


def full(values: Array) -> Curve:
    return curve_of_sorted(np.sort(values), lossless=math.inf)


def thin(values: Array) -> Curve:
    return curve_of_sorted(np.sort(values))


def assert_within_bounds(found: Curve, values: Array) -> None:
    """Hold a curve to the errors that it states, next to all the values."""
    rank, area = differences(full(values), found)
    assert rank <= found.rank_error + 1e-9
    assert area <= found.distance_error * (1 + 1e-6) + 1e-9 * float(np.ptp(values))
    assert found.values[0] == values.min()
    assert found.values[-1] == values.max()
    assert found.rows == len(values)


def test_a_curve_in_full_says_how_many_are_below() -> None:
    values = np.array([3.0, 1.0, 2.0, 2.0, 5.0])
    curve = full(values)
    points = np.array([0.0, 1.0, 1.5, 2.0, 4.9, 5.0, 6.0])
    assert curve.below(points) == pytest.approx([np.mean(values < point) for point in points])
    assert curve.below(points, inclusive=True) == pytest.approx([np.mean(values <= point) for point in points])
    assert curve.sample(5).tolist() == [1, 2, 2, 3, 5]
    assert curve.is_exact
    assert curve.distinct == 4


def test_up_to_its_limit_of_different_values_nothing_is_lost() -> None:
    values = np.repeat(np.arange(float(LOSSLESS)), 90)
    assert thin(values).is_exact
    assert not thin(np.append(np.repeat(np.arange(float(LOSSLESS)), 90), -1.0)).is_exact


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thinned_out_curve_is_within_the_error_that_it_states(shape: str) -> None:
    values = SHAPES[shape](np.random.default_rng(1), 40_000)
    curve = thin(values)
    assert_within_bounds(curve, values)
    assert curve.rank_error < 0.003


@pytest.mark.parametrize("shape", SHAPES)
def test_differences_are_those_of_scipy(shape: str) -> None:
    random = np.random.default_rng(2)
    first, second = SHAPES[shape](random, 900), SHAPES[shape](random, 1100)[50:]
    rank, area = differences(full(first), full(second))
    assert rank == pytest.approx(scipy.stats.ks_2samp(first, second).statistic)
    assert area == pytest.approx(scipy.stats.wasserstein_distance(first, second), rel=1e-9)


def test_differences_of_curves_are_the_area_between_straight_lines() -> None:
    def line(low: float, high: float) -> Curve:
        ends = np.array([low, high])
        return Curve(ends, np.zeros(2), np.array([10.0]), Moments(10, 0.0, 1.0))

    assert differences(line(0, 1), line(2, 3)) == pytest.approx((1.0, 2.0))
    # They cross in the middle: 0 to 4 against 1 to 3.
    assert differences(line(0, 4), line(1, 3)) == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize("shape", SHAPES)
def test_merging_parts_is_one_pass_within_the_stated_error_in_any_order(shape: str) -> None:
    random = np.random.default_rng(3)
    parts = [SHAPES[shape](random, size) for size in (9000, 200, 4000, 30_000, 1)]
    whole = np.concatenate(parts)
    curves = [thin(part) for part in parts]
    left = curves[0]
    for curve in curves[1:]:
        left = merge_curves([left, curve])
    for merged in (merge_curves(curves), merge_curves(curves[::-1]), left):
        assert_within_bounds(merged, whole)
        assert merged.rank_error < 0.01
        assert merged.moments.mean == pytest.approx(whole.mean())
        assert merged.moments.deviation == pytest.approx(whole.std())


def test_merging_parts_in_full_is_exact() -> None:
    parts = [np.array([1.0, 1.0, 2.0]), np.array([2.0, 3.0]), np.array([0.5])]
    merged = merge_curves([full(part) for part in parts])
    whole = full(np.concatenate(parts))
    assert merged.values.tolist() == whole.values.tolist()
    assert merged.at.tolist() == whole.at.tolist()
    assert merged.is_exact
    assert merged.distinct == 4


@pytest.mark.parametrize("knots", [24, 48, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_written_curve_is_within_the_error_that_it_states(shape: str, knots: int) -> None:
    values = SHAPES[shape](np.random.default_rng(4), 40_000)
    document = to_document(simplify(thin(values), knots))
    found = from_document(document)
    assert len(document.values) <= knots
    assert_within_bounds(found, values)
    assert found.rank_error < (0.06 if shape == "rounded" else 0.03)
    assert found.moments.deviation == pytest.approx(values.std(), rel=1e-9)


def test_more_knots_make_the_error_smaller() -> None:
    curve = thin(np.random.default_rng(5).normal(size=60_000))
    errors = [simplify(curve, knots).distance_error for knots in (8, 16, 32, 64, 128)]
    assert all(fewer > more for fewer, more in itertools.pairwise(errors))
    assert errors[2] < 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_a_column_is_written_the_same_whatever_was_tried_before(shape: str) -> None:
    values = np.sort(SHAPES[shape](np.random.default_rng(7), 40_000))
    column = ColumnData("x", kinds={"numerical"}, curve=thin(values))
    for knots in (256, 24, 128, 1000, 40):
        alone = ColumnData("x", kinds={"numerical"}, curve=thin(values))
        assert column.document(knots, 0) == alone.document(knots, 0)


def test_a_heavy_value_and_the_ends_are_written_as_they_are() -> None:
    random = np.random.default_rng(6)
    values = np.concatenate([np.full(9000, 0.1234567890123), random.normal(size=20_000), [-7.123456789, 9.123456789]])
    document = to_document(simplify(thin(values), 24))
    assert 0.1234567890123 in document.values
    assert document.at[document.values.index(0.1234567890123)] == 9000
    assert (document.values[0], document.values[-1]) == (-7.123456789, 9.123456789)
    assert all(len(repr(value)) < 9 for value in document.values[1:-1] if value != 0.1234567890123)


def test_few_values_are_written_in_full() -> None:
    document = to_document(simplify(full(np.array([1.0, 2.0, 2.0, 9.0])), 24))
    assert document.is_exact
    assert (document.values, document.at, document.between) == ((1.0, 2.0, 9.0), (1, 2, 1), ())
    assert from_document(document).distinct == 3


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(7).normal(1e6, 1, 1000)
    merged = Moments.of(values[:10]) + Moments.of(values[10:])
    assert merged.mean == pytest.approx(values.mean(), rel=1e-15)
    assert merged.deviation == pytest.approx(values.std(), rel=1e-9)
