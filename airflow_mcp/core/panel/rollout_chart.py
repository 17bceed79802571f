"""The chart of a rollout: the share of the requests that the new version gets, and how many answers failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from html import escape

from airflow_mcp.core.html.drawing import Scale
from airflow_mcp.core.panel.words import Words
from airflow_mcp.core.rollout.state import Point

_WIDTH, _LEFT, _RIGHT = 360.0, 42.0, 6.0
_TOP, _PANEL, _GAP = 14.0, 56.0, 26.0
_LEAST_RATE = 0.01
"""Top of the scale of failures when there are fewer: one in a hundred must not look like a disaster."""


def draw_rollout(points: Sequence[Point], canary: str, t: Words) -> str:
    """Draw the weight over time, and below it the share of failed answers of both versions.

    :param points: looks of the journal, oldest first; empty when nobody has looked yet.
    :param canary: version that is rolled out.
    :param t: the words.
    """
    if not points:
        return ""
    begin, end = points[0].at.timestamp(), points[-1].at.timestamp()
    times = Scale(begin, max(end, begin + 1))
    ours = [(point.at, _rate(point.canary_failed, point.canary)) for point in points]
    theirs = [(point.at, _rate(point.champion_failed, point.champion)) for point in points]
    top = max([_LEAST_RATE, *(rate for _, rate in (*ours, *theirs) if rate is not None)])
    lower = _TOP + _PANEL + _GAP
    parts = [
        _heading(_TOP, t("% of the requests to version {canary}", canary=canary)),
        _axis(_TOP, "100%", "0%"),
        _line(
            [(point.at, point.weight / 100) for point in points],
            times,
            (_TOP, 1.0),
            'stroke="var(--wait)"',
            is_stepped=True,
        ),
        _heading(lower, t("failed answers: version {canary} solid, champion dashed", canary=canary)),
        _axis(lower, f"{top:.3g}" if top < 0.001 else f"{top:.1%}", "0%"),
        _line(theirs, times, (lower, top), 'stroke="var(--dim)" stroke-dasharray="4 3"'),
        _line(ours, times, (lower, top), 'stroke="var(--bad)"'),
        _time(points[0].at, _LEFT, "start", lower, t),
        _time(points[-1].at, _WIDTH - _RIGHT, "end", lower, t),
    ]
    height = lower + _PANEL + 20
    said = _sentence(points, canary, t)
    return (
        f'<svg class="narrow" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{said}"><title>{said}</title>'
        f"{''.join(parts)}</svg>"
    )


def rollout_rows(points: Sequence[Point], when: Callable[[datetime], str]) -> list[str]:
    """Return the rows of the same as a table, the latest first.

    :param points: looks of the journal, oldest first.
    :param when: writes a time as HTML.
    """
    return [
        f'<tr><td class="nowrap">{when(point.at)}</td><td class="num">{point.weight:g} %</td>'
        f'<td class="num">{point.canary_failed:g} / {point.canary:g}</td>'
        f'<td class="num">{point.champion_failed:g} / {point.champion:g}</td></tr>'
        for point in reversed(points)
    ]


def _sentence(points: Sequence[Point], canary: str, t: Words) -> str:
    text = (
        "From {begin} to {end} the weight went from {first} % to {last} %. Version {canary} failed {failed} of "
        "{answers} answers, the champion {champion_failed} of {champion_answers}."
    )
    return t(
        text,
        begin=t.time(points[0].at),
        end=t.time(points[-1].at),
        first=f"{points[0].weight:g}",
        last=f"{points[-1].weight:g}",
        canary=canary,
        failed=f"{sum(point.canary_failed for point in points):g}",
        answers=f"{sum(point.canary for point in points):g}",
        champion_failed=f"{sum(point.champion_failed for point in points):g}",
        champion_answers=f"{sum(point.champion for point in points):g}",
    )


def _rate(failed: float, answers: float) -> float | None:
    return failed / answers if answers else None


def _heading(y: float, said: str) -> str:
    return f'<text x="{_LEFT:g}" y="{y - 4:g}">{said}</text>'


def _axis(y: float, top: str, bottom: str) -> str:
    right = _WIDTH - _RIGHT
    lines = "".join(
        f'<line x1="{_LEFT:g}" x2="{right:g}" y1="{at:g}" y2="{at:g}" stroke="var(--line)"/>' for at in (y, y + _PANEL)
    )
    return (
        f'{lines}<text x="{_LEFT - 5:g}" y="{y + 8:g}" text-anchor="end">{top}</text>'
        f'<text x="{_LEFT - 5:g}" y="{y + _PANEL:g}" text-anchor="end">{bottom}</text>'
    )


def _time(time: datetime, x: float, anchor: str, lower: float, t: Words) -> str:
    said = escape(t.time(time))
    return f'<text x="{x:g}" y="{lower + _PANEL + 14:g}" text-anchor="{anchor}">{said}</text>'


def _line(
    values: Sequence[tuple[datetime, float | None]],
    times: Scale,
    panel: tuple[float, float],
    look: str,
    *,
    is_stepped: bool = False,
) -> str:
    """Return a line that is interrupted where nothing was counted.

    :param values: time and value; None: nothing was counted.
    :param times: the scale of the times.
    :param panel: where its panel begins, and the value at its top.
    :param look: attributes of the line.
    :param is_stepped: whether a value holds until the next one.
    """
    y, top = panel
    parts: list[str] = []
    pen = "M"
    for time, value in values:
        if value is None:
            pen = "M"
            continue
        x = _LEFT + times.share(time.timestamp()) * (_WIDTH - _LEFT - _RIGHT)
        at = y + _PANEL * (1 - min(value / top, 1.0))
        parts.append(f"H{x:.1f}V{at:.1f}" if is_stepped and pen == "L" else f"{pen}{x:.1f} {at:.1f}")
        pen = "L"
    if not parts:
        return ""
    return f'<path d="{"".join(parts)}" fill="none" stroke-width="2" stroke-linecap="round" {look}/>'
