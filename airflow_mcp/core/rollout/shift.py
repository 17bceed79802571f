"""How far the predictions of the canary differ from those of the champion, with bounds.

The shift is the largest difference of a share: for classes, of the predictions with one value; for numbers, of the
predictions up to an edge, which is the distance of Kolmogorov and Smirnov at the edges that servers count by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from airflow_mcp.core.rollout.bounds import CONFIDENCE, Bounds, Share, difference
from airflow_mcp.core.rollout.samples import Counts
from airflow_mcp.core.serving.prediction_ranges import NOT_A_NUMBER

OTHER = "other"
"""Stands for values that a server does not count one by one, and that may differ from version to version."""


class Shift(NamedTuple):
    """What is known about a shift and its limit; the fields are those that the analysis needs of every rule."""

    broken: bool
    met: bool
    reason: str
    value: float | None


class _Part(NamedTuple):
    """One set of predictions, and how many of each side are in it."""

    name: str
    canary: Share
    champion: Share

    @property
    def difference(self) -> float:
        return (self.canary.value or 0.0) - (self.champion.value or 0.0)

    def bounds(self, confidence: float) -> Bounds:
        found = difference(self.canary, self.champion, confidence=confidence)
        if found is None:
            raise ValueError("both sides must have predictions")
        return found


def prediction_shift(canary: Counts, champion: Counts, limit: float) -> Shift:
    """Judge the shift by its bounds.

    It is certainly beyond the limit when one of the differences is, at a confidence that holds for all of them
    together, and certainly within it when each of them is.

    :param canary: what the canary predicted.
    :param champion: what the champion predicted meanwhile.
    :param limit: largest shift that is allowed.
    """
    if problem := _why_incomparable(canary, champion):
        return Shift(broken=False, met=False, reason=problem, value=None)
    parts = list(_parts(canary, champion))
    widest = max(parts, key=lambda part: abs(part.difference))
    found = widest.bounds(CONFIDENCE)
    reason = (
        f"{widest.name}: {_written(widest.canary)} of the canary, {_written(widest.champion)} of the champion; the "
        f"difference is between {found.low:.3%} and {found.high:.3%}, allowed are {limit:.3%} either way"
    )
    together = 1 - (1 - CONFIDENCE) / (2 * len(parts))
    beyond = (part.bounds(together) for part in parts if abs(part.difference) > limit)
    is_broken = any(bounds.low > limit or bounds.high < -limit for bounds in beyond)
    is_met = abs(widest.difference) <= limit and all(_is_within(part.bounds(CONFIDENCE), limit) for part in parts)
    return Shift(is_broken, is_met, reason, abs(widest.difference))


def _is_within(bounds: Bounds, limit: float) -> bool:
    return -limit <= bounds.low and bounds.high <= limit


def _why_incomparable(canary: Counts, champion: Counts) -> str:
    for side, counts in (("canary", canary), ("champion", champion)):
        if not counts.classes and not counts.ranges:
            return f"the {side} has no predictions that are numbers or classes"
    if _are_classes(canary, champion) or _are_numbers(canary, champion):
        return ""
    return "the predictions are neither all numbers nor all of at most 20 classes. Use a query instead"


def _are_classes(canary: Counts, champion: Counts) -> bool:
    return all(side.classes and OTHER not in side.classes for side in (canary, champion))


def _are_numbers(canary: Counts, champion: Counts) -> bool:
    """Return whether every prediction is in a range; whole numbers are counted as classes too."""
    return all(side.ranges and sum(side.classes.values()) <= sum(side.ranges.values()) for side in (canary, champion))


def _parts(canary: Counts, champion: Counts) -> Iterator[_Part]:
    if _are_classes(canary, champion):
        yield from _compared("class ", canary.classes, champion.classes)
        return
    sides = canary.ranges, champion.ranges
    edges = sorted({*sides[0], *sides[1]} - {NOT_A_NUMBER}, key=float)
    totals = [sum(side.values()) for side in sides]
    below = [list(accumulate(side.get(edge, 0) for edge in edges)) for side in sides]
    for edge, *found in zip(edges, *below, strict=True):
        yield _Part(f"numbers up to the range of {edge}", *map(Share, found, totals))
    yield _Part(
        NOT_A_NUMBER, *(Share(side.get(NOT_A_NUMBER, 0), total) for side, total in zip(sides, totals, strict=True))
    )


def _compared(prefix: str, canary: Mapping[str, float], champion: Mapping[str, float]) -> Iterator[_Part]:
    totals = math.fsum(canary.values()), math.fsum(champion.values())
    for name in sorted({*canary, *champion}):
        yield _Part(prefix + name, Share(canary.get(name, 0), totals[0]), Share(champion.get(name, 0), totals[1]))


def _written(share: Share) -> str:
    return f"{share.bad:.0f} of {share.total:.0f}"
