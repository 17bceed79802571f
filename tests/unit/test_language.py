"""The house's English: how docstrings begin, the one form of error messages, and phrases that have to be read twice.

Each rule is first shown to fail. The rules are described in ``docs/development.md``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import DOCS, ROOT
from tests.support.rooms import ROOMS

PROPER_NAMES = {
    *("Airflow", "Cobertura", "Dag", "Dags", "Debian", "Evidently", "Git", "Kubernetes", "Linux", "OpenLineage"),
    *("Parquet", "Prometheus", "Python", "Slack", "Spark"),
}
"""An error message begins in lower case, or with one of these, an identifier or an abbreviation."""
FIRST_WORDS = {"give", "gives", "tell", "tells", "say", "says"}
"""How no docstring begins: "Return", "Check", "Write" or "Describe" says which of them is meant."""
RIDDLES: dict[str, str] = {
    r"(?<![Tt]here )\b(is|was|are) no (?!longer\b|more\b|one\b|other\b|way\b)(?=[a-z])": (
        'write "is not a ..." or "there is no ..."'
    ),
    r"behind our back": 'write "outside airflow-mcp"',
    r"\blet through\b": 'write "passed" or "accepted"',
    r"without a word\b": 'write "without reporting a result"',
    r"without further ado": 'write "automatically"',
    r"\b(pushed|pushes) nothing\b": 'write "pushed no XCom"',
    r"\bno time at all\b": 'write "must be longer than zero"',
    r"\b(tasks|those|everything|all) behind (it|them)\b": 'write "downstream"',
    r"\bowes\b": 'write "must"',
    r"\bto the letter\b": 'write "exactly"',
    r"\bso to (say|speak)\b": "leave it out",
    r"\bunder way\b": 'write "in progress"',
    r"\bis to be had\b": 'write "is available"',
    r"\bmends?\b": 'write "fixes" or "corrects"',
    r"\bhas (the|its) (last|final) word\b": 'write "decides"',
}
"""Phrases that have to be read twice, with what to write instead."""


class Message:
    """The first argument of a raised error, with a mark in the place of every value."""

    def __init__(self, node: ast.expr, line: int) -> None:
        self.line = line
        self.text = _text_of(node)

    @property
    def is_readable(self) -> bool:
        """Whether there is text in it that can be judged."""
        return bool(self.text.replace("{}", "").strip())


def _text_of(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text_of(part) for part in parts)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _text_of(left) + _text_of(right)
    return "{}"


def messages(tree: ast.AST) -> Iterator[Message]:
    """Find the messages of all errors that are raised."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            yield Message(node.exc.args[0], node.lineno)


def wrong_messages(text: str) -> Iterator[str]:
    """Say which error messages of a module are not in the house's form, and why."""
    for message in messages(ast.parse(text)):
        if message.is_readable:
            yield from (f"line {message.line}: {problem}: {message.text!r}" for problem in _wrong_form(message.text))


def _wrong_form(text: str) -> Iterator[str]:
    if text.rstrip().endswith("."):
        yield "an error message has no period at its end"
    if re.search(r"\ballowed( is| are)?:|[;,] allowed\b|\ballowed (is|are)\b", text):
        yield 'say "must be X; got Y"'
    first = re.match(r"[A-Z][a-z]+\b", text)
    if first and first[0] not in PROPER_NAMES and "Error" not in first[0]:
        yield "an error message begins in lower case"
    if re.match(r"(\{\}|[\w.\-\[\]]+) must be ", text) and not re.search(r"\bgot\b", text):
        yield 'after "must be X" comes "; got Y"'


def wrong_docstrings(text: str) -> Iterator[str]:
    """Say which docstrings of a module begin with a word that can mean anything."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = (ast.get_docstring(node) or "x").split()
            if words[0].lower() in FIRST_WORDS:
                yield f"line {node.lineno}: the docstring of {node.name} begins with {words[0]!r}"


def riddles(text: str) -> Iterator[str]:
    """Say which phrases of a text have to be read twice."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, advice in RIDDLES.items():
            if found := re.search(pattern, line):
                yield f"line {number}: {found[0]!r}: {advice}"


def modules(room: str) -> list[Path]:
    """Find the modules of one room."""
    place = ROOT / "airflow_mcp" / room
    return sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("rule", [wrong_messages, wrong_docstrings, riddles], ids=lambda rule: rule.__name__)
def test_every_room_speaks_plain_english(room: str, rule: object) -> None:
    assert callable(rule)
    found = [f"{path.name}: {item}" for path in modules(room) for item in rule(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_page_speaks_plain_english(page: Path) -> None:
    assert list(riddles(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("'a is wrong.'", "no period at its end"),
        ("f'{name} is {value!r}; allowed: a, b'", "must be X; got Y"),
        ("f'{name} is {value!r}; allowed are a and b'", "must be X; got Y"),
        ("'Nothing was found'", "begins in lower case"),
        ("f'{name} must be a number'", '"; got Y"'),
        ("'wait must be a number, ' + f'not {value}'", '"; got Y"'),
    ],
)
def test_a_message_in_another_form_is_found(message: str, problem: str) -> None:
    assert problem in "".join(wrong_messages(f"raise InvalidArgumentError({message})"))


@pytest.mark.parametrize(
    "message",
    [
        "f'{name} must be a number; got {value!r}'",
        "f'{name} must be one of {words}; got {value!r}. Nothing was started'",
        "'Kubernetes refused it'",
        "'MLflow has no such run'",
        "f'{error}'",
        "reason",
    ],
)
def test_a_message_in_the_form_is_accepted(message: str) -> None:
    assert list(wrong_messages(f"raise InvalidArgumentError({message})")) == []


def test_a_docstring_that_can_mean_anything_is_found() -> None:
    assert len(list(wrong_docstrings('def f():\n    """Give the name."""'))) == 1
    assert list(wrong_docstrings('def f():\n    """Return the name."""')) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [("this is no file", 1), ("it is no longer there", 0), ("there is no file", 0), ("it ended without a word", 1)],
)
def test_a_riddle_is_found(text: str, count: int) -> None:
    assert len(list(riddles(text))) == count
