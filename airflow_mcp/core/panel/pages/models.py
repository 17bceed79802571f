"""The list of models, those that need somebody first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from airflow_mcp.core.panel.charts import draw_sparkline
from airflow_mcp.core.panel.facts import ListRow
from airflow_mcp.core.panel.pages.layout import Frame, gate_tick, render_page, state_pill, table
from airflow_mcp.core.panel.state import KINDS, ModelState, StateKind

PAGE_ROWS = 50
"""Models on one page of the list."""
CHIPS: Mapping[str, tuple[str, frozenset[StateKind]]] = {
    "": ("All", frozenset(KINDS)),
    "attention": ("Need attention", frozenset(kind for kind in KINDS if ModelState(kind).needs_somebody)),
    "approval": ("Wait for approval", frozenset({"approval_late", "waits_for_approval"})),
    "rollout": ("Rolling out", frozenset({"rolling_out", "rollout_failing"})),
    "never": ("Never in production", frozenset({"never_promoted"})),
}
"""Texts of the chips, and the states that each one shows."""
SORTS: Mapping[str, Callable[[ListRow], tuple[object, ...]]] = {
    "state": lambda row: (row.state.rank, row.name),
    "name": lambda row: (row.name,),
    "age": lambda row: (row.standing.since or "9", row.name),
}


@dataclass(frozen=True)
class ListQuery:
    """Which part of the list is asked for; all of it is in the address, so it can be shared."""

    q: str = ""
    state: str = ""
    owner: str = ""
    sort: str = "state"
    page: int = 1

    def address(self, frame: Frame, **changes: object) -> str:
        """Return the address of the list with some values changed; the first page unless one is named."""
        values = {"q": self.q, "state": self.state, "owner": self.owner, "sort": self.sort, "page": "", **changes}
        if values["sort"] == "state":
            values["sort"] = ""
        return frame.href(**values)


@dataclass(frozen=True)
class ListPart:
    """The rows of one page of the list, and how many there are."""

    rows: tuple[ListRow, ...]
    total: int
    """Models that the caller may see."""
    matching: int
    in_production: int
    counts: Mapping[str, int]
    """Of each chip, among the models that the search finds."""


def select_rows(rows: Sequence[ListRow], query: ListQuery) -> ListPart:
    """Return the part of the list that is asked for.

    :param rows: rows of every model that the caller may see.
    :param query: what is asked for.
    """
    words = query.q.lower().split()
    found = list(rows)
    for word in words:
        found = [row for row in found if word in row.searched]
    if query.owner:
        found = [row for row in found if row.owner == query.owner]
    states = Counter(row.state.kind for row in found)
    counts = {name: sum(states[kind] for kind in kinds) for name, (_, kinds) in CHIPS.items()}
    shown = CHIPS.get(query.state, CHIPS[""])[1]
    chosen = [row for row in found if row.state.kind in shown]
    chosen.sort(key=SORTS.get(query.sort, SORTS["state"]))
    first = PAGE_ROWS * (query.page - 1)
    return ListPart(
        rows=tuple(chosen[first : first + PAGE_ROWS]),
        total=len(rows),
        matching=len(chosen),
        in_production=sum(row.standing.champion is not None for row in rows),
        counts=counts,
    )


def render_models(frame: Frame, part: ListPart, query: ListQuery, progress: int | None = None) -> str:
    """Return the page of the list.

    :param frame: the frame.
    :param part: the rows.
    :param query: what was asked for.
    :param progress: models read so far, while the first sweep is in progress; None once it has ended.
    """
    t = frame.t
    count = t("in production: {n} of {total}", n=part.in_production, total=part.total)
    reading = ""
    if progress is not None:
        reading = f'<p class="note tone-wait">{t("Reading the registry, {n} models so far", n=progress)}</p>'
    waiting = f'<a class="btn" href="{frame.href("approvals")}">{t("Approvals")} {part.counts["approval"]}</a>'
    head = (
        f'<div class="row"><h1>{t("Models")}</h1><span class="dim">{count}</span>{_search(frame, query)}{waiting}</div>'
        f"{_chips(frame, part, query)}"
    )
    body = _table(frame, part, query) if part.rows else _nothing(frame, part, query)
    return render_page(frame, t("Models"), head + reading + body + _paging(frame, part, query), busy=bool(reading))


def _search(frame: Frame, query: ListQuery) -> str:
    t = frame.t
    hidden = {"state": query.state, "owner": query.owner, "sort": "" if query.sort == "state" else query.sort}
    kept = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value, quote=True)}">'
        for name, value in hidden.items()
        if value
    )
    return (
        f'<form class="push" role="search" action="{escape(frame.root, quote=True)}/ui/"><label class="sr" for="q">'
        f'{t("Search models")}</label><input type="search" id="q" name="q" value="{escape(query.q, quote=True)}" '
        f'maxlength="200" placeholder="{t("Name, owner or Dag")}">{kept}{frame.language_field}'
        f'<button class="btn">{t("Search")}</button></form>'
    )


def _chips(frame: Frame, part: ListPart, query: ListQuery) -> str:
    chips = []
    for name, (text, _) in CHIPS.items():
        current = ' aria-current="true"' if name == query.state else ""
        address = query.address(frame, state=name)
        chips.append(f'<a class="chip" href="{address}"{current}>{frame.t(text)} <b>{part.counts[name]}</b></a>')
    if query.owner:
        text = frame.t("Owner {owner}: show all", owner=query.owner)
        chips.append(f'<a class="chip" href="{query.address(frame, owner="")}">{text}</a>')
    return f'<nav class="chips" aria-label="{frame.t("Filter")}">{"".join(chips)}</nav>'


def _table(frame: Frame, part: ListPart, query: ListQuery) -> str:
    t = frame.t

    def sorted_by(name: str, text: str) -> str:
        if query.sort == name:
            return f'{t(text)} <span aria-hidden="true">▾</span><span class="sr">{t("sorted by this")}</span>'
        return f'<a href="{query.address(frame, sort=name)}">{t(text)}</a>'

    heads = (
        sorted_by("name", "Model"),
        sorted_by("age", "In production"),
        sorted_by("state", "State"),
        t("Newest gate"),
        t("Drift, last checks"),
        t("Next"),
    )
    return table(t("Models"), heads, [_row(frame, row, query) for row in part.rows], "models")


def _row(frame: Frame, row: ListRow, query: ListQuery) -> str:
    t = frame.t
    owner = ""
    if row.owner:
        owner = f'<a class="quiet" href="{query.address(frame, owner=row.owner)}">{escape(row.owner)}</a>'
    about = " · ".join(filter(None, (owner, escape(row.risk))))
    age = ""
    if row.since is not None:
        age = f' <span class="dim">{escape(t.age((frame.now - row.since).total_seconds()))}</span>'
    champion = f"<b>v{escape(row.standing.champion)}</b>{age}" if row.standing.champion else t("none")
    drift = draw_sparkline(row.checks, t) or f'<span class="dim">{t("no check")}</span>'
    return (
        f'<tr><th scope="row" class="name"><a href="{frame.href("models", row.name)}"><b>{escape(row.name)}</b></a>'
        f'<div class="dim small">{about}</div></th><td>{champion}</td>'
        f'<td class="state">{state_pill(row.state, t)}</td><td class="hide">{gate_tick(row.gate, t)}</td>'
        f'<td class="hide">{drift}</td><td class="full small">{t(row.state.next_step, **row.state.values)}</td></tr>'
    )


def _nothing(frame: Frame, part: ListPart, query: ListQuery) -> str:
    t = frame.t
    if part.total:
        every = f'<a href="{frame.href()}">{t("Show all models")}</a>'
        return f'<section class="card"><h2>{t("No model matches")}</h2><p>{every}</p></section>'
    if frame.is_down:
        return ""
    text = t("Models appear here once a Dag has registered one. Ask an administrator if you expected to see some.")
    return (
        f'<section class="card"><h2>{t("No model to show")}</h2><p>{text}</p><p class="dim">'
        f"{t('To begin with a pipeline of your own:')} <code>airflow-mcp init</code></p></section>"
    )


def _paging(frame: Frame, part: ListPart, query: ListQuery) -> str:
    t = frame.t
    first = PAGE_ROWS * (query.page - 1)
    text = "{first} to {last} of {matching}"
    said = t(text, first=min(first + 1, part.matching), last=first + len(part.rows), matching=part.matching)
    links = []
    for page, word, exists in (
        (query.page - 1, t("Previous"), query.page > 1),
        (query.page + 1, t("Next page"), first + len(part.rows) < part.matching),
    ):
        if exists:
            links.append(f'<a class="btn" href="{query.address(frame, page=page)}">{word}</a>')
    return (
        f'<nav class="row paging" aria-label="{t("Pages")}"><span class="dim">{said}</span>'
        f'<span class="push row">{"".join(links)}</span></nav>'
    )
