"""The report of a quality check as one self-contained HTML page without scripts or external requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Literal

from airflow_mcp.core.evaluation.evidence import MetricInterval
from airflow_mcp.core.html.drawing import NOTHING, Strip, draw_strip, scale_over, write
from airflow_mcp.core.html.page_style import STYLE, html_page, scrolled, table_head
from airflow_mcp.core.quality.summary import (
    LabelGroups,
    LimitResult,
    QualitySlice,
    QualitySummary,
    QualityWindow,
    TrafficWindow,
)

_TONES = {"degraded": "failed", "not_degraded": "passed", "inconclusive": "inconclusive", None: "none"}
_LIMIT_TONES = {"kept": "passed", "broken": "failed", "unknown": "inconclusive"}
_MAX_SLICES = 100
_ESTIMATED = "estimated, not measured"


def render_quality_report(summary: QualitySummary) -> str:
    """Write the HTML report of a quality check.

    :param summary: result of the check.
    :return: a complete HTML document.
    """
    title = ": ".join(filter(None, ("Quality check", summary.model_name or summary.run_id)))
    newest = summary.judged[-1]
    parts = [
        _verdict(summary, title),
        _windows(summary),
        _limits(newest),
        _labels(newest),
        _slices(newest.slices),
        _estimate(summary),
        _traffic(summary),
        _provenance(summary),
    ]
    return html_page(title, parts, STYLE)


def _verdict(summary: QualitySummary, title: str) -> str:
    newest = summary.judged[-1]
    return (
        f'<div class="verdict" style="--tone: var(--{_TONES[summary.verdict]})"><h1>{escape(title)}</h1>'
        f"<p><strong>{summary.verdict.replace('_', ' ')}</strong> · {newest.rows:,} predictions · "
        f"{newest.labelled_share:.0%} labelled · as of {summary.as_of:%Y-%m-%d %H:%M} UTC</p>"
        f"<p>{escape(summary.reason)}</p></div>"
    )


def _windows(summary: QualitySummary) -> str:
    metrics = list(dict.fromkeys(limit.metric for limit in summary.policy.limits))
    columns = table_head(
        "Window (UTC)",
        "",
        ("Predictions", 1),
        ("Labelled", 1),
        "Versions",
        *((name, 1) for name in metrics),
        "",
    )
    rows = "".join(_window(window, metrics) for window in reversed(summary.windows))
    outliers = "" if all(window.outlier_rows is None for window in summary.windows) else _OUTLIERS
    return f"<h2>Windows, newest first</h2>{scrolled('Windows', columns, rows)}{outliers}"


_OUTLIERS = (
    '<p class="dim">Rows unlike the training data have a value outside of the ranges and categories of its stored '
    "profile.</p>"
)


def _window(window: QualityWindow, metrics: Iterable[str]) -> str:
    state = "waits" if window.verdict is None else window.verdict.replace("_", " ")
    numbers = "".join(f'<td class="number">{_measured(name, window)}</td>' for name in metrics)
    versions = ", ".join(f"{escape(name)}: {rows:,}" for name, rows in window.versions.items())
    unlike = "" if window.outlier_rows is None else f"; {window.outlier_rows:,} rows are unlike the training data"
    return (
        f'<tr><th scope="row">{window.start:%Y-%m-%d %H:%M}</th>'
        f'<td class="badge" style="--tone: var(--{_TONES[window.verdict]})">{state}</td>'
        f'<td class="number">{window.rows:,}</td><td class="number">{window.labelled_share:.0%}</td>'
        f"<td>{versions or NOTHING}</td>{numbers}<td>{escape(window.reason)}{unlike}</td></tr>"
    )


def _measured(name: str, window: QualityWindow) -> str:
    return _with_interval(name, window.metrics, window.intervals)


def _with_interval(name: str, metrics: Mapping[str, float], intervals: Mapping[str, MetricInterval]) -> str:
    interval = intervals.get(name)
    text = write(metrics.get(name))
    return text if interval is None else f"{text}<br>{write(interval.low)} to {write(interval.high)}"


def _limits(window: QualityWindow) -> str:
    if not window.limits:
        return ""
    rows = "".join(map(_limit, window.limits))
    columns = table_head("Metric", "", ("Value", 1), ("Interval", 1), ("Limit", 1), "", "")
    return f"<h2>Limits in the newest judged window</h2>{scrolled('Limits', columns, rows)}"


def _limit(result: LimitResult) -> str:
    sign = "&ge;" if result.needs_at_least else "&le;"
    allowed: Literal[">", "<"] = ">" if result.needs_at_least else "<"
    strip = Strip(result.value, low=result.low, high=result.high, bound=result.bound, allowed=allowed)
    tone = _LIMIT_TONES[result.verdict]
    drawn = draw_strip(strip, scale_over((result.value, result.low, result.high, result.bound)), tone)
    return (
        f'<tr><th scope="row">{escape(result.metric)}</th>'
        f'<td class="badge" style="--tone: var(--{tone})">{result.verdict}</td>'
        f'<td class="number">{write(result.value)}</td>'
        f'<td class="number">{write(result.low)} to {write(result.high)}</td>'
        f'<td class="number">{sign} {write(result.bound)}</td><td class="strip">{drawn}</td>'
        f"<td>{escape(result.note)}</td></tr>"
    )


def _labels(window: QualityWindow) -> str:
    if not window.label_groups:
        return ""
    parts = "".join(_groups(found) for found in window.label_groups)
    return f"<h2>Which predictions have labels</h2>{parts}"


def _groups(found: LabelGroups) -> str:
    state = "labels are biased" if found.is_biased else "no bias was found"
    tested = "" if found.p_value is None else f", p-value {found.p_value:.3g}"
    rows = "".join(
        f'<tr><th scope="row">{escape(group.value)}</th><td class="number">{group.rows:,}</td>'
        f'<td class="number">{group.labelled:,}</td><td class="number">{group.labelled / group.rows:.0%}</td></tr>'
        for group in found.groups
    )
    columns = table_head(found.column, ("Predictions", 1), ("Labelled", 1), ("Share", 1))
    return (
        f"<h3>By {escape(found.column)}: {state} (largest difference {found.gap:.0%}{tested})</h3>"
        f"{scrolled(found.column, columns, rows)}"
    )


def _slices(slices: tuple[QualitySlice, ...]) -> str:
    if not slices:
        return ""
    names = list(dict.fromkeys(name for part in slices for name in part.metrics))
    rows = "".join(
        f'<tr><th scope="row">{escape(part.column)} = {escape(part.value)}</th><td class="number">{part.rows:,}</td>'
        + "".join(f'<td class="number">{_with_interval(name, part.metrics, part.intervals)}</td>' for name in names)
        + "</tr>"
        for part in slices[:_MAX_SLICES]
    )
    columns = table_head("Segment", ("Labelled", 1), *((name, 1) for name in names))
    left_out = len(slices) - _MAX_SLICES
    more = f'<p class="dim">{left_out} more are in quality/summary.json.</p>' if left_out > 0 else ""
    return f"<h2>Segments of the newest judged window</h2>{scrolled('Segments', columns, rows)}{more}"


def _estimate(summary: QualitySummary) -> str:
    basis = summary.estimate
    if not basis.is_allowed:
        return f"<h2>Estimate without labels</h2><p>Nothing was estimated: {escape(basis.reason)}.</p>"
    names = list(dict.fromkeys(name for window in summary.windows for name in window.estimated))
    rows = "".join(
        f'<tr><th scope="row">{window.start:%Y-%m-%d %H:%M}</th>'
        + "".join(
            f'<td class="number"><em>&asymp; {write(window.estimated.get(name))}</em><br>'
            f'<span class="dim">measured {write(window.metrics.get(name))}</span></td>'
            for name in names
        )
        + "</tr>"
        for window in reversed(summary.windows)
        if window.estimated
    )
    columns = table_head("Window (UTC)", *((f"{name}, {_ESTIMATED}", 1) for name in names))
    return (
        f"<h2>Estimate without labels</h2><p>These numbers are <strong>{_ESTIMATED}</strong>, from the probabilities "
        f"of all predictions. They do not count for the verdict: {escape(basis.reason)}.</p>"
        f"{scrolled('Estimate without labels', columns, rows)}"
    )


def _traffic(summary: QualitySummary) -> str:
    traffic, limits = summary.traffic, summary.policy.traffic
    share = traffic.failed / traffic.requests if traffic.requests else 0.0
    length = int(limits.window.total_seconds())
    said = (
        f"{traffic.requests:,} requests in {traffic.windows:,} windows of {length} s; {traffic.failed:,} failed "
        f"({share:.2%}); {traffic.exceeded:,} windows are beyond a limit; {traffic.refused:,} requests were refused "
        f"because of the caller. {traffic.note}"
    )
    errors = ", ".join(f"{code}: {number:,}" for code, number in traffic.errors.items())
    rows = "".join(map(_traffic_window, traffic.worst))
    columns = table_head("Window (UTC)", "", ("Requests", 1), ("Failed", 1), ("P50", 1), ("P95", 1), ("P99", 1))
    table = scrolled("The worst windows", columns, rows) if rows else ""
    return (
        f"<h2>Latency and errors</h2><p>{escape(said)}</p>{f'<p>Errors: {escape(errors)}</p>' if errors else ''}{table}"
    )


def _traffic_window(window: TrafficWindow) -> str:
    tone, state = ("failed", "exceeded") if window.exceeded else ("passed", "within limits")
    numbers = "".join(
        f'<td class="number">{"&gt; 5 s" if value is None else f"&le; {value:g} s"}</td>'
        for value in (window.p50, window.p95, window.p99)
    )
    return (
        f'<tr><th scope="row">{window.start:%Y-%m-%d %H:%M:%S}</th>'
        f'<td class="badge" style="--tone: var(--{tone})">{state}</td><td class="number">{window.requests:,}</td>'
        f'<td class="number">{window.failed:,}</td>{numbers}</tr>'
    )


def _provenance(summary: QualitySummary) -> str:
    join, policy = summary.join, summary.policy
    labels = ", ".join(f"<code>{escape(pin.uri)}</code>" for pin in summary.labels)
    rows = [
        ("Prediction log", f"<code>{escape(summary.requests)}</code>"),
        ("Labels", labels),
        ("Predictions", f"{join.predictions:,}; {join.repeated:,} repeated and {join.ambiguous:,} ambiguous left out"),
        (
            "Labels read",
            f"{join.labels:,}; {join.empty:,} empty, {join.later:,} known later and {join.conflicting:,} conflicting "
            "left out",
        ),
        ("Baseline", f"evaluation of version {escape(summary.baseline.version)}" if summary.baseline else "none"),
        (
            "Policy",
            f"windows of {policy.window}, label delay {policy.label_delay}, at least {policy.min_labelled:.0%} and "
            f"{policy.min_rows} predictions labelled, largest label gap {policy.largest_label_gap:.0%}",
        ),
    ]
    versions = ", ".join(f"{escape(name)} {escape(version)}" for name, version in sorted(summary.environment.items()))
    body = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in rows)
    return (
        f"<h2>What was judged</h2>{scrolled('What was judged', '', body, 'facts')}"
        f'<p class="dim">Made at {escape(summary.created_at)} with {versions}</p>'
    )
