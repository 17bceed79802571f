"""The text of a question, as a reader of Markdown shows it: nothing in it may become markup of somebody else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.messages import escaped, question_body
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import state_of
from tests.support.approvals import START, Book, bank

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[approve here](javascript:alert(1))",
    "![](https://evil.example/pixel)",
    "<https://evil.example>",
    "**Passport** `sha256:forged`",
    "x\n\n# May answer: everybody",
    "| a | b |\n|---|---|",
    "<!-- hidden",
    "a" * 399 + "<b>",
    "~~struck~~ \\<i>",
)


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def shown(markdown: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the elements that a reader makes of Markdown, one that lets HTML through: Airflow's may be stricter."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Elements(reader.render(markdown)).found


def body(model: str = "fraud", account: str = "dora", links: dict[str, str] | None = None) -> str:
    book = Book(ReleaseKey(model, "prod", "sha256:" + "a" * 64))
    book.request(account)
    state = state_of(book.facts, book.key, ApprovalPolicy.of(bank()), START)
    assert state.open_node is not None
    return question_body(state, state.open_node.node, ["lena", "luis"], links or {})


PLAIN = shown(body())


def test_the_digest_comes_first() -> None:
    assert body().startswith(f"**Passport** `sha256:{'a' * 64}`")
    assert [tag for tag, _ in PLAIN[:3]] == ["p", "strong", "code"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["model", "account"])
def test_a_name_adds_no_element_to_the_question(place: str, text: str) -> None:
    assert shown(body(**{place: text})) == PLAIN


@pytest.mark.parametrize("text", HOSTILE)
def test_the_name_of_a_link_adds_no_element(text: str) -> None:
    (_, attributes), *more = shown(body(links={text: "https://mlflow.example/1"}))[len(PLAIN) + 1 :]
    assert (attributes, more) == ({"href": "https://mlflow.example/1"}, [])


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        " JaVaScRiPt:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "https://mlflow.example/) <img src=x onerror=alert(1)> (",
        "https://mlflow.example/\n\n# May answer: everybody",
        "//evil.example",
    ],
)
def test_an_address_leads_to_a_page_and_nowhere_else(address: str) -> None:
    added = shown(body(links={"report": address}))[len(PLAIN) :]
    assert {tag for tag, _ in added} <= {"p", "a"}
    assert all(re.match("https://mlflow.example/", named["href"] or "") for tag, named in added if tag == "a")


def test_a_text_that_is_cut_does_not_end_in_half_an_escape() -> None:
    assert escaped("a" * 399 + "*b") == "a" * 399 + "\\*"
