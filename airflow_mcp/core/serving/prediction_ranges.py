"""Ranges by which a model server counts predicted numbers, so that two versions can be compared."""

from __future__ import annotations

import math

PER_DECADE = 20
"""Ranges per power of ten: the edges of a range differ by 12 %."""
_SMALLEST, _LARGEST = -6 * PER_DECADE, 9 * PER_DECADE
"""Numbers between -1e-6 and 1e-6 count as 0, and numbers beyond 1e9 as if they were in the last range before it."""
NOT_A_NUMBER = "NaN"
_OFFSET = 1 - _SMALLEST


def range_of(value: float) -> int | None:
    """Return the number of the range that a value is in; ranges are numbered in the order of their values.

    :param value: a prediction.
    :return: None for NaN.
    """
    size = abs(value)
    if size < 1e-6:
        return 0
    if math.isnan(size):
        return None
    step = min(_LARGEST - 1, math.floor(PER_DECADE * math.log10(size))) if size < 1e9 else _LARGEST - 1
    number = max(_SMALLEST, step) + _OFFSET
    return number if value > 0 else -number


def range_name(number: int | None) -> str:
    """Return the edge of a range that is nearer to 0, as text; names sort by their values.

    :param number: as :func:`range_of` returns it.
    """
    if number is None:
        return NOT_A_NUMBER
    if number == 0:
        return "0"
    edge = 10 ** ((abs(number) - _OFFSET) / PER_DECADE)
    return f"{edge if number > 0 else -edge:.4g}"
