"""Records of moves: how they are written, read and numbered."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_LAST_MOVE
from airflow_mcp.core.registry.moves import MoveRecord, next_number, read_last_move
from airflow_mcp.core.registry.plans import plan_rollback

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
