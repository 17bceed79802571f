"""The gate report as one self-contained HTML page: no script, no request to anywhere."""

from __future__ import annotations

from html import escape

from airflow_mcp.core.evidence import EvaluationEvidence, ModelEvidence, SliceEvidence
from airflow_mcp.core.gates import GateReport
from airflow_mcp.core.rule_result import RuleResult
from airflow_mcp.core.thresholds import write_compared
from airflow_mcp.core.verdicts import Verdict

_NOTHING = "&ndash;"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5f6b7a; --line: #d9dee5; --page: #fff; --card: #f6f8fa;
  --passed: #1a7f4b; --failed: #c0392b; --inconclusive: #9a6700; --error: #7a3ea8; --none: #5f6b7a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa7b4; --line: #30363d; --page: #0d1117;
  --card: #161b22; --passed: #3fb950; --failed: #f85149; --inconclusive: #d29922; --error: #bc8cff; --none: #9aa7b4; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .5rem solid var(--tone); background: var(--card); padding: 1rem 1.25rem; border-radius: .4rem; }
.verdict strong { color: var(--tone); text-transform: uppercase; letter-spacing: .04em; }
.verdict p { margin: .4rem 0 0; }
.warning { border: 2px solid var(--inconclusive); padding: .75rem 1.25rem; border-radius: .4rem; margin: 1rem 0 0; }
.warning strong { color: var(--inconclusive); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; font-size: .85rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { white-space: nowrap; } td.why { min-width: 14rem; }
.badge { color: var(--tone); font-weight: 600; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
svg { display: block; margin-top: .2rem; }
"""


def render_gate_report(report: GateReport, evidence: EvaluationEvidence | None) -> str:
    """Write the report of a gate for people.

    :param report: what the gate decided.
    :param evidence: what it decided from; None when the evidence could not be read.
    :return: a complete HTML document.
    """
    title = f"Evaluation gate: {report.model_name}"
    parts = [_verdict(report, title), _self_reported(report), _rules(report.rules)]
    if evidence is not None:
        parts += [_metrics(evidence), _slices(evidence.slices)]
    parts.append(_provenance(report, evidence))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


def _verdict(report: GateReport, title: str) -> str:
    return (
        f'<div class="verdict" style="--tone: var(--{report.verdict})"><h1>{escape(title)}</h1>'
        f"<p><strong>{report.verdict}</strong> · {escape(_compared(report))}</p>"
        f"<p>{escape(report.reason)}</p></div>"
    )


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


def _rules(rules: tuple[RuleResult, ...]) -> str:
    if not rules:
        return ""
    rows = "".join(
        f"<tr>{_rule_name(rule)}"
        f'<td class="badge" style="--tone: var(--{rule.verdict or "none"})">{rule.verdict or "does not apply"}</td>'
        f'<td class="number">{_number(rule.value, rule.bound)}</td>'
        f'<td class="number">{_number(rule.bound, rule.value)}</td>'
        f'<td class="number">{_number(rule.champion_value)}</td><td>{_bar(rule)}</td>'
        f'<td class="dim why">{escape(rule.reason)}</td></tr>'
        for rule in rules
    )
    head = (
        '<th>Rule</th><th>Verdict</th><th class="number">Candidate</th><th class="number">Bound</th>'
        '<th class="number">Champion</th><th>Against bound</th><th>Why</th>'
    )
    return f'<h2>Rules</h2><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _rule_name(rule: RuleResult) -> str:
    """Write the rule; long ones, of significance and slices, may break over lines."""
    if rule.kind == "threshold":
        return f'<td class="name"><code>{escape(rule.rule)}</code></td>'
    where = f"<br><code>{escape(rule.slice)}</code>" if rule.slice else ""
    return f"<td>{escape(rule.rule)}{where}</td>"


def _bar(rule: RuleResult) -> str:
    """Draw value and bound on one scale from zero; nothing when one of them is missing or negative."""
    if rule.value is None or rule.bound is None or min(rule.value, rule.bound) < 0:
        return ""
    top = max(rule.value, rule.bound) * 1.1 or 1.0
    value, bound = 140 * rule.value / top, 140 * rule.bound / top
    label = f"candidate {rule.value:.6g}, bound {rule.bound:.6g}"
    return (
        f'<svg width="140" height="16" role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f'<rect y="4" width="140" height="8" fill="var(--line)" rx="2"/>'
        f'<rect y="4" width="{value:.1f}" height="8" fill="var(--{rule.verdict or "none"})" rx="2"/>'
        f'<line x1="{bound:.1f}" x2="{bound:.1f}" y1="0" y2="16" stroke="var(--ink)" stroke-width="2"/></svg>'
    )


def _metrics(evidence: EvaluationEvidence) -> str:
    candidate, champion = evidence.candidate, evidence.champion
    names = sorted({*candidate.metrics, *candidate.undefined, *(champion.metrics if champion else ())})
    rows = "".join(
        f'<tr><td class="name"><code>{escape(name)}</code></td><td class="number">{_measured(candidate, name)}</td>'
        f'<td class="number">{_measured(champion, name)}</td>'
        f'<td class="number">{_difference(candidate, champion, name)}</td></tr>'
        for name in names
    )
    head = (
        '<th>Metric</th><th class="number">Candidate</th><th class="number">Champion</th>'
        '<th class="number">Difference</th>'
    )
    heading = "Metrics of the training script" if evidence.self_reported else "Metrics on the same rows"
    return f'<h2>{heading}</h2><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _slices(slices: tuple[SliceEvidence, ...]) -> str:
    if not slices:
        return ""
    names = sorted({name for item in slices for name in item.candidate})
    head = '<th>Slice</th><th class="number">Rows</th>' + "".join(
        f'<th class="number">{escape(name)}<br><span class="dim">candidate / champion</span></th>' for name in names
    )
    rows = "".join(
        f'<tr><td class="name"><code>{escape(item.column)} = {escape(item.value)}</code></td>'
        f'<td class="number">{item.rows}</td>'
        + "".join(
            f'<td class="number">{_number(item.candidate.get(name))} / {_number((item.champion or {}).get(name))}</td>'
            for name in names
        )
        + "</tr>"
        for item in slices
    )
    return f'<h2>Slices</h2><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


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
        f"<tr><th>{escape(name)}</th><td><code>{escape(value)}</code></td></tr>"
        for name, value in facts.items()
        if value
    )
    return f'<h2>Provenance</h2><div class="scroll"><table>{rows}</table></div>'


def _measured(model: ModelEvidence | None, name: str) -> str:
    if model is None:
        return _NOTHING
    if name in model.undefined:
        return f'<span class="dim">undefined: {escape(model.undefined[name])}</span>'
    return _number(model.metrics.get(name))


def _difference(candidate: ModelEvidence, champion: ModelEvidence | None, name: str) -> str:
    if champion is None or name not in candidate.metrics or name not in champion.metrics:
        return _NOTHING
    return f"{candidate.metrics[name] - champion.metrics[name]:+.4g}"


def _number(value: float | None, beside: float | None = None) -> str:
    if value is None:
        return _NOTHING
    return write_compared(value, value if beside is None else beside)
