"""Records of moves: how they are written, read and numbered."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_LAST_MOVE
from airflow_mcp.core.registry.moves import (
    MAX_RECORD_CHARACTERS,
    MoveOrder,
    MoveRecord,
    next_number,
    read_last_move,
    storable_text,
)
from airflow_mcp.core.registry.plans import plan_rollback
from airflow_mcp.exceptions import InvalidArgumentError

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def test_the_latest_move_survives_its_tag() -> None:
    move = MoveRecord("rollback", "night-1", "4", "3", NOW.isoformat(), "dag.task run", 'it "broke" <b>')
    assert read_last_move({TAG_LAST_MOVE: move.to_tag()}) == move


@pytest.mark.parametrize(
    "value", ["", "null", "3", "[]", '"text"', "{", "{}", '{"action": "promote"}', '{"unknown": 1}']
)
def test_a_foreign_record_counts_as_none(value: str) -> None:
    assert read_last_move({TAG_LAST_MOVE: value}) is None
    plan = plan_rollback(
        {ALIAS_CHAMPION: "4", ALIAS_PREVIOUS_CHAMPION: "3"},
        {TAG_LAST_MOVE: value},
        model_name="m",
        identity="i",
        to_version=None,
    )
    assert plan.champion_after == "3"


def test_no_record_is_none() -> None:
    assert read_last_move({}) is None


def test_the_next_number_is_above_every_move_that_was_done_or_begun() -> None:
    def tag(number: int) -> str:
        return MoveRecord("promote", f"m{number}", None, "1", NOW.isoformat(), "me", number=number).to_tag()

    assert next_number({}) == 1
    assert next_number({"airflow_mcp.move.m1": tag(1), "airflow_mcp.move.m4": tag(4)}) == 5
    assert next_number({"airflow_mcp.move.m1": tag(1), TAG_LAST_MOVE: tag(2)}) == 3


LONG_REASONS = ["x" * 5001, "x" * 200_000, "ж" * 900, "漢" * 6000, '"' * 6000, "\n" * 6000, "\x01" * 6000, "🙂" * 6000]


@pytest.mark.parametrize("reason", LONG_REASONS, ids=lambda reason: f"{reason[0]!a}-{len(reason)}")
def test_a_long_reason_is_cut_so_that_the_record_fits_and_says_so(reason: str) -> None:
    order = MoveOrder("promote", "i" * 32, Actor("task", "d" * 250, "r" * 250), reason)
    record = MoveRecord("promote", order.identity, "1", "2", NOW.isoformat(), str(order.by), order.reason, number=12)
    fitted = record.fitted()
    assert len(fitted.to_tag()) <= MAX_RECORD_CHARACTERS
    assert read_last_move({TAG_LAST_MOVE: fitted.to_tag()}) == fitted
    if reason == "ж" * 900:
        assert fitted.reason == reason
    else:
        assert fitted.reason.endswith("… (cut)")
        assert len(fitted.to_tag()) > 0.9 * MAX_RECORD_CHARACTERS


def test_a_record_that_cannot_fit_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="Nothing was moved"):
        MoveRecord("promote", "i", "1", "2", NOW.isoformat(), "x" * 5000, "why").fitted()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (None, ""),
        ({"a": 1}, "{'a': 1}"),
        (b"\xffnight", "\ufffdnight"),
        (date(2026, 11, 21), "2026-11-21"),
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("a\nb 🙂", "a\nb 🙂"),
    ],
)
def test_a_reason_of_any_kind_becomes_text_that_every_database_keeps(value: Any, text: str) -> None:
    assert storable_text(value) == text
    order = MoveOrder("rollback", "i", Actor("task", "d.t", "r"), value)
    assert order.reason == text
    MoveRecord("rollback", "i", "2", "1", NOW.isoformat(), "d", order.reason).to_tag().encode()
