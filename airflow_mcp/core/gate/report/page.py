"""The gate report as one self-contained HTML page without scripts or external requests."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence, SliceEvidence
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.report.model_plots import Mark, Series, draw_calibration, draw_confusions, draw_histograms
from airflow_mcp.core.gate.report.replay_plots import render_replay
from airflow_mcp.core.gate.report.rule_tables import render_rules
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.verdicts import Decision, Verdict
from airflow_mcp.core.html.drawing import NOTHING
from airflow_mcp.core.html.page_style import html_page

_MAX_REASON = 700
_NARROW_MATRIX = 8
"""Largest number of classes with which two confusion matrices fit beside each other."""


def render_gate_report(
    report: GateReport, evidence: EvaluationEvidence | None, replay: ReplayEvidence | None = None
) -> str:
    """Write the HTML report of a gate.

    :param report: decision of the gate.
    :param evidence: the evidence behind it; None when the evidence could not be read.
    :param replay: result of a replay of logged requests; None without one, or when the gate does not judge it.
    :return: a complete HTML document.
    """
    title = f"Evaluation gate: {report.model_name}"
    parts = [
        _verdict(report, title),
        _mode(report),
        _self_reported(report),
        render_rules(_with_intervals(report.rules, evidence)),
    ]
    if evidence is not None:
        parts += [_metrics(evidence), _plots(evidence, report.rules), _slices(evidence.slices)]
    if replay is not None:
        parts.append(render_replay(replay, next((rule.bound for rule in report.rules if rule.kind == "replay"), None)))
    parts.append(_provenance(report, evidence))
    return html_page(title, parts)


def _verdict(report: GateReport, title: str) -> str:
    return (
        f'<div class="verdict" style="--tone: var(--{report.verdict})"><h1>{escape(title)}</h1>'
        f"<p><strong>{report.verdict}</strong> · {escape(_compared(report))}</p>"
        f"<p>{escape(_shortened(report.reason))}</p></div>"
    )


def _shortened(reason: str) -> str:
    """Shorten a reason that names many rules: the table below has one row per rule."""
    return (
        reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} \N{HORIZONTAL ELLIPSIS} every rule is below"
    )


def _mode(report: GateReport) -> str:
    """Return a note on the mode, when the decision differs from the verdict."""
    if report.dry_run:
        return (
            '<p class="warning"><strong>Dry run.</strong> This verdict neither stops the Dag nor allows a '
            "registration.</p>"
        )
    if report.decision is Decision.WARNED:
        return (
            '<p class="warning"><strong>Warned.</strong> The candidate is accepted although not every rule is met, '
            "because the gate or the rule only warns.</p>"
        )
    return ""


def _self_reported(report: GateReport) -> str:
    if not report.self_reported:
        return ""
    return (
        '<p class="warning"><strong>Self-reported.</strong> The training script logged these metrics itself. Nobody '
        "measured them again on data that the model has not seen; only latency was measured here.</p>"
    )


def _compared(report: GateReport) -> str:
    if report.self_reported:
        return "self-reported metrics · not compared with a champion"
    if report.verdict is Verdict.ERROR:
        return "nothing was compared"
    champion = f"champion version {report.champion_version}" if report.champion_version else "no champion (first model)"
    return f"{report.rows} rows · compared with {champion}"


def _with_intervals(rules: Sequence[RuleResult], evidence: EvaluationEvidence | None) -> list[RuleResult]:
    """Return how certain the metrics of thresholds are; the verdict does not depend on it."""
    shown = []
    for rule in rules:
        found = _limits(evidence.candidate, rule.metric) if evidence and rule.kind == "threshold" else None
        shown.append(rule.model_copy(update={"low": found[0], "high": found[1]}) if found else rule)
    return shown


def _limits(model: ModelEvidence, name: str) -> tuple[float | None, float | None] | None:
    """Return the interval of a metric; one end may be unknown for a percentile."""
    of_metric = model.intervals.get(name)
    if of_metric is not None:
        return of_metric.low, of_metric.high
    of_latency = model.latency.intervals.get(name) if model.latency else None
    return None if of_latency is None else (of_latency.low, of_latency.high)


def _metrics(evidence: EvaluationEvidence) -> str:
    candidate, champion = evidence.candidate, evidence.champion
    names = sorted({*candidate.metrics, *candidate.undefined, *(champion.metrics if champion else ())})
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td class="number">{_measured(candidate, name)}</td>'
        f'<td class="number">{_interval(candidate, name)}</td><td class="number">{_measured(champion, name)}</td>'
        f'<td class="number">{_difference(candidate, champion, name)}</td></tr>'
        for name in names
    )
    head = _head("Metric", "Candidate", "95 % interval", "Champion", "Difference")
    heading = "Metrics of the training script" if evidence.self_reported else "Metrics on the same rows"
    return f"<h2>{heading}</h2>{_scrolled(heading, head, rows)}"


def _plots(evidence: EvaluationEvidence, rules: Sequence[RuleResult]) -> str:
    """Draw the plots of an evaluation; older evidence has no data for them."""
    candidate, champion = evidence.candidate, evidence.champion
    models = [("candidate", candidate), *([("champion", champion)] if champion else [])]
    plots = []
    if candidate.calibration:
        plots.append(draw_calibration(candidate.calibration, champion.calibration if champion else None))
    residuals = [Series(name, model.residuals) for name, model in models if model.residuals]
    if residuals:
        plots.append(draw_histograms("Residuals: label minus prediction", "in its units", residuals, [Mark(0.0, "")]))
    probes = [Series(name, model.latency.histogram) for name, model in models if model.latency]
    if probes:
        calls = candidate.latency.calls if candidate.latency else 0
        title = f"Latency of {calls} single-row calls"
        plots.append(draw_histograms(title, "milliseconds", probes, _latency_marks(candidate, rules)))
    matrices = [(name, model.confusion) for name, model in models if model.confusion]
    tables = "".join(draw_confusions(name, matrix) for name, matrix in matrices)
    if all(len(matrix.labels) <= _NARROW_MATRIX for _, matrix in matrices):
        tables = f'<div class="plots">{tables}</div>' if tables else ""
    drawn = f'<div class="plots">{"".join(plots)}</div>' if plots else ""
    return f"<h2>A closer look</h2>{drawn}{tables}" if drawn or tables else ""


def _latency_marks(candidate: ModelEvidence, rules: Sequence[RuleResult]) -> list[Mark]:
    """Return marks for the candidate's percentiles and for the limits of rules; of several limits the lowest."""
    marks = [
        Mark(candidate.metrics[name], "")
        for name in ("latency_ms_p50", "latency_ms_p95", "latency_ms_p99")
        if name in candidate.metrics
    ]
    limits = [rule for rule in rules if rule.metric.startswith("latency_ms") and rule.bound is not None]
    lowest = min((rule.bound for rule in limits if rule.bound is not None), default=None)
    named = next((rule.rule for rule in limits if rule.bound == lowest), "")
    return [*marks, *([Mark(lowest, f"limit: {named}", is_limit=True)] if lowest is not None else [])]


