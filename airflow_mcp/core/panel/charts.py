"""Charts of the pages as SVG without styles of its own: every mark has a sentence for screen readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape
from itertools import pairwise

from airflow_mcp.core.html.drawing import Scale
from airflow_mcp.core.panel.facts import DriftCheck, VersionFacts
from airflow_mcp.core.panel.words import Language, Words
from airflow_mcp.core.registry.history import Change, Timeline

MOST_ROWS = 12
"""Versions that the timeline draws."""
_WIDTH, _LEFT, _ROW = 900.0, 46.0, 24.0
_SHARE_WIDTH, _SHARE_HEIGHT, _SHARE_LEFT, _SHARE_BASE = 560.0, 170.0, 44.0, 140.0
_VERDICT_TONES = {"drifted": "bad", "not_drifted": "good"}


def mark(sentence: str, drawn: str) -> str:
    """Return a mark of a chart that can be reached by keyboard and is read out.

    :param sentence: what it says, as HTML.
    :param drawn: its SVG.
    """
    return f'<g role="img" tabindex="0" aria-label="{sentence}"><title>{sentence}</title>{drawn}</g>'


def draw_timeline(timeline: Timeline, versions: Sequence[VersionFacts], days: int, t: Words) -> str:
    """Draw when each version was registered and when it was champion.

    :param timeline: every known change of the champion.
    :param versions: the versions, newest first.
    :param days: days to draw, up to the time when the model was read.
    :param t: the words.
    """
    now = timeline.until
    first = now - timedelta(days=days)
    spans = [span for span in _spans(timeline.changes, now) if span[2] > first]
    named = {version.number for version in versions if version.registered >= first} | {span[0] for span in spans}
    rows = sorted((number for number in named if number.isdigit()), key=int, reverse=True)[:MOST_ROWS]
    if not rows:
        return ""
    begins = [max(span[1], first) for span in spans if span[0] in rows]
    begins += [version.registered for version in versions if version.number in rows and version.registered >= first]
    start = min(begins) - (now - min(begins)) * 0.02  # a margin, so that the first mark is not cut
    scale = Scale(start.timestamp(), max(now.timestamp(), start.timestamp() + 1))
    at = {number: 12 + _ROW * row for row, number in enumerate(rows)}
    height = 12 + _ROW * len(rows)
    parts = [_axis(scale, start, now, height, t)]
    parts += [
        f'<text class="ink" x="{_LEFT - 10:g}" y="{y + 12:g}" text-anchor="end">v{number}</text>'
        for number, y in at.items()
    ]
    parts += [_span(span, at[span[0]], scale, t) for span in spans if span[0] in at]
    parts += [
        _registered(version, at[version.number], scale, t)
        for version in versions
        if version.number in at and version.registered >= first
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {height + 26:g}" role="group" aria-label="{t("Versions over time")}">'
        f"{''.join(parts)}</svg>"
    )


def _spans(changes: Sequence[Change], now: datetime) -> Iterable[tuple[str, datetime, datetime, Change]]:
    """Yield which version was champion from when to when."""
    for change, end in pairwise([*((each, each.latest) for each in changes), (None, now)]):
        made, begin = change
        if made is not None and made.after is not None:
            yield made.after, begin, end[1], made


def _x(scale: Scale, time: datetime) -> float:
    return _LEFT + scale.share(time.timestamp()) * (_WIDTH - _LEFT - 14)


def _axis(scale: Scale, start: datetime, now: datetime, height: float, t: Words) -> str:
    parts = []
    whole_days = now - start > timedelta(days=3)
    for quarter in range(4):
        time = start + (now - start) * quarter / 4
        x = _x(scale, time)
        said = t.date(time) if whole_days else t.time(time)
        anchor = "start" if quarter == 0 else "middle"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height:g}" stroke="var(--line)"/>')
        parts.append(f'<text x="{x:.1f}" y="{height + 18:g}" text-anchor="{anchor}">{escape(said)}</text>')
    end = _x(scale, now)
    parts.append(f'<line x1="{end:.1f}" x2="{end:.1f}" y1="4" y2="{height:g}" stroke="var(--ink)" stroke-width="1.5"/>')
    parts.append(f'<text x="{end:.1f}" y="{height + 18:g}" text-anchor="end">{t("now")}</text>')
    return "".join(parts)


def _span(span: tuple[str, datetime, datetime, Change], y: float, scale: Scale, t: Words) -> str:
    number, begin, end, change = span
    left, right = _x(scale, begin), _x(scale, end)
    width = max(right - left, 3.0)
    outside = change.move is None
    text = "version {version} champion from {begin} to {end}"
    said = t(text, version=number, begin=t.time(begin), end=t.time(end))
    if outside:
        said = f"{said}, {t('moved outside airflow-mcp')}"
    look = (
        'fill="none" stroke="var(--broken)" stroke-width="1.5" stroke-dasharray="4 3"'
        if outside
        else 'fill="var(--brand)"'
    )
    drawn = f'<rect x="{left:.1f}" y="{y + 2:g}" width="{width:.1f}" height="13" rx="2.5" {look}/>'
    if change.move is not None and change.move.action == "rollback":
        drawn += (
            f'<path d="M{left - 3:.1f} {y + 3:g}l-8 5.5 8 5.5z" fill="var(--bad)"/>'
            f'<text x="{left + 6:.1f}" y="{y - 2:g}" class="halo">{t("rolled back to it")}</text>'
        )
    return mark(said, drawn)


def _registered(version: VersionFacts, y: float, scale: Scale, t: Words) -> str:
    x = _x(scale, version.registered)
    said = t("version {version} registered {time}", version=version.number, time=t.time(version.registered))
    drawn = (
        f'<circle cx="{x:.1f}" cy="{y + 8.5:g}" r="4.5" fill="var(--page)" stroke="var(--ink)" stroke-width="1.6"/>'
        if not version.unusable and version.gate != "failed"
        else f'<path d="M{x - 4.5:.1f} {y + 4:g}l9 9m0-9l-9 9" stroke="var(--bad)" stroke-width="2.2"/>'
    )
    return mark(said, drawn)


def draw_drift(checks: Sequence[DriftCheck], limit: float | None, t: Words) -> str:
    """Draw the share of drifted columns of each drift check, with the limit of the latest.

    :param checks: oldest first.
    :param limit: share from which on the data counts as drifted; None when it is not known.
    :param t: the words.
    """
    if not checks:
        return ""
    shares = [check.share for check in checks if check.share is not None]
    top = min(1.0, max([*shares, (limit or 0.0) * 1.35, 0.1]) * 1.1)
    scale = Scale(0.0, top)
    step = (_SHARE_WIDTH - _SHARE_LEFT - 8) / len(checks)
    parts = []
    for tick in scale.ticks(3):
        y = _SHARE_BASE - scale.share(tick) * (_SHARE_BASE - 12)
        parts.append(
            f'<line x1="{_SHARE_LEFT:g}" x2="{_SHARE_WIDTH:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        )
        parts.append(f'<text x="{_SHARE_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    every = max(1, -(-len(checks) // 7))  # at most seven dates fit below each other
    for number, check in enumerate(checks):
        x = _SHARE_LEFT + 4 + number * step
        parts.append(_bar(check, x, min(step - 5, 44), scale, t))
        if number % every == 0:
            middle = x + min(step - 5, 44) / 2
            parts.append(
                f'<text x="{middle:.1f}" y="{_SHARE_BASE + 18:g}" text-anchor="middle">{t.date(check.at)}</text>'
            )
    if limit is not None:
        y = _SHARE_BASE - scale.share(limit) * (_SHARE_BASE - 12)
        parts.append(
            f'<line x1="{_SHARE_LEFT:g}" x2="{_SHARE_WIDTH:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--bad)" '
            f'stroke-width="1.5" stroke-dasharray="5 3"/><text x="{_SHARE_WIDTH:g}" y="{y - 5:.1f}" '
            f'text-anchor="end" class="halo">{t("limit {limit}", limit=f"{limit:.0%}")}</text>'
        )
    label = t("Share of drifted columns per check")
    return (
        f'<svg class="short" viewBox="0 0 {_SHARE_WIDTH:g} {_SHARE_HEIGHT:g}" role="group" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _bar(check: DriftCheck, x: float, width: float, scale: Scale, t: Words) -> str:
    said = describe_check(check, t)
    if check.share is None:
        drawn = f'<text class="ink" x="{x + width / 2:.1f}" y="{_SHARE_BASE - 6:g}" text-anchor="middle">?</text>'
        return mark(said, drawn)
    height = max(scale.share(check.share) * (_SHARE_BASE - 12), 2.0)
    tone = _VERDICT_TONES.get(check.verdict, "unsure")
    drawn = f'<rect x="{x:.1f}" y="{_SHARE_BASE - height:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"'
    opacity = "" if tone == "bad" else ' fill-opacity=".65"'
    return mark(said, f'{drawn} fill="var(--{tone})"{opacity}/>')


def describe_check(check: DriftCheck, t: Words) -> str:
    """Return one drift check as a sentence, as HTML."""
    share = t("not measured") if check.share is None else f"{check.share:.0%}"
    verdict = t(verdict_word(check.verdict))
    text = "{time}, data {window}"
    return f"{t(text, time=t.time(check.at), window=check.window or '?')}: {verdict}, {share}"


def verdict_word(verdict: str) -> str:
    """Return the verdict of a drift check as people read it, a text of the catalogue."""
    return {"drifted": "drifted", "not_drifted": "not drifted"}.get(verdict, "inconclusive")


def draw_sparkline(checks: Sequence[DriftCheck], t: Words) -> str:
    """Draw the latest drift checks as a small line: the dot at its end has the tone of the last verdict.

    :param checks: oldest first.
    :param t: the words.
    """
    return _sparkline(tuple(checks), t.language)


# Checks are some hours apart, and a list that is open asks for 50 of these lines every ten seconds.
@lru_cache(maxsize=4096)
def _sparkline(checks: tuple[DriftCheck, ...], language: Language) -> str:
    t = Words(language)
    known = [check for check in checks if check.share is not None]
    if not known:
        return ""
    step = 112 / max(len(known) - 1, 1)
    points = [(4 + step * number, 22 - 18 * min(check.share or 0.0, 1.0)) for number, check in enumerate(known)]
    tone = _VERDICT_TONES.get(known[-1].verdict, "unsure")
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    said = t("{n} checks, the last one", n=len(known)) + f" {describe_check(known[-1], t)}"
    return (
        f'<svg class="spark" width="124" height="26" viewBox="0 0 124 26" role="img" aria-label="{said}">'
        f'<polyline points="{line}" fill="none" stroke="var(--dim)" stroke-width="1.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="var(--{tone})"/></svg>'
    )


def draw_weights(stable: str, canary: str, weight: float, t: Words) -> str:
    """Draw how the traffic is split.

    :param stable: the champion's version.
    :param canary: the version that is rolled out.
    :param weight: percent of the requests that the canary answers.
    :param t: the words.
    """
    text = "{rest} % of the traffic goes to version {stable}, {weight} % to version {canary}"
    said = t(text, rest=f"{100 - weight:g}", stable=stable, weight=f"{weight:g}", canary=canary)
    return (
        f'<svg class="weights" width="100%" height="30" role="img" aria-label="{said}">'
        f'<rect width="{100 - weight:g}%" height="30" fill="var(--brand)" fill-opacity=".25"/>'
        f'<rect x="{100 - weight:g}%" width="{weight:g}%" height="30" fill="var(--wait)" fill-opacity=".5"/>'
        f'<text class="ink" x="10" y="19">v{escape(stable)} {100 - weight:g} %</text>'
        f'<text class="ink" x="99%" y="19" text-anchor="end">v{escape(canary)} {weight:g} %</text></svg>'
    )
