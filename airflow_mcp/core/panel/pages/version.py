"""The page of one version, and two versions compared."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from airflow_mcp.core.approvals.cycle import STEPS, Cycle
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.panel.facts import PROVENANCE, version_facts
from airflow_mcp.core.panel.pages.cards import CYCLE_WORDS, provenance_card
from airflow_mcp.core.panel.pages.layout import Frame, card, crumbs, facts_list, gate_tick, render_page, table, tick

_MOST_METRICS = 40


def render_version(
    frame: Frame,
    version: ModelVersion,
    run: Run | None,
    other: ModelVersion | None = None,
    other_run: Run | None = None,
    cycle: Cycle | None = None,
) -> str:
    """Return the page of a version.

    :param frame: the frame.
    :param version: the version.
    :param run: its MLflow run; None when it could not be read.
    :param other: the version to compare it with; None for none.
    :param other_run: MLflow run of that version.
    :param cycle: when each step of its release was done; None when the caller may not know, or nothing is known.
    """
    t = frame.t
    title = t("Version {version} of {model}", version=version.version, model=version.name)
    trail = crumbs(
        frame, (frame.href("models", version.name), escape(version.name)), ("", f"v{escape(version.version)}")
    )
    head = f"{trail}<h1>{title}</h1>{_compare_form(frame, version)}"
    if other is not None:
        body = _compared(frame, version, run, other, other_run)
    else:
        left = _standing(frame, version) + _metrics(frame, run)
        right = provenance_card(frame, version_facts(version)) + _cycle(frame, cycle)
        body = f'<div class="grid"><div class="stack c8">{left}</div><div class="stack c4">{right}</div></div>'
    return render_page(frame, title, head + body)


def _standing(frame: Frame, version: ModelVersion) -> str:
    t, facts = frame.t, version_facts(version)
    check = facts.load_check
    loads = escape(str(check)) if check else t("never checked whether it loads")
    pairs = [
        (t("Aliases"), escape(", ".join(version.aliases)) or t("none")),
        (t("Status"), escape(version.status)),
        (t("Registered"), frame.when(facts.registered)),
        (t("Gate"), gate_tick(facts.gate, t)),
        (t("Load check"), tick("bad" if facts.unusable else "good" if check else "unsure", loads)),
    ]
    links = ""
    if facts.run_id and facts.gate:
        report = frame.href("models", version.name, "reports", facts.run_id, "gate")
        links = f'<p><a href="{report}">{t("full report")}</a></p>'
    return card("standing", t("What is known of it"), facts_list(pairs) + links)


def _cycle(frame: Frame, cycle: Cycle | None) -> str:
    """Return the card with the steps of its release; empty when none is known."""
    if cycle is None or not cycle.times:
        return ""
    t, stages = frame.t, cycle.stages
    rows = [
        _row(t(CYCLE_WORDS[step]), frame.when(cycle.times[step]), escape(t.age(stages[step])) if step in stages else "")
        for step in STEPS
        if step in cycle.times
    ]
    body = table(t("How long it took"), (t("Step"), t("Time"), t("After")), rows)
    whole = "" if cycle.seconds is None else f"<p>{t('Altogether')}: <b>{escape(t.age(cycle.seconds))}</b></p>"
    return card("cycle", t("How long it took"), body + whole)


def _metrics(frame: Frame, run: Run | None) -> str:
    t = frame.t
    if run is None:
        return card("metrics", t("Metrics"), f'<p class="dim">{t("Its MLflow run could not be read.")}</p>')
    rows = [
        _row(f"<code>{escape(name)}</code>", _number(run.metrics[name])) for name in sorted(run.metrics)[:_MOST_METRICS]
    ]
    body = table(t("Metrics"), (t("Metric"), t("Value")), rows) if rows else f'<p class="dim">{t("none")}</p>'
    return card("metrics", t("Metrics"), body)


def _compare_form(frame: Frame, version: ModelVersion) -> str:
    t = frame.t
    address = frame.href("models", version.name, "versions", version.version).partition("?")[0]
    return (
        f'<form class="row" action="{address}"><label for="with">{t("Compare with version")}</label>'
        f'<input type="text" id="with" name="with" size="6" inputmode="numeric" pattern="[1-9][0-9]*">'
        f'{frame.language_field}<button class="btn">{t("Compare")}</button></form>'
    )


def _compared(frame: Frame, version: ModelVersion, run: Run | None, other: ModelVersion, other_run: Run | None) -> str:
    t = frame.t
    heads = ("", f"v{escape(version.version)}", f"v{escape(other.version)}")
    tags = (_by_label(version.tags), _by_label(other.tags))
    rows = [_difference(frame, t(label), *(each.get(label, "") for each in tags)) for label in PROVENANCE]
    metrics = tuple(dict(each.metrics) if each else {} for each in (run, other_run))
    names = sorted({*metrics[0], *metrics[1]})[:_MOST_METRICS]
    numbers = [
        _difference(frame, f"<code>{escape(name)}</code>", *(_number(each.get(name)) for each in metrics))
        for name in names
    ]
    origins = card("origins", t("Where they come from"), table(t("Where they come from"), heads, rows, "cmp"))
    measured = card("metrics", t("Metrics"), table(t("Metrics"), heads, numbers, "cmp"))
    return f'<div class="stack">{origins}{measured}</div>'


def _by_label(tags: Mapping[str, str]) -> dict[str, str]:
    return {label: tags[tag] for label, tag in PROVENANCE.items() if tags.get(tag)}


def _difference(frame: Frame, name: str, first: str, second: str) -> str:
    changed = f' <span class="changed">{frame.t("differs")}</span>' if first != second else ""
    return _row(name + changed, escape(first) or "-", escape(second) or "-")


def _row(name: str, *values: str) -> str:
    cells = "".join(f"<td>{value}</td>" for value in values)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
