"""Which changes of the registry are events, from plain data: what was remembered, and what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.contract import TAG_LAST_MOVE
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.claims import Claim
from airflow_mcp.core.registry.events import (
    EVENT_NAMES,
    LONGEST_VALUE,
    MOVED_OUTSIDE,
    ModelState,
    RegistryScope,
    RegistryWatermark,
    SeenModel,
    Wanted,
    look_at_model,
    read_registry_watermark,
    seems_unrecorded,
    versions_to_read,
)
from airflow_mcp.core.registry.moves import MoveRecord

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ALL = Wanted(frozenset(EVENT_NAMES))
MOVES = Wanted(frozenset({"alias_moved", "alias_removed"}))


def version(number: int, status: str = "READY", **tags: str) -> ModelVersion:
    return ModelVersion("fraud", str(number), status, run_id=f"run-{number}", tags=tags)


def model(
    *versions: ModelVersion,
    aliases: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    created: int = 7,
) -> RegisteredModel:
    """Make a registered model as MLflow tells it: the newest version comes with it."""
    newest = tuple(sorted(versions, key=lambda each: int(each.version))[-1:])
    return RegisteredModel("fraud", "", dict(tags or {}), dict(aliases or {}), created, newest)


def seen(*versions: ModelVersion, is_complete: bool = True, **fields: Any) -> SeenModel:
    return SeenModel(model(*versions, **fields), {int(each.version): each for each in versions}, is_complete)


def record(number: int, before: str | None, after: str, action: str = "promote") -> MoveRecord:
    fields = {"at": NOW.isoformat(), "by": f"night-{number}", "number": number, "run_id": f"run-{after}"}
    return MoveRecord(action, f"move-{number}", before, after, **fields)  # type: ignore[arg-type]


def records(*moves: MoveRecord) -> dict[str, str]:
    return {TAG_LAST_MOVE: moves[-1].to_tag(), **{move.done_tag: move.to_tag() for move in moves}}


def changes(before: SeenModel | ModelState | None, after: SeenModel, wanted: Wanted = ALL) -> list[dict[str, Any]]:
    state = look_at_model(None, before, wanted)[0] if isinstance(before, SeenModel) else before
    return look_at_model(state, after, wanted)[1]


def moves(before: SeenModel | ModelState | None, after: SeenModel) -> list[tuple[Any, ...]]:
    return [tuple(each[name] for name in ("alias", "from", "to", "by")) for each in changes(before, after, MOVES)]


# --- first looks ------------------------------------------------------------------------------------------------------


def test_a_first_look_is_no_news_whatever_is_there() -> None:
    there = seen(
        version(1), version(2), aliases={"champion": "2"}, tags={"owner": "ann"} | records(record(1, None, "2"))
    )
    state, events, is_settled = look_at_model(None, there, ALL)
    assert (events, is_settled) == ([], True)
    assert (state.newest, state.move, dict(state.aliases)) == (2, 1, {"champion": "2"})
    assert look_at_model(state, there, ALL) == (state, [], True)


def test_of_a_model_that_was_known_to_be_missing_everything_is_news_but_the_tags_it_came_with() -> None:
    there = seen(version(1), version(2, stage="x"), aliases={"champion": "2"}, tags={"owner": "ann"})
    assert [each["event"] for each in changes(ModelState(), there)] == ["new_version", "new_version", "alias_moved"]


def test_a_model_of_the_same_name_that_was_created_later_is_another_one() -> None:
    before = seen(version(1), version(2), aliases={"champion": "2"})
    again = changes(before, seen(version(1), aliases={"champion": "1"}, created=8))
    assert [(each["event"], each["from"], each["to"]) for each in again] == [
        ("new_version", None, "1"),
        ("alias_moved", None, "1"),
    ]
    assert again[0]["key"] != changes(ModelState(), seen(version(1)))[0]["key"]


def test_what_is_remembered_tells_a_missing_model_from_one_that_was_not_watched() -> None:
    mark = RegistryWatermark(RegistryScope.of(["churn", "fraud-*"]), {"churn": ModelState(newest=3)})
    assert mark.before("churn") == ModelState(newest=3)
    assert mark.before("fraud-eu") == ModelState()
    assert mark.before("other") is None


# --- versions ---------------------------------------------------------------------------------------------------------


def test_every_version_since_is_an_event_by_its_number() -> None:
    after = seen(*map(version, range(1, 6)))
    told = changes(seen(version(1), version(2)), after)
    assert [(each["version"], each["run_id"]) for each in told] == [(str(n), f"run-{n}") for n in (3, 4, 5)]


def test_a_version_is_an_event_when_it_is_ready_and_not_before_or_when_it_failed() -> None:
    first, _, _ = look_at_model(None, seen(version(1)), ALL)
    pending = seen(version(1), version(2, "PENDING_REGISTRATION"), version(3), version(4, "FAILED_REGISTRATION"))
    state, events, is_settled = look_at_model(first, pending, ALL)
    assert [each["version"] for each in events] == ["3"]
    assert (state.waiting, is_settled) == ((2,), False)
    assert versions_to_read(state, pending.model, ALL) == {2}
    ready = seen(version(1), version(2), version(3), version(4, "FAILED_REGISTRATION"))
    state, events, is_settled = look_at_model(state, ready, ALL)
    assert ([each["version"] for each in events], state.waiting, is_settled) == (["2"], (), True)


def test_a_version_that_was_deleted_before_it_was_seen_or_while_it_was_awaited_is_none() -> None:
    state, _, _ = look_at_model(ModelState(created=7), seen(version(1, "PENDING_REGISTRATION")), ALL)
    gone = look_at_model(state, seen(version(3)), ALL)
    assert [each["version"] for each in gone[1]] == ["3"]
    assert gone[0].waiting == ()
    fewer = look_at_model(gone[0], seen(version(2)), ALL)
    assert (fewer[0].newest, fewer[1]) == (3, [])


def test_only_what_the_model_does_not_tell_is_read() -> None:
    state = ModelState(created=7, newest=2, aliases={"a": "1", "b": "2"})
    now = model(*map(version, range(1, 7)), aliases={"a": "1", "b": "1", "c": "6"})
    assert versions_to_read(state, now, ALL) == {1, 3, 4, 5}
    assert versions_to_read(state, now, Wanted(frozenset({"model_tag_changed"}))) == frozenset()
    assert versions_to_read(state, now, Wanted(frozenset({"alias_moved"}), frozenset({"c"}))) == frozenset()
    assert versions_to_read(None, now, ALL) == frozenset()


# --- aliases ----------------------------------------------------------------------------------------------------------


def test_every_recorded_move_is_told_and_gaps_between_records_are_moves_of_others() -> None:
    before = seen(version(9), aliases={"champion": "1"}, tags=records(record(1, None, "1")))
    tags = records(record(1, None, "1"), record(2, "1", "2"), record(3, "5", "6"), record(4, "6", "7"))
    assert moves(before, seen(version(9), aliases={"champion": "8"}, tags=tags)) == [
        ("champion", "1", "2", "night-2"),
        ("champion", "2", "5", MOVED_OUTSIDE),
        ("champion", "5", "6", "night-3"),
        ("champion", "6", "7", "night-4"),
        ("champion", "7", "8", MOVED_OUTSIDE),
    ]


def test_a_move_whose_task_died_before_it_could_say_so_is_told_once() -> None:
    before = seen(version(2), aliases={"champion": "1"})
    died = record(1, "1", "2")
    moved = seen(version(2), aliases={"champion": "2"}, tags={TAG_LAST_MOVE: died.to_tag()})
    state, events, _ = look_at_model(look_at_model(None, before, MOVES)[0], moved, MOVES)
    assert [(each["to"], each["by"]) for each in events] == [("2", "night-1")]
    assert look_at_model(state, seen(version(2), aliases={"champion": "2"}, tags=records(died)), MOVES)[1] == []


def test_equal_moves_of_others_at_one_look_have_keys_of_their_own() -> None:
    before = seen(version(3), aliases={"champion": "1"})
    tags = records(record(1, "2", "1"), record(2, "2", "3"))
    told = changes(before, seen(version(3), aliases={"champion": "3"}, tags=tags), MOVES)
    assert [(each["from"], each["to"]) for each in told] == [("1", "2"), ("2", "1"), ("1", "2"), ("2", "3")]
    assert len({each["key"] for each in told}) == 4


def test_the_way_back_is_moved_by_who_moved_the_champion() -> None:
    before = seen(version(3), aliases={"champion": "1", "previous_champion": "9"})
    forward = seen(version(3), aliases={"champion": "2", "previous_champion": "1"}, tags=records(record(1, "1", "2")))
    assert moves(before, forward)[1:] == [("previous_champion", "9", "1", "night-1")]
    tags = records(record(1, "1", "2"), record(2, "2", "1", "rollback"))
    back = seen(version(3), aliases={"champion": "1"}, tags=tags)
    assert moves(forward, back)[1:] == [("previous_champion", "1", None, "night-2")]
    by_hand = seen(version(3), aliases={"champion": "2", "previous_champion": "3"}, tags=records(record(1, "1", "2")))
    assert moves(forward, by_hand) == [("previous_champion", "1", "3", MOVED_OUTSIDE)]


def test_while_a_move_is_under_way_nothing_is_said_of_the_way_back() -> None:
    before = seen(version(3), aliases={"champion": "1", "previous_champion": "3"})
    begun = {TAG_LAST_MOVE: replace(record(1, "1", "2"), previous_before="3").to_tag()}
    moved = {"champion": "2", "previous_champion": "1"}
    state = look_at_model(None, before, MOVES)[0]
    for aliases in ({**moved, "previous_champion": "3"}, moved):
        under_way = seen(version(3), aliases=aliases, tags=begun)
        later, events, is_settled = look_at_model(state, under_way, MOVES)
        assert [(each["alias"], each["by"]) for each in events] == [("champion", "night-1")]
        assert (is_settled, dict(later.aliases)) == (False, {"champion": "2", "previous_champion": "3"})
        assert not seems_unrecorded(state, under_way.model)
        assert moves(later, seen(version(3), aliases=moved, tags=records(record(1, "1", "2")))) == [
            ("previous_champion", "3", "1", "night-1")
        ]
    by_hand = seen(version(3), aliases={"champion": "1", "previous_champion": "1"}, tags=begun)
    assert seems_unrecorded(state, by_hand.model), "the move has not begun"


def test_only_unrecorded_moves_of_our_aliases_are_worth_a_second_reading() -> None:
    state, _, _ = look_at_model(None, seen(version(3), aliases={"champion": "1", "my_champion": "1"}), ALL)
    assert not seems_unrecorded(state, model(version(3), aliases={"champion": "1", "my_champion": "2"}))
    assert seems_unrecorded(state, model(version(3), aliases={"champion": "2", "my_champion": "1"}))
    told = model(version(3), aliases={"champion": "2"}, tags=records(record(1, "1", "2")))
    assert not seems_unrecorded(state, told)
    assert not seems_unrecorded(None, told)
    newer_tags = model(version(3), aliases={"champion": "1"}, tags=records(record(1, "1", "2")))
    assert seems_unrecorded(state, newer_tags), "the tags were read after the alias"


def test_only_the_aliases_that_count_are_told_and_the_others_are_remembered() -> None:
    before = seen(version(3), aliases={"a": "1", "b": "1"})
    wanted = Wanted(frozenset({"alias_moved"}), frozenset({"a"}))
    state, _, _ = look_at_model(None, before, wanted)
    state, events, _ = look_at_model(state, seen(version(3), aliases={"a": "2", "b": "2"}), wanted)
    assert [(each["alias"], each["run_id"]) for each in events] == [("a", "")]
    assert state.aliases["b"] == "2"
    assert changes(state, seen(version(3), aliases={"b": "2"}), wanted) == []


# --- tags -------------------------------------------------------------------------------------------------------------


def test_tags_that_are_set_changed_and_removed_are_told_but_not_our_own_bookkeeping() -> None:
    claim = Claim("t", NOW + timedelta(seconds=60), "a task")
    before = seen(version(1, stage="dev"), version(2), tags={"a": "1", "b": "1", claim.tag: claim.to_value()})
    after = seen(version(1, stage="prod"), version(2), version(3, stage="dev"), tags={"b": "2", "c": "1"})
    told = [tuple(each[name] for name in ("tag", "version", "from", "to")) for each in changes(before, after)]
    assert told == [
        ("", "3", None, "3"),
        ("a", "", "1", None),
        ("b", "", "1", "2"),
        ("c", "", None, "1"),
        ("stage", "1", "dev", "prod"),
    ]


def test_tags_that_begin_to_be_watched_are_compared_from_then_on() -> None:
    state, _, _ = look_at_model(None, seen(version(1), tags={"a": "1"}), MOVES)
    state, events, _ = look_at_model(state, seen(version(1), tags={"a": "2"}), ALL)
    assert events == []
    assert len(changes(state, seen(version(1), tags={"a": "3"}))) == 1


def test_a_long_value_is_told_by_its_beginning_and_its_hash_and_every_change_of_it_is_seen() -> None:
    long = "x" * 5000
    (change,) = changes(seen(tags={"a": long}), seen(tags={"a": long + "y"}))
    assert change["from"] != change["to"]
    assert max(len(change["from"]), len(change["to"])) <= LONGEST_VALUE


# --- keys and what is kept --------------------------------------------------------------------------------------------


def test_every_event_of_a_look_has_the_same_fields_and_none_beside_those_that_are_documented() -> None:
    state, _, _ = look_at_model(None, seen(version(2), aliases={"a": "1", "b": "1"}, tags={"t": "1"}), ALL)
    told = changes(state, seen(version(2), aliases={"a": "2", "b": "2"}, tags={"t": "2"}))
    fields = ["event", "model_name", "version", "run_id", "alias", "tag", "from", "to", "by", "reason", "key"]
    assert [sorted(each) for each in told] == [sorted(fields)] * 3


def test_the_same_change_from_the_same_state_has_the_same_key_whatever_else_has_changed() -> None:
    state, _, _ = look_at_model(None, seen(version(1), aliases={"a": "1"}), ALL)
    once = changes(state, seen(version(1), version(2), aliases={"a": "2"}))
    more = changes(state, seen(version(1), version(2), version(3), aliases={"0": "1", "a": "2"}, tags={"t": "1"}))
    assert {each["key"] for each in once} < {each["key"] for each in more}
    assert len({each["key"] for each in more}) == 5


def test_the_same_change_at_a_later_time_has_another_key() -> None:
    state, _, _ = look_at_model(None, seen(version(2), aliases={"a": "1"}, tags={"t": "1"}), ALL)
    keys: list[str] = []
    for alias in ("2", "1", "2", "1"):
        state, events, _ = look_at_model(state, seen(version(2), aliases={"a": alias}, tags={"t": alias}), ALL)
        keys += [each["key"] for each in events]
    assert len(keys) == len(set(keys)) == 8


def test_what_is_remembered_survives_the_store() -> None:
    state, _, _ = look_at_model(
        None, seen(version(1, "PENDING_REGISTRATION", a="b"), aliases={"x": "1"}, tags={"t": "1"}), ALL
    )
    mark = RegistryWatermark(RegistryScope.of(["fraud", "churn-*", "*"]), {"fraud": state, "churn-1": ModelState()})
    stored = json.loads(json.dumps(mark.to_json()))
    assert read_registry_watermark(stored) == mark
    assert state.waiting == (1,)


@pytest.mark.parametrize(
    "stored", [None, "x", 3, [], {}, {"mark": "a", "seen": []}, {"watched": [], "models": {"a": {"unknown": 1}}}]
)
def test_what_is_no_watermark_counts_as_none(stored: Any) -> None:
    assert read_registry_watermark(stored) is None


def test_a_scope_knows_what_it_means_and_what_it_includes() -> None:
    scope = RegistryScope.of(["fraud", "churn-*"])
    assert [name for name in ("fraud", "fraud-2", "churn", "churn-2") if scope.has(name)] == ["fraud", "churn-2"]
    assert scope.includes(RegistryScope.of(["churn-eu-*", "churn-2", "fraud"]))
    assert not scope.includes(RegistryScope.of(["chu*"]))
    assert RegistryScope.of(["*"]).includes(scope)
    assert RegistryScope.union([scope, RegistryScope.of(["a"])]) == RegistryScope.of(["a", "fraud", "churn-*"])


def test_a_state_is_never_changed_by_a_look() -> None:
    state = ModelState(created=7, newest=1, aliases={"a": "1"}, tags={"t": "1"}, version_tags={"1": {}})
    same = replace(state)
    look_at_model(state, seen(version(2), aliases={"a": "2"}, tags={"t": "2"}), ALL)
    assert state == same
