"""Plots of cost against rows as one small SVG with logarithmic axes, readable in light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 320, 240, 52, 34, 44, 40
_COLORS = ("#1f6feb", "#d1570f", "#3f8f3f")
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#ddd}"
    "@media (prefers-color-scheme: dark){text{fill:#ddd}.grid{stroke:#444}.axis{stroke:#888}}"
)


def draw(panels: Mapping[str, Mapping[str, Points]]) -> str:
    """Draw one panel per quantity.

    :param panels: by title, the points (rows, quantity) of each series.
    """
    width = len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + _BOTTOM
    body = [_panel(title, series, number * (_WIDTH + _GAP)) for number, (title, series) in enumerate(panels.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>Cost of a drift check against rows: {escape(', '.join(panels))}</title><style>{_STYLE}</style>"
        f"{''.join(body)}</svg>\n"
    )


def _panel(title: str, series: Mapping[str, Points], offset: int) -> str:
    points = [point for found in series.values() for point in found]
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / max(x_high - x_low, 1)
        up = (math.log10(y) - y_low) / max(y_high - y_low, 1)
        return offset + _LEFT + across * (_WIDTH - _LEFT), _TOP + (1 - up) * _HEIGHT

    parts = [f'<text x="{offset + _LEFT}" y="18" font-weight="bold">{escape(title)}, by rows</text>']
    for power in range(y_low, y_high + 1):
        left, y = place(10**x_low, 10**power)
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{offset + _WIDTH}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(10.0**power)}</text>')
    for power in range(x_low, x_high + 1):
        x, bottom = place(10**power, 10**y_low)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{bottom:.1f}" x2="{x:.1f}" y2="{bottom + 4:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{_number(10.0**power)}</text>')
    for number, (name, found) in enumerate(series.items()):
        color, placed = _COLORS[number % len(_COLORS)], [place(*point) for point in found]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in placed]
        label = _TOP + _HEIGHT + 38
        left = offset + _LEFT + number * 130
        parts.append(f'<line x1="{left}" y1="{label - 4}" x2="{left + 18}" y2="{label - 4}" stroke="{color}"/>')
        parts.append(f'<text x="{left + 24}" y="{label}">{escape(name)}</text>')
    return "".join(parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _number(value: float) -> str:
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"
