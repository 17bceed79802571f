"""The frame of every page: head, foot, banners, and the small parts that pages are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote, urlencode

from airflow_mcp.core.panel.state import ModelState, Tone
from airflow_mcp.core.panel.words import LANGUAGES, Words

_STROKE = 'fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"'
_SHAPES: dict[Tone, str] = {
    "good": f'<path d="M3 8.5l3.2 3.2L13 5" {_STROKE}/>',
    "bad": f'<path d="M4 4l8 8M12 4l-8 8" {_STROKE}/>',
    "unsure": f'<path d="M8 2.5l6 11H2z" {_STROKE}/><path d="M8 6.6v3.2M8 11.8v.2" {_STROKE}/>',
    "broken": f'<circle cx="8" cy="8" r="6" {_STROKE}/><path d="M4 4l8 8" {_STROKE}/>',
    "wait": f'<circle cx="8" cy="8" r="6" {_STROKE}/><path d="M8 4.8V8l2.3 1.5" {_STROKE}/>',
    "none": f'<path d="M3.5 8h9" {_STROKE}/>',
}
GATE_TONES: dict[str, Tone] = {
    "passed": "good",
    "approved": "good",
    "warned": "unsure",
    "failed": "bad",
    "inconclusive": "unsure",
    "error": "broken",
}


@dataclass(frozen=True)
class Frame:
    """What every page needs besides its facts."""

    t: Words
    root: str
    """Path of the mounted application, without a slash at its end: it holds the base path of a proxy too."""
    now: datetime
    stamp: str
    """Hash of the static files, so that browsers may keep them."""
    server: str
    """Connection to MLflow, by its id."""
    read_at: datetime | None = None
    """When the registry was read; None: not yet."""
    is_down: bool = False
    """Whether MLflow did not answer the last question."""
    names_language: bool = False
    """Whether the address names the language, so that links have to name it too."""

    def href(self, *parts: str, **query: object) -> str:
        """Return the address of a page as an attribute value; the language goes along.

        :param parts: parts of the path below ``ui``, each quoted.
        :param query: the query; values that are empty are left out.
        """
        path = "/".join(quote(part, safe="") for part in parts)
        given = {name: value for name, value in query.items() if value not in ("", None)}
        if self.names_language:
            given["lang"] = self.t.language
        text = f"?{urlencode(given)}" if given else ""
        return escape(f"{self.root}/ui/{path}{text}", quote=True)

    @property
    def language_field(self) -> str:
        """The field with which a form keeps the language; empty when the address does not name it."""
        return f'<input type="hidden" name="lang" value="{self.t.language}">' if self.names_language else ""

    def ago(self, time: datetime | None) -> str:
        """Return how long ago a time was, as HTML that holds the time itself."""
        if time is None:
            return self.t("at an unknown time")
        age = self.t.age((self.now - time).total_seconds())
        said = self.t("{age} ago", age=age)
        return f'<time datetime="{time.astimezone(UTC).isoformat()}" title="{self.when_text(time)}">{said}</time>'

    def when(self, time: datetime) -> str:
        """Return a time as HTML."""
        return f'<time datetime="{time.astimezone(UTC).isoformat()}">{self.when_text(time)}</time>'

    def when_text(self, time: datetime) -> str:
        """Return a time as escaped text."""
        return escape(self.t.time(time), quote=True)


def icon(tone: Tone) -> str:
    """Return the shape of a tone."""
    return f'<svg width="14" height="14" viewBox="0 0 16 16" aria-hidden="true">{_SHAPES[tone]}</svg>'


def pill(tone: Tone, said: str) -> str:
    """Return a word with its tone.

    :param tone: the tone.
    :param said: the word, as HTML.
    """
    return f'<span class="pill tone-{tone}">{icon(tone)}{said}</span>'


def tick(tone: Tone, said: str) -> str:
    """Return a line with the shape of its tone in front.

    :param tone: the tone.
    :param said: the line, as HTML.
    """
    return f'<span class="tick tone-{tone}">{icon(tone)}<span class="ink">{said}</span></span>'


def state_pill(state: ModelState, t: Words) -> str:
    """Return the word for the state of a model."""
    return pill(state.tone, t(state.word, **state.values))


def gate_tick(verdict: str, t: Words) -> str:
    """Return the decision of a gate with its shape."""
    return tick(GATE_TONES.get(verdict, "none"), t(verdict) if verdict in GATE_TONES else t("not judged"))


def card(name: str, title: str, body: str, aside: str = "", kind: str = "") -> str:
    """Return a card.

    :param name: its id on the page.
    :param title: its heading, as HTML.
    :param body: its content, as HTML.
    :param aside: what stands beside the heading, as HTML.
    :param kind: further classes.
    """
    return (
        f'<section class="card {kind}" aria-labelledby="{name}"><header><h2 id="{name}">{title}</h2>{aside}</header>'
        f"{body}</section>"
    )


def note(tone: Tone, said: str, more: str = "") -> str:
    """Return a note across the page.

    :param tone: its tone.
    :param said: its first sentence, as HTML.
    :param more: further HTML.
    """
    return f'<section class="note tone-{tone}">{tick(tone, f"<strong>{said}</strong>")}{more}</section>'


def facts_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values.

    :param pairs: each as HTML.
    """
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def scrolled(label: str, content: str) -> str:
    """Return a region that scrolls sideways by itself and can be scrolled by keyboard.

    :param label: what it holds, as HTML.
    :param content: what is wide, as HTML.
    """
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">{content}</div>'


