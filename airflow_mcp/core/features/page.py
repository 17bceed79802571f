"""The report of a feature skew check as one self-contained HTML page without scripts or external requests."""

from __future__ import annotations

from html import escape

from airflow_mcp.core.features.summary import FeatureSkew, SkewSummary
from airflow_mcp.core.html.page_style import STYLE, html_page, scrolled, table_head

_TONES = {"skewed": "failed", "consistent": "passed", "inconclusive": "inconclusive"}
_COUNTS = ("equal", "stale", "skewed", "missing", "absent")


def render_skew_report(summary: SkewSummary) -> str:
    """Write the HTML report of a feature skew check.

    :param summary: result of the check.
    :return: a complete HTML document.
    """
    title = ": ".join(filter(None, ("Feature skew", summary.model_name or summary.run_id)))
    head = (
        f'<div class="verdict" style="--tone: var(--{_TONES[summary.verdict]})"><h1>{escape(title)}</h1>'
        f"<p><strong>{summary.verdict}</strong> · {summary.keys:,} keys · {len(summary.features)} features · as of "
        f"{summary.as_of:%Y-%m-%d %H:%M} UTC</p><p>{escape(summary.reason)}</p></div>"
    )
    columns = table_head("Feature", "", *((name, 1) for name in _COUNTS), ("Oldest stale value", 1), "")
    rows = "".join(map(_feature, summary.features))
    table = f"<h2>Online values against offline values</h2>{scrolled('Features', columns, rows)}"
    notes = (
        '<p class="dim">Stale: an older offline value. Skewed: no offline value of that time. Absent: in neither '
        f"store; not judged. Entities: <code>{escape(summary.entities.uri)}</code>; definitions "
        f"{escape(summary.registry_hash)}.</p>"
    )
    return html_page(title, [head, table, _examples(summary), notes], STYLE)


def _feature(found: FeatureSkew) -> str:
    numbers = "".join(f'<td class="number">{getattr(found, name):,}</td>' for name in _COUNTS)
    age = "" if found.oldest_seconds is None else f"{found.oldest_seconds / 3600:.1f} h"
    return (
        f'<tr><th scope="row"><code>{escape(found.feature)}</code></th>'
        f'<td class="badge" style="--tone: var(--{_TONES[found.verdict]})">{found.verdict}</td>{numbers}'
        f'<td class="number">{age}</td><td>{escape(found.reason)}</td></tr>'
    )


def _examples(summary: SkewSummary) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(found.feature)}</code></th><td>{escape(each.key)}</td><td>{each.state}</td>'
        f"<td>{escape(each.online)}</td><td>{escape(each.offline)}</td><td>{escape(each.offline_then)}</td>"
        f"<td>{escape(each.online_at)}</td></tr>"
        for found in summary.features
        for each in found.examples
    )
    if not rows:
        return ""
    columns = table_head("Feature", "Key", "", "Online", "Offline now", "Offline at that time", "Time online")
    return f"<h2>Examples</h2>{scrolled('Examples', columns, rows)}"
