"""Bounds on shares, checked against SciPy, and what they are for: the table of sound and broken canaries."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

import numpy as np
import pytest
from scipy.stats import beta, binom

from airflow_mcp.core.rollout.analysis import CONFIDENCE_OF_RECENT, FEWEST_BAD
from airflow_mcp.core.rollout.bounds import CONFIDENCE, Share, difference

ROLLOUTS, LOOKS, LIMIT = 4_000, 30, 0.05
TOTALS = (1, 2, 7, 50, 460, 1_000, 99_999)


@pytest.mark.parametrize("total", TOTALS)
def test_bounds_are_those_of_clopper_and_pearson(total: int) -> None:
    for bad in {0, 1, total // 3, total // 2, total - 1, total}:
        low = 0.0 if bad == 0 else beta.ppf(0.01, bad, total - bad + 1)
        high = 1.0 if bad == total else beta.ppf(0.99, bad + 1, total - bad)
        assert Share(bad, total).low() == pytest.approx(low, abs=1e-10)
        assert Share(bad, total).high() == pytest.approx(high, abs=1e-10)


@pytest.mark.parametrize(("bad", "total", "expected"), [(50, 1_000, 0.25), (3, 40, 0.05), (900, 1_000, 0.25)])
def test_chance_is_the_smaller_tail(bad: int, total: int, expected: float) -> None:
    tails = binom.cdf(bad, total, expected), binom.sf(bad - 1, total, expected)
    assert Share(bad, total).chance(expected) == pytest.approx(min(tails), rel=1e-6)


@pytest.mark.parametrize(("total", "limit"), [(1, 0.01), (7, 0.05), (458, 0.01), (459, 0.01), (1_000, 0.3)])
def test_a_share_is_beyond_a_limit_by_the_tail_of_the_binomial_distribution(total: int, limit: float) -> None:
    for bad in {0, 1, min(2, total), total // 3, total - 1, total}:
        share = Share(bad, total)
        assert share.is_above(limit) == (binom.sf(bad - 1, total, limit) < 0.01 * (1 - 1e-9))
        assert share.is_below(limit) == (binom.cdf(bad, total, limit) < 0.01 * (1 - 1e-9))


def test_a_bound_on_the_limit_is_neither_above_nor_below_it() -> None:
    assert Share(1, 1).low() == pytest.approx(0.01, abs=1e-12)
    assert not Share(1, 1).is_above(0.01)
    assert not Share(0, 1).is_below(0.99)


def test_without_requests_nothing_is_known() -> None:
    nothing = Share(0, 0)
    assert (nothing.value, nothing.low(), nothing.high()) == (None, 0.0, 1.0)
    assert not nothing.is_above(0.01)
    assert not nothing.is_below(0.99)
    assert difference(nothing, Share(1, 10)) is None


def test_a_very_large_sample_keeps_wider_bounds() -> None:
    huge = Share(10_000_000, 1_000_000_000)
    assert huge.low() < 0.01 < huge.high()
    assert huge.high() - huge.low() > beta.ppf(0.99, 1e7 + 1, 1e9 - 1e7) - beta.ppf(0.01, 1e7, 1e9 - 1e7 + 1)


def test_bounds_of_a_difference_hold_as_often_as_they_should() -> None:
    rng = np.random.default_rng(7)
    one, other = 0.03, 0.02
    drawn = zip(rng.binomial(800, one, 200), rng.binomial(4_000, other, 200), strict=True)
    outside = 0
    for bad, bad_other in drawn:
        found = difference(Share(int(bad), 800), Share(int(bad_other), 4_000))
        assert found is not None
        outside += found.low > one - other or found.high < one - other
    assert outside / 200 <= 0.025


@cache
def is_met(bad: int, total: int) -> bool:
    return Share(bad, total).is_below(LIMIT)


@cache
def fewest_to_fail(total: int, limit: float = LIMIT, confidence: float = CONFIDENCE) -> int:
    """Return the smallest count that is certainly too high; more of them are so too."""
    found = bisect_left(range(total + 1), 1, key=lambda bad: int(Share(bad, total).is_above(limit, confidence)))
    return max(FEWEST_BAD, found)


def stopped(rule: str, counts: np.ndarray, size: int) -> np.ndarray:
    """Return for each rollout the look at which it is stopped, from 1; 0 when it is not."""
    totals = size * np.arange(1, LOOKS + 1)
    if rule == "each look alone":
        broken = counts / size > LIMIT
    elif rule == "sum without a bound":
        broken = counts.cumsum(axis=1) / totals > LIMIT
    else:
        broken = counts.cumsum(axis=1) >= np.array([fewest_to_fail(int(total)) for total in totals])
    return np.where(broken.any(axis=1), broken.argmax(axis=1) + 1, 0)


@pytest.mark.parametrize(
    ("rate", "size", "alone", "summed", "exact", "passed"),
    [
        (0.01, 5, 0.77, 0.16, 0.00, 0.56),
        (0.01, 20, 0.39, 0.02, 0.00, 1.00),
        (0.03, 100, 0.92, 0.11, 0.00, 1.00),
        (0.10, 20, 1.00, 1.00, 0.995, 0.00),
        (0.30, 5, 1.00, 1.00, 1.00, 0.00),
    ],
)
def test_a_sound_canary_is_not_stopped_and_a_broken_one_is(
    rate: float, size: int, alone: float, summed: float, exact: float, passed: float
) -> None:
    counts = np.random.default_rng(20261129).binomial(size, rate, (ROLLOUTS, LOOKS))
    for rule, wanted in (("each look alone", alone), ("sum without a bound", summed), ("bounds of 99 %", exact)):
        share = float(np.mean(stopped(rule, counts, size) > 0))
        assert share == pytest.approx(wanted, abs=0.03), rule
    looks = stopped("bounds of 99 %", counts, size)
    at_the_end = np.array([is_met(int(bad), size * LOOKS) for bad in counts.sum(axis=1)])
    assert float(np.mean(at_the_end & (looks == 0))) == pytest.approx(passed, abs=0.03)
    if rate > LIMIT:
        assert float(np.median(looks[looks > 0])) <= (3 if size == 5 else 7)


@pytest.mark.parametrize(
    ("rate", "size", "most"), [(0.005, 1, 0.009), (0.005, 5, 0.009), (0.01, 1, 0.069), (0.01, 5, 0.069)]
)
def test_recent_requests_stop_hardly_any_sound_canary_that_the_sum_does_not(
    rate: float, size: int, most: float
) -> None:
    """Thirty minutes of looks at 15 s; the recent requests are those of the last 5 to 10 minutes."""
    looks, every = 120, 20
    counts = np.random.default_rng(20261130).binomial(size, rate, (2_000, looks)).cumsum(axis=1)
    by_sum = counts >= np.array([fewest_to_fail(size * look, 0.01) for look in range(1, looks + 1)])
    by_recent = np.zeros_like(by_sum)
    for look in range(every, looks):
        mark = (look // every - 1) * every
        fewest = fewest_to_fail(size * (look - mark), 0.01, CONFIDENCE_OF_RECENT)
        by_recent[:, look] = counts[:, look] - counts[:, mark] >= fewest
    alone, both = (float(np.mean(broken.any(axis=1))) for broken in (by_sum, by_sum | by_recent))
    assert both <= most
    assert both - alone <= 0.001
