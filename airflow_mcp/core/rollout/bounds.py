"""Exact binomial bounds on a share, from how many of how many were bad; standard library only.

The bounds are those of Clopper and Pearson, one-sided. They come from the regularised incomplete beta function, which
is computed by its continued fraction (Lentz's method).
"""

from __future__ import annotations

import math
from typing import NamedTuple

CONFIDENCE = 0.99
"""Confidence of every one-sided bound."""
_MOST = 100_000
"""A larger sample is scaled down to this size: the bounds get wider, and the triggerer stays responsive."""
_ITERATIONS, _TINY, _PRECISION = 10_000, 1e-300, 1e-14
_STEPS, _CLOSE = 100, 1e-13
_TIE = 1e-9
"""Chances that differ by less than this share are equal: a bound on the limit is neither above nor below it."""


class Share(NamedTuple):
    """How many of how many were bad."""

    bad: float
    total: float

    @property
    def value(self) -> float | None:
        """The share itself; None without any."""
        return self.bad / self.total if self.total else None

    def low(self, confidence: float = CONFIDENCE) -> float:
        """Return the lower bound of the share; 0 without any.

        :param confidence: confidence of the bound.
        """
        bad, total = self._scaled
        if bad <= 0:
            return 0.0
        return _quantile(bad, total - bad + 1, 1 - confidence)

    def high(self, confidence: float = CONFIDENCE) -> float:
        """Return the upper bound of the share; 1 without any.

        :param confidence: confidence of the bound.
        """
        bad, total = self._scaled
        if bad >= total:
            return 1.0
        return _quantile(bad + 1, total - bad, confidence)

    def is_above(self, limit: float, confidence: float = CONFIDENCE) -> bool:
        """Return whether even the lower bound is above a limit, by the binomial tail itself: a tie is not above.

        :param limit: a share between 0 and 1, both excluded.
        :param confidence: confidence of the bound.
        """
        bad, total = self._scaled
        return bad > 0 and _beta(limit, bad, total - bad + 1) < (1 - confidence) * (1 - _TIE)

    def is_below(self, limit: float, confidence: float = CONFIDENCE) -> bool:
        """Return whether even the upper bound is below a limit; a tie is not below.

        :param limit: a share between 0 and 1, both excluded.
        :param confidence: confidence of the bound.
        """
        bad, total = self._scaled
        return bad < total and _beta(1 - limit, total - bad, bad + 1) < (1 - confidence) * (1 - _TIE)

    def chance(self, expected: float) -> float:
        """Return how likely a count at least as far on its side is when the true share is ``expected``.

        :param expected: a share between 0 and 1, both excluded.
        """
        bad, total = self._scaled
        above = _beta(expected, bad, total - bad + 1) if bad > 0 else 1.0
        below = _beta(1 - expected, total - bad, bad + 1) if bad < total else 1.0
        return min(above, below)

    @property
    def _scaled(self) -> Share:
        factor = min(1.0, _MOST / self.total) if self.total else 1.0
        return Share(self.bad * factor, self.total * factor)


class Bounds(NamedTuple):
    """A value with its lower and its upper bound."""

    value: float
    low: float
    high: float


def difference(one: Share, other: Share, factor: float = 1.0, confidence: float = CONFIDENCE) -> Bounds | None:
    """Return ``one - factor * other`` with its bounds, by Newcombe's method from the bounds of both.

    :param one: a share.
    :param other: the share that it is compared with.
    :param factor: multiplies the other share; not negative.
    :param confidence: confidence of each bound.
    :return: None when nothing was counted on one side.
    """
    if one.value is None or other.value is None:
        return None
    value = one.value - factor * other.value
    down = math.hypot(one.value - one.low(confidence), factor * (other.high(confidence) - other.value))
    up = math.hypot(one.high(confidence) - one.value, factor * (other.value - other.low(confidence)))
    return Bounds(value, value - down, value + up)


def _quantile(a: float, b: float, wanted: float) -> float:
    """Find where the incomplete beta function has a value: Newton's method, kept inside a bracket by halving."""
    low, high, x = 0.0, 1.0, a / (a + b)
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(_STEPS):
        excess = _beta(x, a, b) - wanted
        low, high = (x, high) if excess < 0 else (low, x)
        slope = math.exp(log_scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))
        better = x - excess / slope if slope > 0 else low
        if not low < better < high:
            better = (low + high) / 2
        if abs(better - x) <= _CLOSE:
            return better
        x = better
    return x


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function: for whole numbers, P(X >= a) of a + b - 1 trials."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1.0 - _beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / _nonzero(1.0 - (a + b) * x / (a + 1))
    found = d
    for number in range(1, _ITERATIONS):
        even = number * (b - number) * x / ((a + 2 * number - 1) * (a + 2 * number))
        odd = -(a + number) * (a + b + number) * x / ((a + 2 * number) * (a + 2 * number + 1))
        change = 1.0
        for numerator in (even, odd):
            d = 1.0 / _nonzero(1.0 + numerator * d)
            c = _nonzero(1.0 + numerator / c)
            change = c * d
            found *= change
        if abs(change - 1.0) < _PRECISION:
            break
    return found


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
