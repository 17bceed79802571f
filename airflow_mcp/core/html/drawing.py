"""Parts of plots as SVG: scales, ticks and strips. Text from outside is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

_PAD = 0.06
NOTHING = "&ndash;"


class Scale(NamedTuple):
    """A scale from ``low`` to ``high``, which differ."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Return the position of a number between 0 (low) and 1 (high); numbers outside are put on the edge."""
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # halves, so that nothing overflows
        return min(1.0, max(0.0, share))

    def percent(self, value: float) -> str:
        """Return the position of a number as a percentage, which needs no fixed width."""
        return f"{100 * self.share(value):.2f}%"

    def ticks(self, count: int = 4) -> list[float]:
        """Return round numbers on the scale, about as many as requested."""
        span = self.high - self.low
        if not math.isfinite(span):
            return [self.low, self.high]
        raw = span / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_over(numbers: Iterable[float | None], *, pad: float = _PAD) -> Scale | None:
    """Return a scale that contains all numbers.

    :param numbers: the numbers; None and numbers that are not finite are left out.
    :param pad: margin on both sides, as a share of the span.
    :return: None when no number is left.
    """
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if not known:
        return None
    low, high = min(known), max(known)
    half = high * pad - low * pad
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = max(abs(high) * 0.05, 1e-9)
    lowest, highest = low - half, high + half
    return Scale(lowest if math.isfinite(lowest) else low, highest if math.isfinite(highest) else high)


class Strip(NamedTuple):
    """One measured number on a line of its own."""

    value: float | None
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    champion: float | None = None
    allowed: str = ""
    """``>`` when numbers at or above the bound are accepted, ``<`` for numbers at or below it, empty when not known."""

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """All numbers that the scale must contain."""
        return self.value, self.bound, self.low, self.high, self.champion


def draw_strip(strip: Strip, scale: Scale | None, tone: str, *, zero: bool = False) -> str:
    """Draw a strip: accepted side shaded, bound as a line, champion as a square, candidate as a dot with its interval.

    :param strip: the strip; nothing is drawn without a value or without a bound.
    :param scale: its scale.
    :param tone: name of the CSS variable with the colour of the verdict.
    :param zero: whether to mark 0 as well, if it is on the scale.
    """
    if scale is None or (strip.value is None and strip.bound is None):
        return ""
    parts = ['<line x1="0" x2="100%" y1="11" y2="11" stroke="var(--line)"/>']
    if zero and scale.low < 0 < scale.high:
        at = scale.percent(0)
        parts.append(f'<line x1="{at}" x2="{at}" y1="2" y2="20" stroke="var(--dim)" stroke-dasharray="2 3"/>')
    if strip.bound is not None and math.isfinite(strip.bound):
        parts.append(_bound(strip, scale))
    parts.append(_interval(strip, scale, tone))
    if strip.champion is not None:
        parts.append(square(scale.percent(strip.champion), 11))
    if strip.value is not None:
        parts.append(f'<circle cx="{scale.percent(strip.value)}" cy="11" r="4.5" fill="var(--{tone})"/>')
    label = escape(_described(strip), quote=True)
    return f'<svg width="100%" height="22" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def square(x: str, y: float) -> str:
    """Draw the mark of the champion."""
    return (
        f'<rect x="{x}" y="{y - 4:.1f}" width="8" height="8" transform="translate(-4 0)" fill="var(--page)" '
        'stroke="var(--champion)" stroke-width="2"/>'
    )


def legend(*entries: tuple[str, str]) -> str:
    """Return a legend of marks.

    :param entries: SVG of a mark in a box of 16 by 12, and its meaning as plain text.
    """
    items = "".join(
        f'<span><svg width="16" height="12" aria-hidden="true">{mark}</svg>{escape(text)}</span>'
        for mark, text in entries
    )
    return f'<p class="legend">{items}</p>'


DOT = '<circle cx="8" cy="6" r="4.5" fill="var(--candidate)"/>'
SQUARE = square("8", 6)
INTERVAL = '<line x1="0" x2="16" y1="6" y2="6" stroke="var(--candidate)" stroke-width="4" stroke-opacity=".55"/>'
BOUND = '<line x1="8" x2="8" y1="0" y2="12" stroke="var(--ink)" stroke-width="2"/>'
DASHES = '<line x1="8" x2="8" y1="0" y2="12" stroke="var(--dim)" stroke-dasharray="2 3"/>'
ALLOWED = '<rect width="16" height="12" fill="var(--passed)" fill-opacity=".16"/>'


def write(number: float | None) -> str:
    """Return a number for an axis or a caption with four significant digits; a dash for None."""
    return NOTHING if number is None else f"{number:.4g}"


def _interval(strip: Strip, scale: Scale, tone: str) -> str:
    """Draw the interval; towards an unknown end, dashed to the edge."""
    if strip.low is None and strip.high is None:
        return ""
    low = scale.percent(strip.low) if strip.low is not None else "0%"
    high = scale.percent(strip.high) if strip.high is not None else "100%"
    dashes = ' stroke-dasharray="3 3"' if strip.low is None or strip.high is None else ""
    style = f'stroke="var(--{tone})" stroke-width="4" stroke-opacity=".55"{dashes}'
    return f'<line x1="{low}" x2="{high}" y1="11" y2="11" {style}/>'


def _bound(strip: Strip, scale: Scale) -> str:
    at = scale.percent(strip.bound or 0.0)
    shaded = ""
    if strip.allowed == ">":
        shaded = f'<rect x="{at}" y="3" width="{100 * (1 - scale.share(strip.bound or 0.0)):.2f}%" height="16" '
    elif strip.allowed == "<":
        shaded = f'<rect x="0" y="3" width="{at}" height="16" '
    if shaded:
        shaded += 'fill="var(--passed)" fill-opacity=".16"/>'
    return f'{shaded}<line x1="{at}" x2="{at}" y1="1" y2="21" stroke="var(--ink)" stroke-width="2"/>'


def _described(strip: Strip) -> str:
    """Return a description of a strip for screen readers."""
    said = [f"candidate {strip.value:.6g}" if strip.value is not None else "candidate not measured"]
    if strip.low is not None or strip.high is not None:
        ends = ("unknown" if end is None else f"{end:.6g}" for end in (strip.low, strip.high))
        said.append(f"interval {' to '.join(ends)}")
    if strip.bound is not None:
        said.append(f"bound {strip.bound:.6g}")
    if strip.champion is not None:
        said.append(f"champion {strip.champion:.6g}")
    return ", ".join(said)
