"""Older records of moves in packed tags: nothing is lost, and what a read carries grows slowly."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from airflow_mcp.core.contract import TAG_LAST_MOVE, TAG_LAST_STAGE_MOVE, TAG_MOVE_PREFIX, TAG_PACKED_MOVES_PREFIX
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.history import former_champions, recorded_moves, unrecorded_moves
from airflow_mcp.core.registry.moves import MoveRecord, read_done_move, read_history, unfinished_move
from airflow_mcp.core.registry.packed_moves import (
    KEPT,
    MAX_RECORD_CHARACTERS,
    PACKED_FROM,
    done_records,
    plan_packing,
    recent_records,
)
from airflow_mcp.core.registry.stages import StageMove, read_stage_moves, unfinished_stage_move

LETTERS = random.Random(7)


def record(number: int, reason: str = "retrain: the data drifted") -> MoveRecord:
    return MoveRecord(
        action="promote",
        identity=f"{LETTERS.getrandbits(128):032x}",
        champion_before=str(number - 1) if number > 1 else None,
        champion_after=str(number),
        at=f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}.{LETTERS.randrange(10**6):06}+00:00",
        by=f"nightly_retrain.promote retrain__churn__night-{number}__{LETTERS.getrandbits(48):012x}",
        reason=f"{reason} (version night-{number})",
        number=number,
        run_id=f"{LETTERS.getrandbits(128):032x}",
        gate_verdict="passed",
        load_check=f"passed at 2026-01-01T00:00:{number % 60:02}.000000+00:00",
    )


def done(tags: dict[str, str], move: MoveRecord | StageMove) -> None:
    """Record a move as a mover does, and pack when it is time."""
    last = TAG_LAST_MOVE if isinstance(move, MoveRecord) else TAG_LAST_STAGE_MOVE
    tags |= {last: move.to_tag(), move.done_tag: move.to_tag()}
    if (packing := plan_packing(tags)) is not None:
        tags |= packing.to_set
        for name in packing.to_delete:
            del tags[name]


def size(tags: dict[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in tags.items())


def test_of_a_long_history_every_record_is_kept_and_few_have_a_tag_of_their_own() -> None:
    tags: dict[str, str] = {}
    moves = [record(number) for number in range(1, 1001)]
    for move in moves:
        done(tags, move)
    assert read_history(tags) == tuple(moves)
    assert len(recent_records(tags)) < PACKED_FROM
    assert all(len(value) <= MAX_RECORD_CHARACTERS for value in tags.values())
    assert len([name for name in tags if name.startswith(TAG_PACKED_MOVES_PREFIX)]) < 40
    assert size(tags) < size({move.done_tag: move.to_tag() for move in moves}) / 3
    model = RegisteredModel("churn", tags=tags, aliases={"champion": "1000", "previous_champion": "999"})
    assert (unrecorded_moves(model), unfinished_move(model.aliases, tags)) == ((), None)
    assert former_champions(model)[-1] == "1"
    assert read_done_move(tags, moves[3].identity) == moves[3]
    assert read_done_move(tags, moves[999].identity) == moves[999]
    assert read_done_move(tags, "0" * 32) is None


def test_nothing_is_packed_while_there_are_few() -> None:
    tags = {move.done_tag: move.to_tag() for move in map(record, range(1, PACKED_FROM))}
    assert plan_packing(tags) is None
    last = record(PACKED_FROM)
    packing = plan_packing(tags | {last.done_tag: last.to_tag()})
    assert packing is not None
    assert len(packing.to_delete) == PACKED_FROM - KEPT


def test_dying_anywhere_while_packing_loses_nothing_and_the_next_packing_completes_it() -> None:
    tags = {move.done_tag: move.to_tag() for move in map(record, range(1, PACKED_FROM + 1))}
    moves = read_history(tags)
    packing = plan_packing(tags)
    assert packing is not None
    steps = [*packing.to_set.items(), *((name, "") for name in packing.to_delete)]
    left = dict(tags)
    for name, value in steps:
        left = {**left, name: value} if value else {key: each for key, each in left.items() if key != name}
        assert read_history(left) == moves
        extra = {move.done_tag: move.to_tag() for move in map(record, range(100, 100 + PACKED_FROM))}
        again = plan_packing(left | extra)
        assert again is not None
        after = {**left, **extra, **again.to_set}
        for gone in again.to_delete:
            del after[gone]
        assert len(recent_records(after)) == KEPT
        assert len(read_history(after)) == len(moves) + len(extra)


def test_the_latest_move_of_each_kind_keeps_its_tag_however_many_of_the_other_kind_follow() -> None:
    tags: dict[str, str] = {}
    champion = record(1)
    done(tags, champion)
    for number in range(2, 200):
        stage = StageMove("transition", f"{number:032x}", {str(number): "Staging"}, None, str(number), "2026", "me")
        done(tags, replace(stage, number=number))
    aliases = {"champion": "1", "challenger": "199"}
    model = RegisteredModel("churn", tags=tags, aliases=aliases)
    assert champion.done_tag in tags
    assert (unfinished_move(aliases, tags), unfinished_stage_move(model)) == (None, None)
    assert [move.number for move in read_stage_moves(model)] == list(range(2, 200))
    assert recorded_moves(model) == (champion,)


def test_a_record_that_does_not_shrink_keeps_its_own_tag() -> None:
    noise = "".join(chr(0x4E00 + LETTERS.randrange(20_000)) for _ in range(4_000))
    long = record(1, noise)
    tags: dict[str, str] = {}
    for move in (long, *map(record, range(2, PACKED_FROM + 1))):
        done(tags, move)
    assert long.done_tag in tags
    assert len(read_history(tags)) == PACKED_FROM


@pytest.mark.parametrize("value", ["", "no pack", "c$@(M0RR910", "{}", "ü"])
def test_a_tag_that_somebody_else_wrote_counts_as_no_records(value: str) -> None:
    move = record(1)
    tags = {f"{TAG_PACKED_MOVES_PREFIX}x": value, move.done_tag: move.to_tag()}
    assert done_records(tags) == {move.done_tag: move.to_tag()}
    assert move.done_tag == TAG_MOVE_PREFIX + move.identity