def table(label: str, heads: Iterable[str], rows: Iterable[str], kind: str = "") -> str:
    """Return a table that scrolls by itself and can be scrolled by keyboard.

    :param label: what it holds, as HTML.
    :param heads: the headings, as HTML; an empty one is not a heading.
    :param rows: complete rows, as HTML.
    :param kind: its class.
    """
    head = "".join(f'<th scope="col">{each}</th>' if each else "<td></td>" for each in heads)
    body = "".join(rows)
    return scrolled(label, f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def crumbs(frame: Frame, *last: tuple[str, str]) -> str:
    """Return the way from the list to this page.

    :param last: address and name of each page below the list, as HTML; the last one is this page.
    """
    t = frame.t
    trail = [(frame.href(), t("Models")), *last]
    items = [f'<a href="{address}">{name}</a>' for address, name in trail[:-1]]
    items.append(f'<span aria-current="page">{trail[-1][1]}</span>')
    parts = '<span class="dim" aria-hidden="true">/</span>'.join(items)
    return f'<nav class="crumbs" aria-label="{t("Breadcrumb")}">{parts}</nav>'


def render_page(frame: Frame, title: str, main: str, *, busy: bool = False) -> str:
    """Return a complete page.

    :param frame: the frame.
    :param title: its title, as HTML.
    :param main: its content, as HTML.
    :param busy: whether something is in progress, so that the page asks again soon.
    """
    t = frame.t
    static, stamp = f"{escape(frame.root, quote=True)}/static", frame.stamp
    seconds = 2 if busy else 10
    return (
        f'<!doctype html>\n<html lang="{t.language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f'<script src="{static}/theme.js?{stamp}"></script>'
        f'<link rel="stylesheet" href="{static}/ui.css?{stamp}">'
        f'<script src="{static}/ui.js?{stamp}" defer></script></head>'
        f'<body data-refresh="{seconds}" data-languages="{" ".join(LANGUAGES)}" '
        f'data-changed="{t("The page has changed")}" '
        f'data-failed="{t("No answer. Nothing is known to have changed; look at the model before you try again.")}">'
        f'<a class="skip" href="#main">{t("Skip to content")}</a><main id="main" tabindex="-1">{_down(frame)}{main}'
        f'</main><footer class="foot">{_foot(frame)}</footer><p class="sr" role="status" id="said"></p></body></html>\n'
    )


def _down(frame: Frame) -> str:
    if not frame.is_down:
        return ""
    t = frame.t
    if frame.read_at is None:
        more = t("Nothing can be shown until it answers. Model servers are not affected.")
    else:
        text = (
            "What follows was read at {time}. Model servers are not affected; no action is possible until it answers."
        )
        more = t(text, time=t.time(frame.read_at)) + "."
    return note("bad", t("MLflow ({server}) does not answer", server=frame.server), f"<p>{more}</p>")


def _foot(frame: Frame) -> str:
    t = frame.t
    read = t("not read yet") if frame.read_at is None else t("read at {time}", time=f"{frame.read_at:%H:%M:%S}")
    links = " · ".join(
        f'<a href="{frame.href(page)}">{t(name)}</a>'
        for page, name in (
            ("approvals", "Approvals"),
            ("activity", "Activity"),
            ("words", "What do these words mean?"),
        )
    )
    return (
        f"<span>MLflow: {escape(frame.server)}, {read}</span><span>{t('Airflow: this server')}</span>"
        f'<span>{t("Times in UTC")}</span><span class="push">{links}</span>'
    )
