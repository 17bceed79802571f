"""The page speaks three languages: every text has all of them, with the same values in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import airflow_mcp
from airflow_mcp.core.gate.rules.verdicts import Decision, Verdict
from airflow_mcp.core.panel import actions
from airflow_mcp.core.panel.facts import PROVENANCE
from airflow_mcp.core.panel.pages import action, cards, layout, model, models
from airflow_mcp.core.panel.state import KINDS, ModelState
from airflow_mcp.core.panel.words import LANGUAGES, Language, Words, catalogue, language_of, preferred_language
from airflow_mcp.core.retrain.documents import TrainingOutcome

PACKAGE = Path(airflow_mcp.__file__).parent
FOLDERS = ("core/panel", "plugins")
ASKED = {"t": 0, "plain": 0, "Refusal": 0, "button": 3}
"""Functions that translate, and which of their arguments."""
OTHERS = [language for language in LANGUAGES if language != "en"]


def in_code() -> Iterator[str]:
    """Yield every text that code hands to a function that translates."""
    for folder in FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            named: dict[str, set[str]] = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    named.setdefault(node.targets[0].id, set()).update(texts(node.value))
            for given in filter(None, map(asked_with, ast.walk(tree))):
                yield from texts(given)
                if isinstance(given, ast.Name):
                    yield from named.get(given.id, ())


def asked_with(node: ast.AST) -> ast.expr | None:
    """Return the argument that is translated; None when the node calls nothing that translates."""
    if not isinstance(node, ast.Call):
        return None
    place = ASKED.get(getattr(node.func, "id", getattr(node.func, "attr", "")))
    return node.args[place] if place is not None and len(node.args) > place else None


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value)


def in_tables() -> Iterator[str]:
    """Yield the texts of tables whose values are translated."""
    for kind in KINDS:
        state = ModelState(kind)
        yield from (state.word, *([state.next_step] if state.next_step else []))
    for each in actions.KINDS.values():
        yield from (each.title, each.button, *each.steps)
    yield from (*actions.BAKE_ABORT, *cards.CYCLE_WORDS.values())
    yield from PROVENANCE
    yield from (text for text, _ in models.CHIPS.values())
    yield from (*map(str, Verdict), *map(str, Decision), *layout.GATE_TONES, *model.LOAD_WORDS.values())
    yield from (*get_args(TrainingOutcome), *action.TASK_TONES, *action.PROGRESS_WORDS.values())
    yield from (*cards.CHANGE_WORDS.values(), *(word for _, word in cards.RETRAIN_WORDS.values()))
    yield from ("drifted", "not drifted", "inconclusive", "low", "medium", "high", "{n} d", "{n} h", "{n} min", "{n} s")
    yield from (
        "Approvals",
        "Activity",
        "What do these words mean?",
        "There is no such model",
        "MLflow does not answer",
    )


def values_in(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_text_has_every_language() -> None:
    asked = set(in_code()) | set(in_tables())
    assert len(asked) > 300
    for language in OTHERS:
        assert sorted(asked - catalogue(language).keys()) == [], language


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_same_values_and_is_one(language: Language) -> None:
    letters = {"zh-CN": "[\u4e00-\u9fff]", "ru": "[\u0400-\u04ff]"}[language]
    for english, text in catalogue(language).items():
        assert values_in(text) == values_in(english), english
        assert re.search(letters, text), english


@pytest.mark.parametrize("language", OTHERS)
def test_no_translation_is_left_of_a_text_that_is_gone(language: Language) -> None:
    source = " ".join(
        re.sub(r'["\']\s*\n\s*f?["\']', "", path.read_text())
        for folder in (*FOLDERS, "core/gate", "core/retrain", "core/access")
        for path in (PACKAGE / folder).rglob("*.py")
    )
    gone = [english for english in catalogue(language) if english not in source]
    assert gone == []


@pytest.mark.parametrize(
    ("text", "language"),
    [("zh-CN", "zh-CN"), ("zh", "zh-CN"), ("ru-RU", "ru"), ("RU", "ru"), ("de", "en"), ("", "en")],
)
def test_a_language_is_known_by_its_first_part(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ru-RU,ru;q=0.9,en-US;q=0.8", "ru"),
        ("de-DE,de;q=0.9,zh;q=0.8", "zh-CN"),
        ("en-GB,en;q=0.9,ru;q=0.8", "en"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_without_airflows_language_the_browser_decides(header: str, language: str) -> None:
    assert preferred_language(header) == language


def test_values_are_escaped_and_ages_and_times_are_in_the_language() -> None:
    hostile = "<script>"
    assert Words("ru")("version {version}", version=hostile) == "версия &lt;script&gt;"
    assert Words("zh-CN").age(3 * 86_400) == "3 天"
    noon = datetime(2026, 11, 5, 12, 30, tzinfo=UTC)
    assert [Words(language).time(noon) for language in LANGUAGES] == [
        "05 Nov 2026 12:30",
        "2026-11-05 12:30",
        "05.11.2026 12:30",
    ]
