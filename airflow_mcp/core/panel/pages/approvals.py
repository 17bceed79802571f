"""The approvals that people are asked for: the list of open questions, and one question with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_mcp.core.approvals.events import APPROVE, REJECT
from airflow_mcp.core.approvals.policy import RELEASE
from airflow_mcp.core.approvals.state import NodeState
from airflow_mcp.core.panel.actions import REASON_LENGTH
from airflow_mcp.core.panel.approvals import OpenQuestion, why_no_answer
from airflow_mcp.core.panel.facts import PROVENANCE, ModelFacts
from airflow_mcp.core.panel.pages.cards import gate_card, short_value
from airflow_mcp.core.panel.pages.layout import Frame, card, crumbs, note, pill, render_page, table, tick
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.panel.state import Tone


def question_address(frame: Frame, question: OpenQuestion) -> str:
    """Return the address of the page of one question."""
    key = question.state.key
    return frame.href("approvals", question.model, environment=key.environment, act=key.act)


def render_inbox(frame: Frame, questions: Sequence[OpenQuestion], account: str, unread: str = "") -> str:
    """Return the list of the questions that are open.

    :param frame: the frame.
    :param questions: those that the caller may read, the most urgent first.
    :param account: account of the caller.
    :param unread: why they could not be read, a text of the catalogue; empty when they were.
    """
    t = frame.t
    rows = [_row(frame, question, account) for question in questions]
    heads = (t("What"), t("Question"), t("Risk"), t("Left"), t("Who"), "")
    body = (
        table(t("Approvals"), heads, rows, "inbox") if rows else f'<p class="dim">{t("No approval is asked for.")}</p>'
    )
    if unread:
        body = note("unsure", t(unread))
    count = f'<span class="dim">{t("open: {n}", n=len(rows))}</span>'
    head = f'{crumbs(frame, ("", t("Approvals")))}<div class="row"><h1>{t("Approvals")}</h1>{count}</div>'
    return render_page(frame, t("Approvals"), head + body)


def _row(frame: Frame, question: OpenQuestion, account: str) -> str:
    t, state = frame.t, question.state
    address = question_address(frame, question)
    mine = why_no_answer(question, account, frame.now) is None
    last = (
        f'<a class="btn" href="{address}">{t("Answer")}</a>' if mine else f'<span class="dim">{t("not yours")}</span>'
    )
    step = t("step {step} of {steps}", step=question.step, steps=len(state.nodes))
    asked = "May it go to {environment}?" if state.key.act == RELEASE else "May {environment} go back to it?"
    return (
        f'<tr><th scope="row"><a href="{address}"><b>{escape(question.model)} v{escape(question.version)}</b></a></th>'
        f"<td>{t(asked, environment=state.key.environment)}</td>"
        f"<td>{t(state.risk)} · {step}</td><td>{_left(frame, question)}</td>"
        f"<td>{escape(', '.join(question.people)) or t('nobody')}</td><td>{last}</td></tr>"
    )


def _left(frame: Frame, question: OpenQuestion) -> str:
    t, due = frame.t, question.due()
    if question.is_late(frame.now):
        return pill("bad", t("late"))
    if due is None:
        return pill("wait", t("no limit"))
    return pill("wait", escape(t.age((due - frame.now).total_seconds())))


def render_question(
    frame: Frame, question: OpenQuestion, facts: ModelFacts, refused: Refusal | None, *, busy: bool = False
) -> str:
    """Return the page of one question: the evidence beside the form.

    :param frame: the frame.
    :param question: the question.
    :param facts: the model.
    :param refused: why the caller may not answer; None when they may.
    :param busy: whether an answer is being recorded.
    """
    t = frame.t
    champion = facts.standing.champion
    if question.state.key.act != RELEASE:
        text = "May {model} go back to version {version}?"
    elif champion and champion != question.version:
        text = "May version {version} of {model} take over from version {champion}?"
    else:
        text = "May version {version} of {model} go to production?"
    title = t(text, version=question.version, model=question.model, champion=champion or "")
    request = question.state.request
    about = [t("Risk: {risk}", risk=t.plain(question.state.risk))]
    if request is not None:
        by = request.requester.account or request.requester.pipeline or "?"
        about.append(t("asked for by {by} on {time}", by=by, time=t.time(request.requested_at)))
    if (due := question.due()) is not None:
        about.append(t("answer until {time}", time=t.time(due)))
    trail = crumbs(
        frame,
        (frame.href("approvals"), t("Approvals")),
        ("", f"{escape(question.model)} v{escape(question.version)}"),
    )
    right = _chain(frame, question) + _answer(frame, question, refused)
    body = (
        f'<div class="grid"><div class="stack c8">{gate_card(frame, facts)}{_changes(frame, question, facts)}</div>'
        f'<div class="stack c4 side">{right}</div></div>'
    )
    return render_page(frame, title, f'{trail}<h1>{title}</h1><p class="dim">{" · ".join(about)}</p>{body}', busy=busy)


def _changes(frame: Frame, question: OpenQuestion, facts: ModelFacts) -> str:
    t, now, then = frame.t, facts.champion, facts.version(question.version)
    heads = [""]
    heads.append(t("Version {version}, now", version=now.number) if now else t("No champion"))
    heads.append(t("Version {version}", version=question.version))
    rows = []
    for label in PROVENANCE:
        before = now.provenance.get(label, "") if now else ""
        after = then.provenance.get(label, "") if then else ""
        if before or after:
            changed = f' <span class="changed">{t("differs")}</span>' if before != after else ""
            shown = [short_value(value) if value else "-" for value in (before, after)]
            cells = f"<td>{shown[0]}</td><td>{shown[1]}{changed}</td>"
            rows.append(f'<tr><th scope="row">{t(label)}</th>{cells}</tr>')
    link = frame.href("models", question.model, "versions", question.version, **{"with": now.number if now else ""})
    aside = f'<a class="push small" href="{link}">{t("everything about it")}</a>'
    return card("changes", t("What changes"), table(t("What changes"), heads, rows, "cmp"), aside)


def _chain(frame: Frame, question: OpenQuestion) -> str:
    items = "".join(f"<li>{_node(frame, question, node)}</li>" for node in question.state.nodes)
    void = frame.t("does not count")
    lines = "".join(
        f'<li class="small dim">{escape(vote.vote.answer.account)}: {void}, {escape(vote.why)}</li>'
        for vote in question.state.votes
        if not vote.counts
    )
    return card("chain", frame.t("Who is asked"), f'<ol class="health">{items}{lines}</ol>')


def _node(frame: Frame, question: OpenQuestion, node: NodeState) -> str:
    t = frame.t
    name = f"<strong>{escape(node.node.name)}</strong>"
    votes = "".join(
        f'<div class="small">{escape(vote.person)}, {frame.when(vote.vote.answer.time)}'
        f"{f': {escape(vote.vote.answer.reason)}' if vote.vote.answer.reason else ''}</div>"
        for vote in node.votes
    )
    if node.closed_at is not None:
        return tick("good", name) + votes
    quorum = t("{n} of {quorum} approvals", n=len(node.votes), quorum=node.node.quorum)
    if node is question.state.open_node:
        asked = t("asked now: {people}", people=", ".join(question.people) or t.plain("nobody"))
        return f'{tick("wait", name)}{votes}<div class="small">{asked}<br>{quorum}</div>'
    who = escape(", ".join(node.node.approvers))
    return f'{tick("none", name)}<div class="small dim">{t("later")}: {who}, {quorum}</div>'


def _answer(frame: Frame, question: OpenQuestion, refused: Refusal | None) -> str:
    t = frame.t
    if refused is not None:
        return note("unsure", t("This is not yours to answer"), f"<p>{t(refused.text, **refused.values)}</p>")
    kept = t("Everyone who sees the Dag in Airflow can read it. It stays in the audit log.")
    bound = t("Your answer holds for passport {passport}:", passport=_short(question.state.key.passport))
    whole = t("these files, this data, this evidence. If any of it changes, the chain starts anew.")
    body = (
        f'<form id="action" data-key="{question.mark}" data-champion="none">'
        f'<label for="reason">{t("Reason")}</label><textarea id="reason" name="reason" required '
        f'maxlength="{REASON_LENGTH}" aria-describedby="kept"></textarea><p class="hint" id="kept">{kept}</p>'
        f'<p class="problem" role="alert" tabindex="-1" id="problem"></p><div class="row acts">'
        f'<button class="btn first" name="option" value="{APPROVE}">{t("Approve")}</button>'
        f'<button class="btn danger" name="option" value="{REJECT}">{t("Refuse")}</button></div></form>'
        f'<p class="hint">{bound} {whole}</p>'
        f"<noscript><p>{t('This form needs JavaScript. Answer the task in Airflow instead.')}</p></noscript>"
    )
    return card("ask", t("Your answer"), body)


def _short(passport: str) -> str:
    """Return the beginning of a passport's digest in groups that people can compare."""
    digest = passport.removeprefix("sha256:")
    return " ".join(digest[start : start + 4] for start in (0, 4, 8))


def waiting_strip(frame: Frame, question: OpenQuestion) -> str:
    """Return the strip on a model's page that says that a release waits, with the way to answer."""
    t = frame.t
    is_release = question.state.key.act == RELEASE
    text = (
        "Version {version} waits for an approval"
        if is_release
        else "The way back to version {version} waits for an approval"
    )
    step = t("step {step} of {steps}", step=question.step, steps=len(question.state.nodes))
    people = t("asked now: {people}", people=", ".join(question.people) or t.plain("nobody"))
    link = f'<a class="btn first" href="{question_address(frame, question)}">{t("See the evidence and answer")}</a>'
    tone: Tone = "bad" if question.is_late(frame.now) else "wait"
    return note(tone, t(text, version=question.version), f"<p>{step} · {people}</p><p>{link}</p>")
