"""The rules of a gate as tables: one row per rule, with the measured value drawn next to its bound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.thresholds import write_compared
from airflow_mcp.core.gate.rules.verdicts import Verdict, combine
from airflow_mcp.core.html.drawing import (
    ALLOWED,
    BOUND,
    DASHES,
    DOT,
    INTERVAL,
    NOTHING,
    SQUARE,
    Scale,
    Strip,
    draw_strip,
    legend,
    scale_over,
    write,
)

_SYMBOLS = {
    Verdict.PASSED: "\N{CHECK MARK}",
    Verdict.FAILED: "\N{MULTIPLICATION X}",
    Verdict.INCONCLUSIVE: "?",
    Verdict.ERROR: "!",
}
_TITLES = {
    "threshold": "Against thresholds",
    "significance": "Against the champion, for certain",
    "slice_floor": "In every slice",
    "slice_gap": "Between slices",
    "replay": "On logged requests",
    "replay_segment": "On logged requests, in every segment",
}
_COMPARISON = re.compile(r"(>|<)=? ")


def render_rules(rules: Sequence[RuleResult]) -> str:
    """Return the tables of all rules, grouped by kind in the order of the report.

    :param rules: results of the rules.
    """
    if not rules:
        return ""
    kinds = dict.fromkeys(rule.kind for rule in rules)
    parts = [_kind(kind, [rule for rule in rules if rule.kind == kind]) for kind in kinds]
    return "<h2>Rules</h2>" + "".join(parts)


def badge(verdict: Verdict | None) -> str:
    """Return a verdict as a word with a sign and a colour."""
    if verdict is None:
        return '<span class="badge" style="--tone: var(--none)">does not apply</span>'
    sign = f'<span aria-hidden="true">{_SYMBOLS[verdict]}</span>'
    return f'<span class="badge" style="--tone: var(--{verdict})">{sign} {verdict}</span>'


def _kind(kind: str, rules: list[RuleResult]) -> str:
    title = f"<h3>{escape(_TITLES.get(kind, kind.replace('_', ' ').capitalize()))}</h3>"
    if kind in ("slice_floor", "replay_segment"):
        groups = groupby(rules, key=lambda rule: (rule.rule, rule.slice.partition("=")[0]))
        return title + _legend(rules) + "".join(_slices(list(group)) for _, group in groups)
    body = "".join(_line(rule, scale_over(_strip(rule).numbers + _zero(rule)), name=_name(rule)) for rule in rules)
    return title + _legend(rules) + _table(body, "Rule", "Against bound", rules)


def _slices(rules: list[RuleResult]) -> str:
    """Return the table of one floor in all slices of a column, on a common scale for comparison by eye."""
    scale = scale_over(number for rule in rules for number in _strip(rule).numbers)
    verdict = combine(rule.verdict for rule in rules if rule.verdict is not None)
    held = sum(rule.verdict is Verdict.PASSED for rule in rules)
    caption = f"<p>{escape(rules[0].rule)}: {badge(verdict)}, certain in {held} of {len(rules)} slices</p>"
    body = "".join(_line(rule, scale, name=f"<code>{escape(rule.slice)}</code>") for rule in rules)
    ends = (
        "" if scale is None else f'<span class="ends"><span>{write(scale.low)}</span><span>{write(scale.high)}</span>'
    )
    head = f"On one scale{ends}</span>" if ends else "On one scale"
    return caption + _table(body, "Slice", head, rules)


def _table(body: str, first: str, drawn: str, rules: Iterable[RuleResult]) -> str:
    champion = '<th scope="col" class="number">Champion</th>' if _has_champion(rules) else ""
    head = (
        f'<th scope="col">{first}</th><th scope="col">Verdict</th><th scope="col" class="strip">{drawn}</th>'
        f'<th scope="col" class="number">Candidate</th><th scope="col" class="number">Bound</th>{champion}'
        '<th scope="col">Why</th>'
    )
    if not champion:
        body = body.replace(_NO_CHAMPION, "")
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Rules"><table class="rules">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_NO_CHAMPION = f'<td class="number" data-label="Champion">{NOTHING}</td>'


def _line(rule: RuleResult, scale: Scale | None, *, name: str) -> str:
    strip = draw_strip(_strip(rule), scale, rule.verdict or "none", zero=rule.kind == "significance")
    interval = ""
    if rule.low is not None or rule.high is not None:
        ends = ("?" if end is None else write(end) for end in (rule.low, rule.high))
        interval = f'<br><span class="dim">{" to ".join(ends)}</span>'
    champion = NOTHING if rule.champion_value is None else f"{rule.champion_value:.6g}"
    return (
        f'<tr><th scope="row" class="rule">{name}</th><td data-label="Verdict">{badge(rule.verdict)}</td>'
        f'<td class="strip">{strip}</td>'
        f'<td class="number" data-label="Candidate"><span>{_number(rule.value, rule.bound)}{interval}</span></td>'
        f'<td class="number" data-label="Bound">{_number(rule.bound, rule.value)}</td>'
        f'<td class="number" data-label="Champion">{champion}</td><td class="dim why">{escape(rule.reason)}</td></tr>'
    )


def _name(rule: RuleResult) -> str:
    where = f"<br><code>{escape(rule.slice)}</code>" if rule.slice else ""
    return f"<code>{escape(rule.rule)}</code>{where}" if rule.kind == "threshold" else escape(rule.rule) + where


def _strip(rule: RuleResult) -> Strip:
    """Return what to draw for a rule, without the champion's value if the rule is about an improvement over it."""
    champion = None if rule.kind == "significance" else rule.champion_value
    found = _COMPARISON.search(rule.rule)
    return Strip(rule.value, rule.bound, rule.low, rule.high, champion, found[1] if found else "")


def _zero(rule: RuleResult) -> tuple[float | None, ...]:
    return (0.0,) if rule.kind == "significance" and rule.value is not None else ()


def _has_champion(rules: Iterable[RuleResult]) -> bool:
    return any(rule.champion_value is not None for rule in rules)


def _legend(rules: Sequence[RuleResult]) -> str:
    drawn = [_strip(rule) for rule in rules]
    if not any(strip.value is not None for strip in drawn):
        return ""
    entries = [(DOT, "candidate, in the colour of the verdict"), (BOUND, "bound")]
    if any(strip.low is not None or strip.high is not None for strip in drawn):
        entries.insert(1, (INTERVAL, "interval"))
    if any(strip.champion is not None for strip in drawn):
        entries.append((SQUARE, "champion"))
    if any(strip.allowed for strip in drawn):
        entries.append((ALLOWED, "allowed"))
    if rules[0].kind == "significance":
        entries[-2 if entries[-1][0] == ALLOWED else -1] = (BOUND, "smallest improvement that counts")
        entries.append((DASHES, "no difference"))
    return legend(*entries)


def _number(value: float | None, beside: float | None) -> str:
    if value is None:
        return NOTHING
    return write_compared(value, value if beside is None else beside)
