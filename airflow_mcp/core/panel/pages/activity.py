"""What happened to all models, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from airflow_mcp.core.panel.pages.cards import change_words
from airflow_mcp.core.panel.pages.layout import Frame, crumbs, render_page, table
from airflow_mcp.core.registry.history import Change


class ModelChange(NamedTuple):
    """One change of the champion of one model."""

    model: str
    change: Change


def render_activity(frame: Frame, changes: Sequence[ModelChange]) -> str:
    """Return the page of the latest moves of all models.

    :param frame: the frame.
    :param changes: newest first.
    """
    t = frame.t
    rows = []
    for model, change in changes:
        what, versions = change_words(change)
        move = change.move
        rows.append(
            f'<tr><td class="nowrap">{frame.when(change.latest)}</td><th scope="row">'
            f'<a href="{frame.href("models", model)}">{escape(model)}</a></th><td>{t(what)} {escape(versions)}</td>'
            f"<td>{escape(move.by if move else '')}</td><td>{escape(move.reason if move else '')}</td></tr>"
        )
    heads = (t("Time"), t("Model"), t("What"), t("By"), t("Why"))
    body = (
        table(t("Activity"), heads, rows, "moves") if rows else f'<p class="dim">{t("Nothing has been moved yet.")}</p>'
    )
    head = f"{crumbs(frame, ('', t('Activity')))}<h1>{t('Activity')}</h1>"
    return render_page(frame, t("Activity"), head + body)
