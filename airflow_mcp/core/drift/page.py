"""The report of a drift check as one self-contained HTML page without scripts or external requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.plots import AREA, LINE, draw_distributions
from airflow_mcp.core.drift.result import ColumnResult, ColumnSide, DriftFinding, DriftResult
from airflow_mcp.core.drift.summary import DriftSummary, by_severity, name_some
from airflow_mcp.core.html.drawing import NOTHING, Strip, draw_strip, legend, scale_over, write
from airflow_mcp.core.html.page_style import STYLE, html_page, scrolled, table_head

PICTURES = 300
"""Columns with a picture, worst first. The others have numbers only: a page of 1,000 columns must stay small."""
_FINDINGS, _MAX_FINDINGS = 15, 500
"""Findings shown at once, and shown in all after unfolding."""
_MAX_REASON = 900
_TONES = {"drifted": "failed", "not_drifted": "passed", "inconclusive": "inconclusive"}
_STATES = {True: ("failed", "\N{BLACK UP-POINTING TRIANGLE} drifted"), False: ("passed", "\N{CHECK MARK} stable")}
_UNKNOWN = ("inconclusive", "? not known")
_OWN_STYLE = """
.columns th[scope="row"] { min-width: 9rem; max-width: 16rem; } .columns .picture { width: 15rem; min-width: 12rem; }
.columns td { padding-top: .5rem; } .columns .why { min-width: 9rem; font-size: .9em; }
.columns thead .number { white-space: normal; width: 5rem; } .columns thead .number:nth-child(4) { width: auto; }
.facts th { width: 11rem; }
@media (max-width: 44rem) { .columns td, .columns th { min-width: 0; } }
"""


def render_drift_report(summary: DriftSummary) -> str:
    """Write the HTML report of a drift check.

    :param summary: result of the check.
    :return: a complete HTML document.
    """
    result, title = summary.result, ": ".join(filter(None, ("Drift check", summary.model_name or summary.run_id)))
    columns = by_severity(result.columns)
    parts = [
        _verdict(result, title),
        _facts(summary),
        _findings(result.findings),
        _columns(columns),
        _outliers(result),
        _provenance(summary),
    ]
    return html_page(title, parts, STYLE + _OWN_STYLE)


def _verdict(result: DriftResult, title: str) -> str:
    reason = result.reason
    if len(reason) > _MAX_REASON:
        reason = f"{reason[:_MAX_REASON]} \N{HORIZONTAL ELLIPSIS} every column is below"
    return (
        f'<div class="verdict" style="--tone: var(--{_TONES[result.verdict]})"><h1>{escape(title)}</h1>'
        f"<p><strong>{result.verdict.replace('_', ' ')}</strong> · {result.reference_rows:,} reference rows · "
        f"{result.current_rows:,} current rows · {len(result.columns)} columns</p><p>{escape(reason)}</p></div>"
    )


def _facts(summary: DriftSummary) -> str:
    result = summary.result
    profiles = ", ".join(f"<code>{escape(uri)}</code>" for uri in summary.reference_profiles)
    rows = [
        ("Reference", _pins(result.reference, "profile of " if result.reference_is_profile else "")),
        ("Stored profile", profiles),
        ("Current", _pins(result.current, "profile of " if result.current_is_profile else "")),
        ("Precision", _precision(result)),
        ("Drifted share", _share(result)),
        ("Evidently", _evidently(summary)),
    ]
    body = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in rows if text)
    return f"<h2>What was compared</h2>{scrolled('What was compared', '', body, 'facts')}"


def _pins(pins: Sequence[DatasetPin], prefix: str) -> str:
    lines = []
    for pin in pins[:20]:
        known = " · ".join(escape(text) for text in (pin.version, pin.hash) if text)
        lines.append(f'{prefix}<code>{escape(pin.uri)}</code><br><span class="dim">{known}</span>')
    more = f'<br><span class="dim">and {len(pins) - 20} more</span>' if len(pins) > 20 else ""
    return "<br>".join(lines) + more


def _precision(result: DriftResult) -> str:
    if result.precision == "exact":
        return "exact: scores from every value"
    return "profile: scores from summaries of each column, with the stated error"


def _share(result: DriftResult) -> str:
    if result.drift_share is None:
        return "no feature could be compared"
    limit = result.policy.drift_share
    strip = Strip(result.drift_share, bound=limit, allowed="<")
    scale = scale_over((0.0, 1.0), pad=0.0)
    text = (
        f"{result.drift_share:.0%} of the {'weight of ' if result.policy.weights else ''}compared features "
        f"({result.drifted_columns_count} of {result.compared_columns_count}); the limit is {limit:.0%}"
    )
    return f"{text}{draw_strip(strip, scale, _TONES['drifted' if result.drift_share >= limit else 'not_drifted'])}"


def _evidently(summary: DriftSummary) -> str:
    sample = summary.evidently
    if sample is None:
        return ""
    if not sample.reference_rows:
        return escape(sample.note)
    what = "all rows" if sample.is_complete else "a random sample"
    note = f" {escape(sample.note)}" if sample.note else ""
    return (
        f"<code>drift/evidently.html</code> shows {what}: {sample.reference_rows:,} reference and "
        f"{sample.current_rows:,} current rows. It decides nothing.{note}"
    )


def _findings(findings: Sequence[DriftFinding]) -> str:
    if not findings:
        return ""
    ordered = sorted(findings, key=lambda item: (not item.exceeded, item.kind, item.column))
    head = table_head("Column", "Finding", ("Then", 1), ("Now", 1), ("Limit", 1), "")
    shown, folded = ordered[:_FINDINGS], ordered[_FINDINGS:_MAX_FINDINGS]
    first = scrolled("Findings about the data", head, "".join(map(_finding, shown)))
    if not folded:
        return f"<h2>Findings about the data</h2>{first}"
    rest = scrolled("Further findings", head, "".join(map(_finding, folded)))
    left_out = len(ordered) - _MAX_FINDINGS
    more = f'<p class="dim">{left_out} more are in drift/summary.json.</p>' if left_out > 0 else ""
    said = f"<details><summary>{len(folded)} further findings</summary>{rest}{more}</details>"
    return f"<h2>Findings about the data</h2>{first}{said}"


def _finding(item: DriftFinding) -> str:
    tone = "failed" if item.exceeded else "none"
    numbers = "".join(
        f'<td class="number">{_percent(number)}</td>' for number in (item.reference, item.current, item.limit)
    )
    return (
        f'<tr><th scope="row"><code>{escape(item.column) or NOTHING}</code></th>'
        f'<td class="badge" style="--tone: var(--{tone})">{item.kind.replace("_", " ")}</td>{numbers}'
        f"<td>{escape(item.message)}</td></tr>"
    )


def _columns(columns: Sequence[ColumnResult]) -> str:
    if not columns:
        return "<h2>Columns</h2><p>There was no column to compare.</p>"
    head = table_head("Column", "", "Distributions", ("Score", 1), ("Missing then, now", 1), ("Mean then, now", 1), "")
    rows = "".join(_column(column, place < PICTURES) for place, column in enumerate(columns))
    marks = legend((AREA, "reference"), (LINE, "current"))
    left_out = len(columns) - PICTURES
    note = f'<p class="dim">The last {left_out} columns have no picture.</p>' if left_out > 0 else ""
    return f"<h2>Columns, worst first</h2>{marks}{note}{scrolled('Columns', head, rows, 'columns')}"


def _column(column: ColumnResult, has_picture: bool) -> str:
    tone, state = _UNKNOWN if column.drifted is None else _STATES[column.drifted]
    picture = draw_distributions(column.column, column.histogram) if has_picture else ""
    role = f'<br><span class="dim">{column.role}</span>' if column.role != "feature" else ""
    weight = f'<br><span class="dim">weight {column.weight:.3g}</span>' if column.weight != 1.0 else ""
    both = column.reference, column.current
    return (
        f'<tr><th scope="row"><code>{escape(column.column)}</code>{role}{weight}</th>'
        f'<td class="badge" style="--tone: var(--{tone})">{state}</td><td class="picture">{picture}</td>'
        f'<td class="number">{_score(column)}</td>'
        f'<td class="number">{_then_now(_percent(_missing(side)) for side in both)}</td>'
        f'<td class="number">{_then_now(_mean(side) for side in both)}</td>'
        f'<td class="why">{escape(_why(column))}</td></tr>'
    )


def _score(column: ColumnResult) -> str:
    if not column.method:
        return NOTHING
    threshold, adjusted = write(column.threshold), column.adjusted
    sign = "&le;" if column.is_p_value else "&ge;"
    corrected = f'<br><span class="dim">corrected {write(adjusted)}</span>' if adjusted is not None else ""
    error = f'<span class="dim"> &plusmn; {column.error:.2g}</span>' if column.error else ""
    chosen = " (auto)" if column.chosen else ""
    return (
        f"{write(column.score)}{error}{corrected}<br>"
        f'<span class="dim">{escape(column.method)}{chosen}, drifts {sign} {threshold}</span>'
    )


def _why(column: ColumnResult) -> str:
    close = "so close to the threshold that the exact score could be on the other side" if column.close else ""
    return "; ".join(text for text in (column.note, close) if text)


def _missing(side: ColumnSide | None) -> float | None:
    return None if side is None or not side.rows else side.missing / side.rows


def _mean(side: ColumnSide | None) -> str:
    if side is None or side.mean is None or side.kind != "time":
        return write(side.mean) if side else NOTHING
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=side.mean):%Y-%m-%d}"
    except OverflowError:  # after the year 9999
        return write(side.mean)


def _then_now(texts: Iterable[str]) -> str:
    return "<br>".join(texts)


def _outliers(result: DriftResult) -> str:
    found = result.outliers
    if found is None:
        return ""
    names = list(dict.fromkeys(name for row in found.examples for name in row.values))
    rows = "".join(
        f'<tr><td class="number">{row.score:.3f}</td>'
        + "".join(f'<td class="number">{write(row.values.get(name))}</td>' for name in names)
        + "</tr>"
        for row in found.examples
    )
    text = (
        f"<p>{found.current_share:.2%} of {found.rows[1]:,} current rows are unlike the reference; of the reference's "
        f"own {found.rows[0]:,} rows {found.reference_share:.2%} are.</p>"
    )
    head = table_head(("Score", 1), *((name, 1) for name in names))
    table = scrolled("The most unlike rows", head, rows) if rows else ""
    return f"<h2>Rows unlike the reference</h2>{text}{table}"


def _provenance(summary: DriftSummary) -> str:
    result, policy = summary.result, summary.result.policy
    pinned = [
        f"numbers: {_method(policy.numerical_method, policy.numerical_threshold)}",
        f"categories: {_method(policy.categorical_method, policy.categorical_threshold)}",
        *([f"rules for {name_some(sorted(policy.rules))}"] if policy.rules else []),
        *([f"correction: {policy.correction}"] if policy.correction != "none" else []),
        f"at least {policy.min_rows} values of each column",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.environment.items()))
    run = f"MLflow run <code>{escape(summary.run_id)}</code> · " if summary.run_id else ""
    return (
        f"<h2>How it was judged</h2><p>{escape('; '.join(pinned))}</p>"
        f'<p class="dim">{run}{escape(result.created_at)} · {escape(versions)}</p>'
    )


def _method(name: str, threshold: float | None) -> str:
    return name if threshold is None else f"{name}, threshold {threshold:g}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"
