"""The cards of a model's page, one function each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from airflow_mcp.core.approvals.cycle import STEPS, Cycle
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.html.drawing import NOTHING, Strip, draw_strip, scale_over
from airflow_mcp.core.panel.actions import KINDS, ActionName
from airflow_mcp.core.panel.charts import draw_drift, draw_timeline, draw_weights, verdict_word
from airflow_mcp.core.panel.facts import MOST_CYCLES, ModelFacts, RolloutFacts, VersionFacts, moment
from airflow_mcp.core.panel.pages.layout import Frame, card, facts_list, gate_tick, pill, scrolled, table, tick
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.panel.rollout_chart import draw_rollout, rollout_rows
from airflow_mcp.core.panel.state import Tone
from airflow_mcp.core.registry.history import Change
from airflow_mcp.core.rollout.state import Journal

SPANS = (7, 30, 365)
"""Days that the timeline can show."""
MOST_RULES = 12
"""Rules of a gate that the card shows; the full report has all of them."""
_MOST_LINES = 6
"""Lines of what happened, newest first, on a card."""
_MOST_LOOKS = 20
"""Looks at the model servers in the table of a rollout, newest first."""
CHANGE_WORDS: Mapping[str, str] = {
    "promote": "promoted",
    "rollback": "rolled back",
    "migrate": "taken over from stages",
    "": "moved",
}
RETRAIN_WORDS: Mapping[str, tuple[Tone, str]] = {
    "retrain": ("wait", "training asked for"),
    "not_now": ("unsure", "needed, but not now"),
    "not_needed": ("good", "not needed"),
    "inconclusive": ("unsure", "inconclusive"),
    "": ("none", "not decided"),
}
"""By the verdict of the last decision; empty: there is none."""
DRIFT_TONES: Mapping[str, Tone] = {"drifted": "bad", "not_drifted": "good"}
CYCLE_WORDS: Mapping[str, str] = {
    "training": "training began",
    "trained": "trained",
    "registered": "registered",
    "requested": "approval asked for",
    "approved": "approved",
    "promoted": "promoted",
    "serving": "serving",
}
"""By the step of a release, in the order of :data:`~airflow_mcp.core.approvals.cycle.STEPS`."""
_SHORT = 24
"""Characters of a hash."""


def button(frame: Frame, facts: ModelFacts, action: ActionName, text: str, refusals: Mapping[str, Refusal]) -> str:
    """Return the way to the page of an action; when it is not possible, a disabled button with the reason.

    :param frame: the frame.
    :param facts: the model.
    :param action: the action.
    :param text: what the button says, a text of the catalogue.
    :param refusals: why actions are not possible, by action.
    """
    kind = "btn danger" if KINDS[action].is_dangerous else "btn"
    said = frame.t(text)
    refused = refusals.get(action)
    if refused is None:
        return f'<a class="{kind}" href="{frame.href("models", facts.name, action)}">{said}…</a>'
    why = frame.t(refused.text, **refused.values)
    return (
        f'<button class="{kind}" type="button" aria-disabled="true" title="{why}">{said}…'
        f'<span class="sr"> ({why})</span></button>'
    )


def unread(frame: Frame, facts: ModelFacts, name: str) -> str:
    """Return the note on a card whose part could not be read; empty when it was."""
    said = facts.notes.get(name, "")
    return f"<p>{tick('unsure', frame.t(said))}</p>" if said else ""


def cycles_card(frame: Frame, facts: ModelFacts) -> str:
    """Return the card that says how long the latest versions took from step to step; empty when nothing is known."""
    t = frame.t
    rows = [_cycle_row(frame, facts.name, cycle) for cycle in [*facts.cycles.values()][:MOST_CYCLES]]
    if not rows:
        return ""
    heads = (t("Version"), t("First step"), *(t(CYCLE_WORDS[step]) for step in STEPS[1:]), t("Altogether"))
    said = t("Each time counts from the step before it that is known.")
    body = table(t("How long releases took"), heads, rows) + f'<p class="small dim">{said}</p>'
    return card("cycles", t("How long releases took"), body)


def _cycle_row(frame: Frame, name: str, cycle: Cycle) -> str:
    t, stages = frame.t, cycle.stages
    first = next(step for step in STEPS if step in cycle.times)
    link = frame.href("models", name, "versions", cycle.version)
    cells = "".join(
        f'<td class="num">{escape(t.age(stages[step])) if step in stages else NOTHING}</td>' for step in STEPS[1:]
    )
    whole = NOTHING if cycle.seconds is None else escape(t.age(cycle.seconds))
    return (
        f'<tr><th scope="row"><a href="{link}">v{escape(cycle.version)}</a></th>'
        f'<td>{t(CYCLE_WORDS[first])}<div class="small dim nowrap">{frame.when(cycle.times[first])}</div></td>'
        f'{cells}<td class="num"><b>{whole}</b></td></tr>'
    )


def timeline_card(frame: Frame, facts: ModelFacts, days: int) -> str:
    """Return the card with the champions over time."""
    t = frame.t
    drawn = draw_timeline(facts.timeline, facts.versions, days, t) or f'<p class="dim">{t("Nothing in this time.")}</p>'
    links = [
        f"<strong>{t('{n} days', n=span)}</strong>"
        if span == days
        else f'<a href="{frame.href("models", facts.name, days=span)}">{t("{n} days", n=span)}</a>'
        for span in SPANS
    ]
    at = (
        f'<form class="row" action="{frame.href("models", facts.name).partition("?")[0]}"><label for="at">'
        f'{t("As of")}</label><input type="text" id="at" name="at" size="18" placeholder="2026-11-21T08:00Z" '
        f'pattern="\\d{{4}}-\\d\\d-\\d\\dT.+">{frame.language_field}<button class="btn">{t("Show")}</button></form>'
    )
    rows = [_change_row(frame, change) for change in reversed(facts.timeline.changes)]
    as_table = table(t("Changes of the champion"), (t("Time"), t("What"), t("By"), t("Why")), rows)
    same = f"<details><summary>{t('The same as a table')}</summary>{as_table}</details>"
    figure = f"<figure>{scrolled(t('Versions'), drawn)}</figure>"
    legend = f'<span class="dim small">■ {t("champion")} ○ {t("registered")} ✕ {t("cannot be used")}</span>'
    aside = f'{legend}<span class="push row small">{" ".join(links)}</span>'
    return card("timeline", t("Versions"), figure + same + at, aside, "c12")


def change_words(change: Change) -> tuple[str, str]:
    """Return what a change of the champion was: a text of the catalogue, and the versions."""
    versions = f"{change.before or 'none'} → {change.after or 'none'}"
    if change.move is None:
        return "moved outside airflow-mcp", versions
    return CHANGE_WORDS.get(change.move.action, CHANGE_WORDS[""]), versions


def _change_row(frame: Frame, change: Change) -> str:
    what, versions = change_words(change)
    move = change.move
    return (
        f'<tr><td class="nowrap">{frame.when(change.latest)}</td><td>{frame.t(what)} {escape(versions)}</td>'
        f"<td>{escape(move.by if move else '')}</td><td>{escape(move.reason if move else '')}</td></tr>"
    )


def gate_card(frame: Frame, facts: ModelFacts) -> str:
    """Return the card with the evidence of the newest gate."""
    t, report = frame.t, facts.gate
    title = t("Gate of version {version}", version=facts.gate_version) if facts.gate_version else t("Newest gate")
    missing = unread(frame, facts, "gate")
    if report is None:
        return card("gate", title, missing or f'<p class="dim">{t("No gate has judged this version.")}</p>')
    decision = report.decision.value if report.decision else report.verdict.value
    champion = t("version {version}", version=report.champion_version) if report.champion_version else t("no champion")
    text = "against {champion} on {rows} rows, {time}"
    when = moment(report.created_at)
    said = t(text, champion=champion, rows=report.rows, time=t.time(when) if when else "?")
    link = frame.href("models", facts.name, "reports", report.run_id, "gate")
    aside = (
        f'<span class="badge">{gate_tick(decision, t)}</span><span class="dim small">{said}</span>'
        f'<a class="push small" href="{link}">{t("full report")}</a>'
    )
    rows = [_rule(frame, rule) for rule in report.rules[:MOST_RULES]]
    heads = (t("Rule"), t("Verdict"), t("Candidate ● champion □"), t("Candidate"), t("Champion"))
    body = f'<p class="small">{escape(report.reason[:700])}</p>' + table(t("Rules of the gate"), heads, rows, "rules")
    if len(report.rules) > MOST_RULES:
        body += (
            f'<p class="dim small">{t("{n} more rules are in the full report", n=len(report.rules) - MOST_RULES)}</p>'
        )
    return card("gate", title, body, aside)


def _rule(frame: Frame, rule: RuleResult) -> str:
    verdict = rule.verdict.value if rule.verdict else ""
    allowed = ">" if ">" in rule.rule else "<" if "<" in rule.rule else ""
    champion = None if rule.kind == "significance" else rule.champion_value
    strip = Strip(rule.value, rule.bound, rule.low, rule.high, champion, allowed)
    drawn = draw_strip(strip, scale_over(strip.numbers), verdict or "none")
    name = escape(f"{rule.rule} [{rule.slice}]" if rule.slice else rule.rule)
    does = gate_tick(verdict, frame.t) if verdict else frame.t("does not apply")
    return (
        f'<tr><th scope="row"><code>{name}</code></th><td>{does}</td><td class="wide">{drawn}</td>'
        f'<td class="num"><b>{_number(rule.value)}</b></td><td class="num">{_number(rule.champion_value)}</td></tr>'
    )


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def drift_card(frame: Frame, facts: ModelFacts) -> str:
    """Return the card with the latest drift checks."""
    t = frame.t
    missing = unread(frame, facts, "drift")
    if not facts.checks:
        return card("drift", t("Drift"), missing or f'<p class="dim">{t("No drift check has been made.")}</p>')
    latest = facts.checks[-1]
    verdict = pill(DRIFT_TONES.get(latest.verdict, "unsure"), t(verdict_word(latest.verdict)))
    link = frame.href("models", facts.name, "reports", latest.run_id, "drift")
    aside = (
        f'{verdict}<span class="dim small">{frame.ago(latest.at)}</span>'
        f'<a class="push small" href="{link}">{t("report")}</a>'
    )
    figure = scrolled(t("Drift"), draw_drift(facts.checks, facts.drift_limit, t))
    rows = [
        f'<tr><td class="nowrap">{frame.when(check.at)}</td><td>{escape(check.window)}</td>'
        f'<td class="num">{NOTHING if check.share is None else f"{check.share:.0%}"}</td>'
        f"<td>{t(verdict_word(check.verdict))}</td></tr>"
        for check in reversed(facts.checks)
    ]
    heads = (t("Time"), t("Data version"), t("Drifted columns"), t("Verdict"))
    same = table(t("Drift checks"), heads, rows)
    worst = ", ".join(
        f"<code>{escape(name)}</code> {_number(score)} ({escape(method)}, {t('limit {limit}', limit=_number(limit))})"
        for name, method, score, limit in facts.drifted_columns
    )
    said = f'<p class="small">{t("Drifted most in the last check:")} {worst}</p>' if worst else ""
    details = f"<details><summary>{t('The same as a table')}</summary>{same}</details>"
    return card("drift", t("Drift"), f"{missing}<figure>{figure}</figure>{said}{details}", aside)


def retraining_card(frame: Frame, facts: ModelFacts, refusals: Mapping[str, Refusal]) -> str:
    """Return the card that says in words why the model is or is not retrained."""
    t, status = frame.t, facts.retraining
    train = button(frame, facts, "train", "Train now", refusals)
    if status is None:
        body = unread(frame, facts, "retraining") or f'<p class="dim">{t("Nothing decides on retraining here.")}</p>'
        return card("retraining", t("Retraining"), f'{body}<div class="row acts">{train}</div>')
    last = status["last_decision"]
    said = escape(last["explanation"]) if last else t("No decision has been made yet.")
    text = "{n} of {limit} challengers rejected in a row"
    counts = t(text, n=status["rejected_in_a_row"], limit=status["max_rejections"] or t("any number of"))
    lines = "".join(_training_line(frame, training) for training in reversed(status["trainings"][-_MOST_LINES:]))
    held = status["paused"] or status["stopped"]
    action: tuple[ActionName, str] = ("resume-retraining", "Resume") if held else ("pause-retraining", "Pause")
    paused = _paused(frame, status["paused"])
    body = (
        f'<p>{said}</p>{paused}<p class="small dim">{counts}</p><ol class="log">{lines}</ol>'
        f'<div class="row acts">{button(frame, facts, *action, refusals)}{train}</div>'
    )
    return card("retraining", t("Retraining"), body, _retraining_pill(frame, status))


def _retraining_pill(frame: Frame, status: Mapping[str, Any]) -> str:
    if status["stopped"]:
        return pill("bad", frame.t("stopped"))
    if status["paused"]:
        return pill("none", frame.t("paused"))
    verdict = (status["last_decision"] or {}).get("verdict", "")
    tone, word = RETRAIN_WORDS.get(verdict, RETRAIN_WORDS[""])
    return pill(tone, frame.t(word))


def _paused(frame: Frame, paused: Mapping[str, Any] | None) -> str:
    if not paused:
        return ""
    text = "Paused by {by}: {reason}"
    said = frame.t(text, by=paused["by"], reason=paused["reason"] or frame.t.plain("no reason given"))
    at = moment(str(paused["at"]))
    return f"<p>{tick('none', said)} {frame.when(at) if at else ''}</p>"


def _training_line(frame: Frame, training: Mapping[str, Any]) -> str:
    at = moment(str(training["at"]))
    outcome = frame.t(training["outcome"] or "in progress")
    detail = escape(": ".join(filter(None, (training["reason"], training["detail"]))))
    return f"<li>{frame.when(at) if at else ''}<div><strong>{outcome}</strong> {detail}</div></li>"


def rollout_card(frame: Frame, facts: ModelFacts, refusals: Mapping[str, Refusal]) -> str:
    """Return the card of the rollout in progress, or of the bake time after one; empty when there is none."""
    if facts.rollout is None:
        missing = unread(frame, facts, "rollout")
        return card("rollout", frame.t("Rollout"), missing) if missing else ""
    if facts.rollout.is_baking:
        return _bake_card(frame, facts, facts.rollout, refusals)
    t, document, journal = frame.t, facts.rollout.document, facts.rollout.journal
    text = "version {canary} replaces version {stable} step by step"
    about = f'<span class="dim small">{t(text, canary=document.canary, stable=document.stable)}</span>'
    parts = [draw_weights(document.stable, document.canary, document.weight, t)]
    waiting = facts.rollout.is_waiting
    parts.append(
        f"<p>{tick('none' if waiting else 'wait', t('waits for a person') if waiting else t('in progress'))}</p>"
    )
    if facts.rollout.trouble:
        parts.append(f"<p>{tick('bad', escape(facts.rollout.trouble))}</p>")
    if document.reason:
        parts.append(f'<p class="small">{escape(document.reason)}</p>')
    parts.append(_journal(frame, journal, document.canary))
    first: tuple[ActionName, str] = ("resume-rollout", "Resume") if waiting else ("pause-rollout", "Pause")
    acts = button(frame, facts, *first, refusals) + button(frame, facts, "abort-rollout", "Abort", refusals)
    parts.append(f'<div class="row acts">{acts}</div>')
    return card("rollout", t("Rollout"), "".join(parts), about)


def _bake_card(frame: Frame, facts: ModelFacts, rollout: RolloutFacts, refusals: Mapping[str, Refusal]) -> str:
    """Return the card of the time in which the new champion is watched."""
    t, document = frame.t, rollout.document
    since = t.time(document.step_since) if document.step_since else "?"
    values = {"canary": document.canary, "stable": document.stable, "time": since}
    text = "version {canary} has been the champion since {time}, and is watched"
    until = rollout.watched_until
    back = "If it breaks its rule, version {stable} becomes the champion again."
    ends = t("It is watched until {time} at least.", time=t.time(until)) if until is not None else ""
    parts = [f'<p>{tick("wait", t(text, **values))}</p><p class="small">{ends} {t(back, **values)}</p>']
    if rollout.trouble:
        parts.append(f"<p>{tick('bad', escape(rollout.trouble))}</p>")
    parts.append(_journal(frame, rollout.journal, document.canary))
    abort = button(frame, facts, "abort-rollout", "Abort", refusals)
    return card("rollout", t("Bake time"), f'{"".join(parts)}<div class="row acts">{abort}</div>')


def _journal(frame: Frame, journal: Journal | None, canary: str) -> str:
    """Return what was measured, and the latest events; empty without a journal."""
    if journal is None:
        return ""
    lines = "".join(_rollout_lines(frame, journal.events[::-1][:_MOST_LINES]))
    return f'{_measured(frame, journal, canary)}<ol class="log">{lines}</ol>'


def _measured(frame: Frame, journal: Journal, canary: str) -> str:
    """Return the chart of what was measured, and the same as a table; empty before the first look."""
    t = frame.t
    drawn = draw_rollout(journal.points, canary, t)
    if not drawn:
        return f'<p class="dim small">{t("Nothing has been measured yet.")}</p>'
    heads = (t("Time"), t("Weight"), f"v{escape(canary)}", t("Champion"))
    rows = rollout_rows(journal.points[-_MOST_LOOKS:], frame.when)
    same = table(t("failed of all answers"), heads, rows)
    return f"<figure>{drawn}</figure><details><summary>{t('The same as a table')}</summary>{same}</details>"


def _rollout_lines(frame: Frame, events: Iterable[Any]) -> Iterable[str]:
    for event in events:
        yield f"<li>{frame.when(event.at)}<div><strong>{event.weight:g} %</strong> {escape(event.reason)}</div></li>"


def provenance_card(frame: Frame, version: VersionFacts | None) -> str:
    """Return the card that says where a version comes from; empty without a version."""
    if version is None:
        return ""
    t = frame.t
    pairs = [(t(label), short_value(value)) for label, value in version.provenance.items()]
    pairs.append((t("MLflow run"), short_value(version.run_id)))
    body = facts_list(pairs) if version.provenance else f'<p class="dim">{t("Nothing is recorded about it.")}</p>'
    return card("provenance", t("Where version {version} comes from", version=version.number), body)


def short_value(value: str) -> str:
    """Return a recorded value such as a digest, shortened; the whole one shows when it is pointed at."""
    shown = value if len(value) <= _SHORT * 2 else f"{value[:_SHORT]}…"
    return f'<code title="{escape(value, quote=True)}">{escape(shown)}</code>'


def audit_card(frame: Frame, facts: ModelFacts) -> str:
    """Return the card with the trail: the audit log where it has something, else the records of moves."""
    t = frame.t
    if not facts.audit:
        missing = unread(frame, facts, "audit")
        lines = [_move_line(frame, change) for change in facts.timeline.changes[::-1][: _MOST_LINES * 2]]
        where = "records of moves in MLflow; no audit log is configured"
        if facts.audit is not None:
            where = "records of moves in MLflow; the audit log has none about this model"
        about = "" if missing else f'<span class="dim small">{t(where)}</span>'
        empty = f'<p class="dim">{t("Nothing has been moved yet.")}</p>'
        return card(
            "audit", t("Audit trail"), missing + (f'<ol class="log">{"".join(lines)}</ol>' if lines else empty), about
        )
    lines = [
        f"<li><time>{escape(line.at[:16].replace('T', ' '))}</time><div><strong>{escape(line.action)}</strong> "
        f'<span class="dim">{escape(line.by)}</span><div class="small">{escape(line.reason)}</div></div></li>'
        for line in facts.audit[: _MOST_LINES * 2]
    ]
    about = f'<span class="dim small">{t("{n} records of the audit log", n=len(facts.audit))}</span>'
    return card("audit", t("Audit trail"), f'<ol class="log">{"".join(lines)}</ol>', about)


def _move_line(frame: Frame, change: Change) -> str:
    what, versions = change_words(change)
    move = change.move
    by, reason = (escape(move.by), escape(move.reason)) if move else ("", "")
    return (
        f"<li>{frame.when(change.latest)}<div><strong>{frame.t(what)}</strong> {escape(versions)} "
        f'<span class="dim">{by}</span><div class="small">{reason}</div></div></li>'
    )
