"""Small plots of two distributions: the reference as an area, the current data as a line or as bars beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_mcp.core.drift.result import OTHER, ColumnHistogram
from airflow_mcp.core.html.drawing import write

WIDTH, HEIGHT = 220.0, 54.0
_BASE = 44.0
_TOP = 4.0
_LABEL_CHARACTERS = 9
_LABELS = 4
"""Largest number of categories whose names fit below the bars."""
AREA = '<rect width="16" height="12" fill="var(--champion)" fill-opacity=".35"/>'
LINE = '<path d="M0 9 H5 V3 H11 V6 H16" fill="none" stroke="var(--candidate)" stroke-width="2"/>'


def draw_distributions(column: str, histogram: ColumnHistogram | None) -> str:
    """Draw both distributions of a column in the same bins.

    :param column: name of the column, for screen readers.
    :param histogram: shares of both datasets; nothing is drawn when both are empty.
    """
    if histogram is None or not histogram.reference or not histogram.current:
        return ""
    pairs = list(zip(histogram.reference, histogram.current, strict=True))
    if histogram.labels[-1:] == (OTHER,) and len(pairs) > 1:
        pairs.pop()  # all others together may dwarf every category; their bar is cut
    highest = max(max(pair) for pair in pairs)
    if highest <= 0:
        return ""
    draw = _numbers if histogram.edges else _categories
    label = escape(f"{column}: {_described(histogram)}", quote=True)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">'
        f"{draw(histogram, highest)}</svg>"
    )


def _numbers(histogram: ColumnHistogram, highest: float) -> str:
    before, after = (_steps(side, highest) for side in (histogram.reference, histogram.current))
    ends = "".join(
        f'<text x="{at}" y="{HEIGHT - 1:g}" text-anchor="{anchor}">{write(value)}</text>'
        for at, anchor, value in (("0", "start", histogram.edges[0]), (f"{WIDTH:g}", "end", histogram.edges[-1]))
    )
    return (
        f'<path d="M0 {_BASE:g} {before} V{_BASE:g} Z" fill="var(--champion)" fill-opacity=".35"/>'
        f'<path d="M0 {_BASE:g} {after} V{_BASE:g}" fill="none" stroke="var(--candidate)" stroke-width="1.6"/>'
        f'<line x1="0" x2="{WIDTH:g}" y1="{_BASE:g}" y2="{_BASE:g}" stroke="var(--line)"/>{ends}'
    )


def _steps(shares: Sequence[float], highest: float) -> str:
    width = WIDTH / len(shares)
    return " ".join(f"V{_y(share, highest)} H{(place + 1) * width:.1f}" for place, share in enumerate(shares))


def _categories(histogram: ColumnHistogram, highest: float) -> str:
    count = len(histogram.labels)
    width = WIDTH / count
    parts = []
    for place, pair in enumerate(zip(histogram.labels, histogram.reference, histogram.current, strict=True)):
        label, before, after = pair
        left, half = place * width + width * 0.12, width * 0.38
        parts.append(_bar(left, half, before, highest, 'fill="var(--champion)" fill-opacity=".45"'))
        parts.append(_bar(left + half, half, after, highest, 'fill="var(--candidate)"'))
        if count <= _LABELS:
            parts.append(
                f'<text x="{place * width + width / 2:.1f}" y="{HEIGHT - 1:g}" text-anchor="middle">'
                f"{escape(_short(label))}</text>"
            )
    if count > _LABELS:
        has_others = histogram.labels[-1] == OTHER
        said = f"{count - 1} most frequent, then all others" if has_others else f"{count} categories"
        parts.append(f'<text x="0" y="{HEIGHT - 1:g}">{said}</text>')
    parts.append(f'<line x1="0" x2="{WIDTH:g}" y1="{_BASE:g}" y2="{_BASE:g}" stroke="var(--line)"/>')
    return "".join(parts)


def _bar(left: float, width: float, share: float, highest: float, style: str) -> str:
    top = float(_y(share, highest))
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BASE - top:.1f}" {style}/>'


def _y(share: float, highest: float) -> str:
    return f"{_BASE - (_BASE - _TOP) * min(share / highest, 1.0):.1f}"


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _described(histogram: ColumnHistogram) -> str:
    """Return a description for screen readers: where most values of both datasets are."""
    said = []
    for name, shares in (("reference", histogram.reference), ("current", histogram.current)):
        place = max(range(len(shares)), key=shares.__getitem__)
        if histogram.labels:
            where = histogram.labels[place]
        else:
            where = f"{histogram.edges[place]:.4g} to {histogram.edges[place + 1]:.4g}"
        said.append(f"{name} mostly {where} ({shares[place]:.0%})")
    return ", ".join(said)
