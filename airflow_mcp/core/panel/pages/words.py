"""What the words for states mean, and pages that say that something is missing."""

from __future__ import annotations

from airflow_mcp.core.panel.pages.layout import Frame, card, crumbs, render_page, state_pill, table
from airflow_mcp.core.panel.state import KINDS, ModelState

_EXAMPLE = {"version": "8", "canary": "8", "stable": "7", "weight": "10"}


def render_words(frame: Frame) -> str:
    """Return the page that explains every state, the worst first."""
    t = frame.t
    rows = []
    for kind in KINDS:
        state = ModelState(kind, _EXAMPLE)
        rows.append(f'<tr><th scope="row">{state_pill(state, t)}</th><td>{t(state.next_step, **_EXAMPLE)}</td></tr>')
    said = t("A model has the first of these states that applies to it. The list shows them in this order.")
    body = f"<p>{said}</p>{table(t('States'), (t('State'), t('Next')), rows)}"
    head = f"{crumbs(frame, ('', t('Words')))}<h1>{t('What do these words mean?')}</h1>"
    return render_page(frame, t("What do these words mean?"), head + body)


def render_problem(frame: Frame, title: str, said: str) -> str:
    """Return a page that says why there is nothing to show.

    :param frame: the frame.
    :param title: a text of the catalogue.
    :param said: what to do next, a text of the catalogue.
    """
    t = frame.t
    body = card(
        "problem", t(title), f'<p>{t(said)}</p><p><a class="btn" href="{frame.href()}">{t("Show all models")}</a></p>'
    )
    return render_page(frame, t(title), f"{crumbs(frame, ('', t(title)))}<h1>{t(title)}</h1>{body}")
