"""The history of a champion: recorded moves, moves outside airflow-mcp, and what was in production at a moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mcp.core.contract import TAG_LAST_MOVE
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.history import (
    champion_at,
    changes_between,
    former_champions,
    is_way_back,
    mover_of,
    parse_time,
    provenance_difference,
    read_timeline,
    unrecorded_moves,
)
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.exceptions import InvalidArgumentError


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 21, hour, minute, tzinfo=UTC)


NOW = at(12)


def move(hour: int, before: str | None, after: str, action: str = "promote", number: int = 0) -> MoveRecord:
    return MoveRecord(
        action, f"{action}-{hour}-{after}", before, after, at(hour).isoformat(), "dag.task run-1", "why", number
    )


def model(*moves: MoveRecord, intended: MoveRecord | None = None, **aliases: str) -> RegisteredModel:
    """Write moves that were done, and perhaps one that was only begun, as tags."""
    tags = {done.done_tag: done.to_tag() for done in moves}
    last = intended or (moves[-1] if moves else None)
    if last is not None:
        tags[TAG_LAST_MOVE] = last.to_tag()
    return RegisteredModel("fraud", tags=tags, aliases=aliases)


def told(registered: RegisteredModel) -> list[tuple[str, str | None, str | None]]:
    """Tell a timeline in short."""
    return [
        (change.move.action if change.move else "unrecorded", change.before, change.after)
        for change in read_timeline(registered, NOW).changes
    ]


THREE = (move(1, None, "1"), move(3, "1", "2"), move(5, "2", "1", "rollback"))


def test_recorded_moves_are_told_oldest_first() -> None:
    timeline = read_timeline(model(*reversed(THREE), champion="1", intended=THREE[2]), NOW)
    assert [change.move for change in timeline.changes] == list(THREE)
    assert [change.latest for change in timeline.changes] == [at(1), at(3), at(5)]
    assert all(change.earliest == change.latest for change in timeline.changes)


def test_a_model_without_champion_and_moves_has_no_changes() -> None:
    assert told(model()) == []
    assert champion_at(read_timeline(model(), NOW), at(3)).versions == (None,)


@pytest.mark.parametrize(
    ("hour", "minute", "version"), [(0, 59, None), (1, 0, "1"), (2, 59, "1"), (3, 0, "2"), (5, 0, "1"), (12, 0, "1")]
)
def test_the_champion_at_a_moment(hour: int, minute: int, version: str | None) -> None:
    answer = champion_at(read_timeline(model(*THREE, champion="1"), NOW), at(hour, minute))
    assert (answer.versions, answer.doubtful) == ((version,), ())
    assert (answer.since is None) == (version is None)


def test_a_moment_in_the_future_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="time must be at or before now"):
        champion_at(read_timeline(model(*THREE, champion="1"), NOW), NOW + timedelta(seconds=1))


def test_the_numbers_of_moves_count_more_than_the_clocks_of_their_workers() -> None:
    ahead = move(9, None, "1", number=1)
    timeline = read_timeline(model(ahead, move(3, "1", "2", number=2), champion="2"), NOW)
    assert [change.after for change in timeline.changes] == ["1", "2"]
    assert [change.latest for change in timeline.changes] == [at(9), at(9)]


def test_a_champion_that_nobody_recorded_was_set_outside_airflow_mcp() -> None:
    assert told(model(champion="4")) == [("unrecorded", None, "4")]
    answer = champion_at(read_timeline(model(champion="4"), NOW), at(3))
    assert answer.versions == (None, "4")
    assert champion_at(read_timeline(model(champion="4"), NOW), NOW).versions == ("4",)


def test_an_alias_that_is_not_where_the_last_move_left_it_was_moved_since() -> None:
    registered = model(*THREE, champion="7")
    assert told(registered)[-1] == ("unrecorded", "1", "7")
    timeline = read_timeline(registered, NOW)
    assert champion_at(timeline, at(4)).versions == ("2",)
    assert champion_at(timeline, at(6)).versions == ("1", "7")
    assert champion_at(timeline, NOW).versions == ("7",)
    (found,) = unrecorded_moves(registered)
    assert (found.alias, found.recorded, found.found, found.last) == ("champion", "1", "7", THREE[2])


def test_a_champion_that_is_gone_is_told_too() -> None:
    assert told(model(THREE[0]))[-1] == ("unrecorded", "1", None)
    assert [(found.recorded, found.found) for found in unrecorded_moves(model(THREE[0]))] == [("1", None)]


def test_a_move_between_two_records_is_told_with_the_time_in_which_it_happened() -> None:
    timeline = read_timeline(model(move(1, None, "1"), move(3, "9", "2"), champion="2"), NOW)
    (hidden,) = [change for change in timeline.changes if change.move is None]
    assert (hidden.before, hidden.after, hidden.earliest, hidden.latest) == ("1", "9", at(1), at(3))
    assert champion_at(timeline, at(2)).versions == ("1", "9")
    assert champion_at(timeline, at(3)).versions == ("2",)


def test_a_champion_from_before_the_first_record_is_told_as_such() -> None:
    timeline = read_timeline(model(move(3, "1", "2"), champion="2"), NOW)
    assert [(change.earliest, change.before, change.after) for change in timeline.changes[:1]] == [(None, None, "1")]
    assert champion_at(timeline, at(1)).versions == (None, "1")


def test_a_move_whose_task_died_before_recording_it_belongs_to_the_history() -> None:
    died = move(6, "1", "3")
    registered = model(*THREE, intended=died, champion="3", previous_champion="1")
    assert told(registered)[-1] == ("promote", "1", "3")
    assert unrecorded_moves(registered) == ()


def test_a_move_that_broke_off_before_the_alias_does_not() -> None:
    registered = model(*THREE, intended=move(6, "1", "3"), champion="1")
    assert told(registered)[-1] == ("rollback", "2", "1")
    assert unrecorded_moves(registered) == ()


@pytest.mark.parametrize(
    ("moves", "aliases", "alias", "recorded", "found"),
    [
        (THREE, {"champion": "1", "previous_champion": "2"}, "previous_champion", None, "2"),
        (THREE[:2], {"champion": "2"}, "previous_champion", "1", None),
        (THREE[:2], {"champion": "2", "previous_champion": "5"}, "previous_champion", "1", "5"),
    ],
    ids=["set-after-a-rollback", "removed", "set-to-another"],
)
def test_the_way_back_can_be_moved_outside_airflow_mcp_too(
    moves: tuple[MoveRecord, ...], aliases: dict[str, str], alias: str, recorded: str | None, found: str | None
) -> None:
    (foreign,) = unrecorded_moves(model(*moves, **aliases))
    assert (foreign.alias, foreign.recorded, foreign.found) == (alias, recorded, found)


def test_what_is_as_recorded_is_no_foreign_move() -> None:
    assert unrecorded_moves(model(*THREE, champion="1")) == ()
    assert unrecorded_moves(model(*THREE[:2], champion="2", previous_champion="1")) == ()
    assert unrecorded_moves(model(champion="4")) == ()


@pytest.mark.parametrize(
    ("intended", "places"),
    [
        (move(6, "2", "3"), [("2", "1"), ("3", "1"), ("3", "2")]),
        (move(6, "2", "1", "rollback"), [("2", "1"), ("1", "1"), ("1", None)]),
    ],
    ids=["promotion", "rollback"],
)
def test_nobody_is_accused_of_a_move_that_airflow_mcp_has_not_finished(
    intended: MoveRecord, places: list[tuple[str, str | None]]
) -> None:
    begun = replace(intended, previous_before="1")
    for champion, previous in places:
        aliases = {"champion": champion} | ({"previous_champion": previous} if previous else {})
        registered = model(*THREE[:2], intended=begun, **aliases)
        assert unrecorded_moves(registered) == ()
        assert "unrecorded" not in [action for action, _, _ in told(registered)]
    moved = model(*THREE[:2], intended=begun, champion=intended.champion_after, previous_champion="7")
    assert [found.alias for found in unrecorded_moves(moved)] == ["previous_champion"]


def test_a_version_is_a_way_back_when_it_was_champion_or_has_the_alias() -> None:
    registered = model(*THREE, champion="1", previous_champion="9")
    assert [is_way_back(registered, version) for version in ("2", "9", "3")] == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "afters"),
    [(0, 1, ["1"]), (1, 3, ["2"]), (1, 2, []), (0, 12, ["1", "2", "1"]), (5, 12, [])],
)
def test_the_changes_between_two_moments(first: int, second: int, afters: list[str]) -> None:
    timeline = read_timeline(model(*THREE, champion="1"), NOW)
    assert [change.after for change in changes_between(timeline, at(first), at(second))] == afters


def test_changes_of_an_unknown_time_are_among_those_between_two_moments() -> None:
    timeline = read_timeline(model(*THREE, champion="7"), NOW)
    assert [change.after for change in changes_between(timeline, at(6), at(7))] == ["7"]


def test_former_champions_are_named_latest_first_and_once() -> None:
    moves = (move(1, "9", "1"), move(3, "1", "2"), move(5, "2", "3"), move(7, "3", "2", "rollback"))
    assert former_champions(model(*moves, champion="2")) == ("3", "1", "9")
    assert former_champions(model(*moves)) == ("2", "3", "1", "9")
    assert former_champions(model(champion="1")) == ()


def test_only_our_tags_that_differ_are_compared() -> None:
    old = {"airflow_mcp.data_version": "v1", "airflow_mcp.code_commit": "a", "team": "x", "airflow_mcp.image": "i"}
    new = {"airflow_mcp.data_version": "v2", "airflow_mcp.code_commit": "a", "team": "y"}
    assert provenance_difference(old, new) == {
        "airflow_mcp.data_version": ("v1", "v2"),
        "airflow_mcp.image": ("i", None),
    }


@pytest.mark.parametrize("text", ["{", '{"at": 5}', '{"action": "promote"}', "[]", '"text"'])
def test_a_tag_that_somebody_else_wrote_is_no_move(text: str) -> None:
    registered = RegisteredModel("fraud", tags={"airflow_mcp.move.x": text, TAG_LAST_MOVE: text}, aliases={})
    assert told(registered) == []


def test_a_record_without_a_readable_time_is_left_out() -> None:
    broken = MoveRecord("promote", "x", None, "1", "yesterday", "somebody")
    assert told(model(broken, champion="1")) == [("unrecorded", None, "1")]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-21T08:00Z", at(8)),
        ("2026-11-21T08:00:00+00:00", at(8)),
        ("2026-11-21T09:00+01:00", at(8)),
        ("20261121T080000Z", at(8)),
    ],
)
def test_a_moment_is_read_with_its_offset(text: str, utc: datetime) -> None:
    assert parse_time("time", text) == utc


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00Z", "08:00Z", "1763712000"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"time must be ISO 8601 with an offset.*; got {text!r}"):
        parse_time("time", text)


@pytest.mark.parametrize("text", ["2026-11-21", "2026-11-21T08:00"])
def test_a_moment_without_an_offset_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Without an offset it depends on the reader's time zone"):
        parse_time("time", text)


def test_who_moved_an_alias_is_known_while_it_is_where_the_record_left_it() -> None:
    kept = model(*THREE[:2], champion="2", previous_champion="1", challenger="9")
    assert mover_of(kept, "champion") == THREE[1]
    assert mover_of(kept, "previous_champion") == THREE[1]
    assert mover_of(kept, "challenger") is None
    moved = model(*THREE[:2], champion="7", previous_champion="1")
    assert mover_of(moved, "champion") is None
    assert mover_of(moved, "previous_champion") == THREE[1]
    assert mover_of(model(*THREE, champion="1"), "previous_champion") == THREE[2], "a rollback takes it away"
    assert mover_of(model(*THREE, champion="1", previous_champion="2"), "previous_champion") is None
    assert mover_of(model(champion="1"), "champion") is None


def test_the_first_promotion_is_not_held_to_have_set_a_way_back_that_somebody_set_by_hand_since() -> None:
    by_hand = model(THREE[0], champion="1", previous_champion="2")
    assert mover_of(by_hand, "previous_champion") is None
    assert mover_of(by_hand, "champion") == THREE[0]
