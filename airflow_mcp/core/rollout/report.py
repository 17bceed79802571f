"""The report of a rollout: JSON, and one self-contained HTML page with weight and error rates over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Literal

from pydantic import AwareDatetime, Field

from airflow_mcp.core.document import Document
from airflow_mcp.core.html.drawing import Scale, legend, scale_over
from airflow_mcp.core.html.page_style import html_page
from airflow_mcp.core.rollout.analysis import AnalysisOutcome
from airflow_mcp.core.rollout.samples import Pair
from airflow_mcp.core.rollout.state import Cause, Event, Journal, Point

_WIDTH, _HEIGHT, _LEFT, _TOP = 720.0, 200.0, 46.0, 12.0
_LINES = {"weight": "--dim", "canary": "--candidate", "champion": "--champion"}


class RolloutReport(Document):
    """How a rollout went."""

    schema_: Literal["airflow_mcp/rollout_report/1"] = Field(default="airflow_mcp/rollout_report/1", alias="schema")
    model_name: str
    identity: str
    stable: str
    canary: str
    succeeded: bool
    cause: Cause
    reason: str
    started: AwareDatetime
    ended: AwareDatetime
    is_sticky: bool
    """Whether callers kept their side: requests of one caller are alike, so the bounds are then too narrow."""
    analysis: AnalysisOutcome
    """The rules at the last look."""
    counts: Pair
    """Requests since the last split came into force."""
    events: tuple[Event, ...]
    points: tuple[Point, ...]


def report_of(
    journal: Journal, analysis: AnalysisOutcome, *, succeeded: bool, cause: Cause, reason: str, now: datetime
) -> RolloutReport:
    """Return the report of a rollout that has ended.

    :param journal: what was measured.
    :param analysis: the rules at the last look.
    :param succeeded: whether the canary is champion.
    :param cause: kind of the failure; empty without one.
    :param reason: why it ended, for people.
    :param now: present time, with a time zone.
    """
    return RolloutReport(
        model_name=journal.model_name,
        identity=journal.identity,
        stable=journal.stable,
        canary=journal.canary,
        succeeded=succeeded,
        cause=cause,
        reason=reason,
        started=journal.started,
        ended=now,
        is_sticky=bool(journal.plan.sticky),
        analysis=analysis,
        counts=journal.tally.total if journal.tally is not None else Pair(),
        events=journal.events,
        points=journal.points,
    )


def render_report(report: RolloutReport) -> str:
    """Write the HTML page of a report.

    :param report: the report.
    :return: a complete HTML document.
    """
    title = f"Rollout: {report.model_name}"
    parts = [_verdict(report, title), _notes(report), _pictures(report), _rules(report.analysis), _events(report)]
    return html_page(title, parts)


def _verdict(report: RolloutReport, title: str) -> str:
    tone = "passed" if report.succeeded else "failed"
    word = "promoted" if report.succeeded else f"not promoted: {report.cause}"
    return (
        f'<div class="verdict" style="--tone: var(--{tone})"><h1>{escape(title)}</h1>'
        f"<p><strong>{escape(word)}</strong> · version {escape(report.canary)} against champion version "
        f"{escape(report.stable)}</p><p>{escape(report.reason)}</p></div>"
    )


def _notes(report: RolloutReport) -> str:
    if not report.is_sticky:
        return ""
    return (
        '<p class="warning"><strong>Sticky.</strong> Callers kept their side. Requests of one caller are alike, so the '
        "bounds below are narrower than they should be.</p>"
    )


def _pictures(report: RolloutReport) -> str:
    points = report.points
    if len(points) < 2:
        return '<h2>Over time</h2><p class="dim">There were fewer than two looks with a split in force.</p>'
    first = points[0].at
    minutes = [(point.at - first).total_seconds() / 60 for point in points]
    weights = [point.weight for point in points]
    canary = [_rate(point.canary_failed, point.canary) for point in points]
    champion = [_rate(point.champion_failed, point.champion) for point in points]
    top = max([1.0, *(rate for rate in (*canary, *champion) if rate is not None)])
    marks = [(name, f'<line x1="0" x2="16" y1="6" y2="6" stroke="var({tone})"/>') for name, tone in _LINES.items()]
    return "".join(
        (
            "<h2>Over time</h2>",
            legend(*((mark, name) for name, mark in marks)),
            _plot("Weight of the canary, percent", minutes, Scale(0, 100), {"weight": weights}),
            _plot("Errors of the model, percent", minutes, Scale(0, top), {"canary": canary, "champion": champion}),
        )
    )


def _rate(failed: float, total: float) -> float | None:
    return 100 * failed / total if total else None


def _plot(title: str, minutes: Sequence[float], scale: Scale, lines: dict[str, Sequence[float | None]]) -> str:
    """Draw lines over time; where nothing was asked, a line has a gap."""
    across = scale_over(minutes, pad=0) or Scale(0, 1)
    right, bottom = _WIDTH - 10, _HEIGHT - 24
    parts = []
    for tick in scale.ticks(4):
        y = bottom - scale.share(tick) * (bottom - _TOP)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in across.ticks(6):
        x = _LEFT + across.share(tick) * (right - _LEFT)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{tick:.3g} min</text>')
    for name, values in lines.items():
        pen, path = "M", []
        for minute, value in zip(minutes, values, strict=True):
            if value is None:
                pen = "M"
                continue
            x = _LEFT + across.share(minute) * (right - _LEFT)
            path.append(f"{pen}{x:.1f} {bottom - scale.share(value) * (bottom - _TOP):.1f}")
            pen = "L"
        parts.append(f'<path d="{" ".join(path)}" fill="none" stroke="var({_LINES[name]})" stroke-width="2"/>')
    return (
        f'<figure class="wide"><figcaption>{escape(title)}</figcaption><svg class="plot" '
        f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _rules(analysis: AnalysisOutcome) -> str:
    rows = "".join(
        f'<tr><td class="rule"><code>{escape(rule.rule)}</code></td>'
        f'<td><span class="badge" style="--tone: var(--{rule.verdict})">{rule.verdict}</span></td>'
        f'<td class="why">{escape(rule.reason)}</td></tr>'
        for rule in analysis.rules
    )
    head = '<th scope="col">Rule</th><th scope="col">Verdict</th><th scope="col">What was counted</th>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return f"<h2>Rules at the last look</h2><p>{escape(analysis.reason)}</p>{table}"


def _events(report: RolloutReport) -> str:
    rows = "".join(
        f"<tr><td>{event.at:%Y-%m-%d %H:%M:%S}</td><td>{escape(event.phase)}</td>"
        f'<td class="number">{event.weight:g} %</td><td class="number">{event.generation}</td>'
        f"<td>{escape(event.reason)}</td></tr>"
        for event in report.events
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Time (UTC)", "Phase", "Weight", "Generation", "Why"))
    return (
        f'<h2>What happened</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><p class="dim">Rollout {escape(report.identity)}, {report.started:%Y-%m-%d %H:%M:%S} to '
        f"{report.ended:%Y-%m-%d %H:%M:%S} UTC</p>"
    )
