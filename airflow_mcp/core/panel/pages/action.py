"""The page of an action: what is now and afterwards, what will happen, why, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from airflow_mcp.core.panel.actions import (
    KINDS,
    REASON_LENGTH,
    ActionKind,
    ActionName,
    Operation,
    Progress,
    choices,
    steps_of,
)
from airflow_mcp.core.panel.facts import ModelFacts, VersionFacts
from airflow_mcp.core.panel.pages.layout import Frame, card, crumbs, gate_tick, note, render_page, table, tick
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.panel.state import Tone

TASK_TONES: Mapping[str, Tone] = {
    "success": "good",
    "failed": "bad",
    "upstream_failed": "bad",
    "skipped": "none",
    "running": "wait",
    "deferred": "wait",
    "up_for_retry": "unsure",
    "queued": "none",
    "scheduled": "none",
    "awaiting_input": "wait",
    "up_for_reschedule": "wait",
    "restarting": "wait",
    "removed": "none",
}
PROGRESS_WORDS: Mapping[str, str] = {
    "success": "Done",
    "failed": "It failed. Read the log of the failed task before you try again.",
    "queued": "Waiting for Airflow to start it",
}
"""By the state of the Dag run."""


@dataclass(frozen=True)
class Asked:
    """What the page of an action is about."""

    action: ActionName
    refused: Refusal | None
    """Why it is not possible; None when it is."""
    dag_id: str
    """Dag that does it; empty when none does."""
    key: str
    """Idempotency key of this page: sending it twice asks for one action."""
    chosen: str = ""
    """Version that is chosen; empty takes the first."""


def render_action(frame: Frame, facts: ModelFacts, asked: Asked) -> str:
    """Return the page on which a person asks for an action.

    :param frame: the frame.
    :param facts: the model.
    :param asked: what the page is about.
    """
    t, kind = frame.t, KINDS[asked.action]
    offered = choices(asked.action, facts)
    version = next((each for each in offered if each.number == asked.chosen), offered[0] if offered else None)
    values = {
        "champion": facts.standing.champion or t.plain("none"),
        "version": version.number if version else "?",
        "dag": asked.dag_id,
        "canary": facts.rollout.document.canary if facts.rollout else "?",
        "stable": facts.rollout.document.stable if facts.rollout else "?",
        "weight": f"{facts.rollout.document.weight:g}" if facts.rollout else "?",
    }
    title = t(kind.title, **values)
    steps = "".join(f"<li>{t(step, **values)}</li>" for step in steps_of(asked.action, facts))
    left = _now_and_afterwards(frame, facts, version) if kind.chooses and version is not None else ""
    left += card("steps", t("What will happen"), f'<ol class="steps">{steps}</ol>')
    right = _refused(frame, asked.refused) if asked.refused is not None else _form(frame, facts, asked, version)
    body = f'<div class="grid"><div class="stack c8">{left}</div><div class="stack c4">{right}</div></div>'
    return render_page(frame, title, f"{_trail(frame, facts.name, kind)}<h1>{title}</h1>{body}")


def _trail(frame: Frame, name: str, kind: ActionKind) -> str:
    return crumbs(frame, (frame.href("models", name), escape(name)), ("", frame.t(kind.button)))


def _now_and_afterwards(frame: Frame, facts: ModelFacts, version: VersionFacts) -> str:
    t, champion = frame.t, facts.champion

    def row(name: str, now: str, afterwards: str) -> str:
        return f'<tr><th scope="row">{name}</th><td>{now}</td><td>{afterwards}</td></tr>'

    def loads(each: VersionFacts | None) -> str:
        if each is None:
            return t("nothing")
        check = each.load_check
        return f"{t(check.verdict)}, {escape(check.at[:16])}" if check else t("never checked")

    def known(each: VersionFacts | None, label: str) -> str:
        return escape(each.provenance.get(label, "")) or t("not known") if each else t("nothing")

    rows = (
        row(
            t("Champion"),
            t("version {version}", version=champion.number) if champion else t("none"),
            t("version {version}", version=version.number),
        ),
        row(t("Gate"), gate_tick(champion.gate, t) if champion else t("nothing"), gate_tick(version.gate, t)),
        row(t("data version"), known(champion, "data version"), known(version, "data version")),
        row(t("Load check"), loads(champion), loads(version)),
    )
    warning = ""
    if why := version.provenance.get("rolled back"):
        text = "Version {version} was rolled back itself: {reason}"
        warning = note("unsure", t(text, version=version.number, reason=why))
    body = table(t("Now and afterwards"), ("", t("Now"), t("Afterwards")), rows, "cmp") + warning
    return card("compared", t("Now and afterwards"), body)


def _refused(frame: Frame, refused: Refusal) -> str:
    return note("unsure", frame.t("This is not possible"), f"<p>{frame.t(refused.text, **refused.values)}</p>")


def _form(frame: Frame, facts: ModelFacts, asked: Asked, version: VersionFacts | None) -> str:
    t, action = frame.t, asked.action
    kind = KINDS[action]
    chooser, button = "", t(kind.button)
    if kind.chooses and version is not None:
        options = "".join(
            f'<option value="{escape(each.number, quote=True)}"{" selected" if each is version else ""}>'
            f"{t('version {version}', version=each.number)}</option>"
            for each in choices(action, facts)
        )
        chooser = f'<label for="version">{t("Version")}</label><select id="version" name="version">{options}</select>'
        text = "Roll back to version {version}" if action == "rollback" else "Promote version {version}"
        button = t(text, version=version.number)
    danger = "danger first" if kind.is_dangerous else "first"
    champion = escape(facts.standing.champion or "none", quote=True)
    kept = t("Kept with the model and in the audit trail. Everyone who sees the model can read it.")
    body = (
        f'<form id="action" data-key="{escape(asked.key, quote=True)}" data-champion="{champion}">{chooser}'
        f'<label for="reason">{t("Why")}</label><textarea id="reason" name="reason" required '
        f'maxlength="{REASON_LENGTH}" aria-describedby="kept"></textarea>'
        f'<p class="hint" id="kept">{kept}</p><p class="problem" role="alert" id="problem"></p><div class="row acts">'
        f'<button class="btn {danger}">{button}</button>'
        f'<a class="btn" href="{frame.href("models", facts.name)}">{t("Cancel")}</a></div></form>'
        f"<noscript><p>{t('This form needs JavaScript. Trigger the Dag in Airflow instead.')}</p></noscript>"
    )
    return card("ask", t("Do it"), body)


def render_progress(
    frame: Frame, name: str, action: ActionName, operation: Operation, progress: Progress | None
) -> str:
    """Return the page that shows how far an action is.

    :param frame: the frame.
    :param name: the model.
    :param action: the action.
    :param operation: the operation.
    :param progress: how far it is; None when Airflow did not answer.
    """
    t, kind = frame.t, KINDS[action]
    head = f"{_trail(frame, name, kind)}<h1>{t(kind.button)}</h1>"
    back = f'<p><a class="btn" href="{frame.href("models", name)}">{t("To the model")}</a></p>'
    if progress is None:
        said = note("unsure", t("Airflow did not answer. This page asks again."))
        return render_page(frame, t(kind.button), head + said + back, busy=True)
    tones: Mapping[str, Tone] = {"success": "good", "failed": "bad"}
    said = note(tones.get(progress.state, "wait"), t(PROGRESS_WORDS.get(progress.state, "In progress")))
    items = "".join(f"<li>{_task(frame, task, state)}</li>" for task, state in progress.tasks)
    place = escape(f"/dags/{operation.dag_id}/runs/{operation.run_id}", quote=True)
    log = f'<a data-airflow="{place}" href="#main">{t("Open the Dag run")}</a>'
    dag = f"<code>{escape(operation.dag_id)}</code> · <code>{escape(operation.run_id)}</code>"
    by = f"<p>{t('Triggered by {by}', by=progress.by)}</p>" if progress.by else ""
    body = f'<ol class="health">{items}</ol>{by}<p class="small dim">{dag} · {log}</p>'
    main = head + said + card("tasks", t("Steps"), body) + back
    return render_page(frame, t(kind.button), main, busy=not progress.is_over)


def _task(frame: Frame, task: str, state: str) -> str:
    word = frame.t(state or "not begun")
    return tick(TASK_TONES.get(state, "none"), f"<code>{escape(task)}</code> {word}")
