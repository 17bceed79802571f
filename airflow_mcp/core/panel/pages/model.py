"""The page of one model: what is in production, since when, why, whether it is healthy, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from airflow_mcp.core.panel.charts import verdict_word
from airflow_mcp.core.panel.facts import ModelFacts, VersionFacts, drift_trouble, moment
from airflow_mcp.core.panel.pages.approvals import waiting_strip
from airflow_mcp.core.panel.pages.cards import (
    DRIFT_TONES,
    audit_card,
    button,
    change_words,
    cycles_card,
    drift_card,
    gate_card,
    provenance_card,
    retraining_card,
    rollout_card,
    timeline_card,
)
from airflow_mcp.core.panel.pages.layout import (
    Frame,
    card,
    crumbs,
    gate_tick,
    note,
    render_page,
    state_pill,
    table,
    tick,
)
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.panel.state import Tone
from airflow_mcp.core.registry.history import ChampionAt

_LOAD_TONES: Mapping[str, Tone] = {"passed": "good", "failed": "bad", "inconclusive": "unsure", "error": "broken"}
LOAD_WORDS: Mapping[str, str] = {
    "passed": "it loads and answers",
    "failed": "it does not load",
    "inconclusive": "it is not known whether it loads",
    "error": "its load check could not be made",
}


def render_model(frame: Frame, facts: ModelFacts, refusals: Mapping[str, Refusal], *, days: int = 30) -> str:
    """Return the page of a model.

    :param frame: the frame.
    :param facts: what is known of it.
    :param refusals: why actions are not possible, by action.
    :param days: days that the timeline shows.
    """
    t = frame.t
    about = escape(facts.model.description)
    head = (
        f"{crumbs(frame, ('', escape(facts.name)))}"
        f'<div class="row"><h1>{escape(facts.name)}</h1>{state_pill(facts.state, t)}<span class="dim">{about}</span>'
        f'<div class="row push actions">{button(frame, facts, "promote", "Promote", refusals)}'
        f"{button(frame, facts, 'rollback', 'Roll back', refusals)}</div></div>"
    )
    left = gate_card(frame, facts) + drift_card(frame, facts) + cycles_card(frame, facts) + audit_card(frame, facts)
    right = (
        rollout_card(frame, facts, refusals)
        + retraining_card(frame, facts, refusals)
        + provenance_card(frame, facts.champion)
        + _versions(frame, facts)
    )
    grid = (
        f'<div class="grid">{timeline_card(frame, facts, days)}<div class="stack c8">{left}</div>'
        f'<div class="stack c4 side">{right}</div></div>'
    )
    return render_page(
        frame, escape(facts.name), head + _concerns(frame, facts) + _answer(frame, facts, refusals) + grid
    )


def _concerns(frame: Frame, facts: ModelFacts) -> str:
    """Return what a person should look at, and the moment that the page is about if it is in the past."""
    t = frame.t
    parts = [_as_of(frame, facts, facts.at)] if facts.at is not None else []
    parts += [waiting_strip(frame, question) for question in facts.questions]
    if facts.state.next_step and facts.state.needs_somebody:
        said = t(facts.state.word, **facts.state.values)
        more = t(facts.state.next_step, **facts.state.values)
        details = "".join(f"<li>{escape(concern.says)}</li>" for concern in facts.standing.concerns)
        parts.append(note(facts.state.tone, said, f"<p>{more}</p><ul>{details}</ul>"))
    return "".join(parts)


def _as_of(frame: Frame, facts: ModelFacts, at: ChampionAt) -> str:
    t = frame.t
    names = [t("version {version}", version=number) if number else t("no version") for number in at.versions]
    said = t("At {time} the champion was:", time=t.time(at.time)) + " " + f" {t('or')} ".join(names)
    more = ""
    if at.doubtful:
        more = f"<p>{t('It was moved outside airflow-mcp, so the moment of the change is not known.')}</p>"
    elif at.since is not None and at.since.move is not None:
        text = "since {time}, by {by}: {reason}"
        move = at.since.move
        more = f"<p>{t(text, time=t.time(at.since.latest), by=move.by, reason=move.reason or '-')}</p>"
    now = f'<a class="btn" href="{frame.href("models", facts.name)}">{t("Back to now")}</a>'
    return note("wait", said, more + now)


def _answer(frame: Frame, facts: ModelFacts, refusals: Mapping[str, Refusal]) -> str:
    t, champion = frame.t, facts.champion
    if champion is None:
        text = "Version {version} is in production" if facts.standing.champion else "No version is in production"
        big = t(text, version=facts.standing.champion or "")
        health = ""
    else:
        big = t("Version {version} is in production", version=champion.number)
        health = f'<ul class="health">{"".join(f"<li>{line}</li>" for line in _health(frame, facts, champion))}</ul>'
    label = t("In production")
    return (
        f'<section class="card answer tone-{facts.state.tone}" aria-label="{label}"><div><p class="big">{big}</p>'
        f'<p class="why dim">{_why(frame, facts)}</p>{health}</div>{_way_back(frame, facts, refusals)}</section>'
    )


def _why(frame: Frame, facts: ModelFacts) -> str:
    t, change = frame.t, facts.since
    if facts.standing.champion is None:
        return ""
    if change is None:
        return t("airflow-mcp has no record of how it became champion")
    age = t.age((frame.now - change.latest).total_seconds())
    since = t("for {age}, since {time}", age=age, time=t.time(change.latest))
    if change.move is None:
        return f"{since} · {t('moved outside airflow-mcp')}"
    what, _ = change_words(change)
    by = t("{what} by {by}", what=t.plain(what), by=change.move.by.partition(" ")[0])
    reason = f": {escape(change.move.reason)}" if change.move.reason else ""
    return f"{since} · {by}{reason}"


def _health(frame: Frame, facts: ModelFacts, champion: VersionFacts) -> list[str]:
    t = frame.t
    lines = [_loads(frame, champion)]
    lines.append(f"{gate_tick(champion.gate, t)} <span class='dim'>{t('its gate')}</span>")
    check = drift_trouble(facts.checks or (), facts.since.latest if facts.since else None)
    if check is not None:
        tone = DRIFT_TONES.get(check.verdict, "unsure")
        share = t("not measured") if check.share is None else t("{share} of columns", share=f"{check.share:.0%}")
        said = t("in the last check: {verdict}", verdict=t.plain(verdict_word(check.verdict)))
        lines.append(f'{tick(tone, said)} <span class="dim">{share}, {frame.ago(check.at)}</span>')
    return lines


def _loads(frame: Frame, version: VersionFacts) -> str:
    t, check = frame.t, version.load_check
    if check is None:
        return tick("unsure", t("never checked whether it loads"))
    at = moment(check.at)
    tone = _LOAD_TONES.get(check.verdict, "unsure")
    said = t(LOAD_WORDS.get(check.verdict, "it is not known whether it loads"))
    return f'{tick(tone, said)} <span class="dim">{t("checked")} {frame.ago(at)}</span>'


def _way_back(frame: Frame, facts: ModelFacts, refusals: Mapping[str, Refusal]) -> str:
    t, version = frame.t, facts.way_back
    act = button(frame, facts, "rollback", "Roll back", refusals)
    if version is None:
        refused = refusals.get("rollback")
        why = t(refused.text, **refused.values) if refused else t("Choose an earlier champion on the next page.")
        return f'<aside aria-labelledby="back"><h2 id="back">{t("The way back")}</h2><p>{why}</p>{act}</aside>'
    title = t("The way back: version {version}", version=version.number)
    before = [change for change in facts.timeline.changes if change.before == version.number]
    until = f'<p class="small dim">{t("champion until")} {frame.when(before[-1].latest)}</p>' if before else ""
    return (
        f'<aside aria-labelledby="back"><h2 id="back">{title}</h2><p>{_loads(frame, version)}</p>{until}{act}</aside>'
    )


def _versions(frame: Frame, facts: ModelFacts) -> str:
    t = frame.t
    aliases: dict[str, list[str]] = {}
    for alias, number in facts.model.aliases.items():
        aliases.setdefault(number, []).append(alias)
    rows = []
    for version in facts.versions[:10]:
        link = frame.href("models", facts.name, "versions", version.number)
        named = escape(", ".join(aliases.get(version.number, ())))
        rows.append(
            f'<tr><th scope="row"><a href="{link}">v{escape(version.number)}</a> <span class="dim small">{named}</span>'
            f"</th><td>{gate_tick(version.gate, t)}</td><td>{frame.when(version.registered)}</td></tr>"
        )
    body = table(t("Newest versions"), (t("Version"), t("Gate"), t("Registered")), rows)
    return card("versions", t("Newest versions"), body)