def _slices(slices: tuple[SliceEvidence, ...]) -> str:
    if not slices:
        return ""
    names = sorted({name for item in slices for name in item.candidate})
    head = '<th scope="col">Slice</th><th scope="col" class="number">Rows</th>' + "".join(
        f'<th scope="col" class="number">{escape(name)}<br><span class="dim">candidate / champion</span></th>'
        for name in names
    )
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(item.column)} = {escape(item.value)}</code></th>'
        f'<td class="number">{item.rows}</td>'
        + "".join(
            f'<td class="number">{_number(item.candidate.get(name))} / {_number((item.champion or {}).get(name))}</td>'
            for name in names
        )
        + "</tr>"
        for item in slices
    )
    return f"<h2>Slices</h2>{_scrolled('Slices', head, rows)}"


def _provenance(report: GateReport, evidence: EvaluationEvidence | None) -> str:
    facts = {"MLflow run": report.run_id, "Judged at": report.created_at}
    if report.dataset is not None:
        facts |= {"Data": report.dataset.uri, "Data version": report.dataset.version, "Data hash": report.dataset.hash}
    if evidence is not None:
        facts |= {
            "Candidate": evidence.candidate.model_uri,
            "Champion": evidence.champion.model_uri if evidence.champion else "none",
            "Evaluated at": evidence.created_at,
            "Measured with": ", ".join(f"{name} {version}" for name, version in sorted(evidence.environment.items())),
        }
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><code>{escape(value)}</code></td></tr>'
        for name, value in facts.items()
        if value
    )
    return f"<h2>Provenance</h2><table><tbody>{rows}</tbody></table>"


def _measured(model: ModelEvidence | None, name: str) -> str:
    if model is None:
        return NOTHING
    if name in model.undefined:
        return f'<span class="dim">undefined: {escape(model.undefined[name])}</span>'
    return _number(model.metrics.get(name))


def _difference(candidate: ModelEvidence, champion: ModelEvidence | None, name: str) -> str:
    if champion is None or name not in candidate.metrics or name not in champion.metrics:
        return NOTHING
    return f"{candidate.metrics[name] - champion.metrics[name]:+.4g}"


def _interval(model: ModelEvidence, name: str) -> str:
    """Return the interval of a metric as text, with a question mark for an unknown end."""
    found = _limits(model, name)
    if found is None:
        return NOTHING
    return " to ".join("?" if end is None else _number(end) for end in found)


def _head(first: str, *numbers: str) -> str:
    return f'<th scope="col">{first}</th>' + "".join(f'<th scope="col" class="number">{name}</th>' for name in numbers)


def _scrolled(name: str, head: str, rows: str) -> str:
    """Return a wide table in a region that scrolls, also by keyboard."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.6g}"
