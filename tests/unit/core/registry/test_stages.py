"""Stages as aliases and recorded moves say them, and moves between them as plans."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import TAG_LAST_MOVE, TAG_LAST_STAGE_MOVE, TAG_MIRROR_STAGES, TAG_STAGE_MOVE_PREFIX
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Stage
from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord, next_number
from airflow_mcp.core.registry.stages import (
    MAX_RECORD_CHARACTERS,
    STAGES,
    StageMove,
    is_mirrored,
    plan_mirror,
    plan_stage,
    read_short_list,
    read_stage_moves,
    read_stages,
    require_archivable,
    require_one_production,
    require_stage,
    short_list,
    stage_drift,
    unfinished_stage_move,
)
from airflow_mcp.exceptions import AliasConflictError, InvalidArgumentError

AT = "2026-11-21T05:00:00+00:00"
ORDER = MoveOrder("transition", "move-1", Actor("task", "dag.task", "run-1"), "why")


class Registry:
    """A registered model on which plans are carried out as the mover does it, without a server."""

    def __init__(self, **aliases: str) -> None:
        self.model = RegisteredModel("fraud", aliases=aliases)
        self._count = 0

    def _write(self, aliases: dict[str, str | None], **tags: str) -> None:
        merged = {**self.model.aliases, **aliases}
        kept = {alias: version for alias, version in merged.items() if version is not None}
        self.model = replace(self.model, aliases=kept, tags={**self.model.tags, **tags})

    def shift(self, version: str, stage: Stage, *, archive_existing: bool = False) -> StageMove | None:
        self._count += 1
        key = f"stage-{self._count}"
        plan = plan_stage(self.model, identity=key, version=version, stage=stage, archive_existing=archive_existing)
        if plan.is_done:
            return None
        move = replace(
            plan.record(replace(ORDER, identity=key), datetime.fromisoformat(AT)), number=next_number(self.model.tags)
        )
        assert plan.challenger_before == self.model.aliases.get("challenger")
        self._write({"challenger": plan.challenger_after}, **{move.done_tag: move.to_tag()})
        return move

    def promote(self, version: str) -> None:
        self._count += 1
        number, before = next_number(self.model.tags), self.model.aliases.get("champion")
        move = MoveRecord("promote", f"promotion-{self._count}", before, version, AT, "dag.task", number=number)
        left = {"challenger": None} if self.model.aliases.get("challenger") in (version, before) else {}
        aliases = {"champion": version, "previous_champion": before, **left}
        self._write(aliases, **{TAG_LAST_MOVE: move.to_tag(), move.done_tag: move.to_tag()})

    def outside(self, **aliases: str | None) -> None:
        self._write(aliases)

    @property
    def stages(self) -> dict[str, Stage]:
        return {version: its.stage for version, its in sorted(read_stages(self.model).items())}


# --- reading ---------------------------------------------------------------------------------------------------------
def test_aliases_alone_say_the_stages() -> None:
    assert Registry(champion="3", challenger="4", previous_champion="2", other="1").stages == {
        "2": "Archived",
        "3": "Production",
        "4": "Staging",
    }


def test_a_champion_that_left_is_archived_for_good_though_the_way_back_is_another_by_now() -> None:
    registry = Registry()
    for version in ("1", "2", "3"):
        registry.promote(version)
    assert registry.stages == {"1": "Archived", "2": "Archived", "3": "Production"}


def test_a_champion_that_was_taken_away_outside_is_archived() -> None:
    registry = Registry()
    registry.promote("1")
    registry.outside(champion=None)
    assert registry.stages == {"1": "Archived"}


def test_the_champion_is_in_production_whatever_a_record_says() -> None:
    registry = Registry()
    registry.shift("1", "Staging")
    registry.outside(champion="1")
    assert registry.stages == {"1": "Production"}


def test_a_challenger_that_was_taken_away_outside_is_in_none_as_the_aliases_say() -> None:
    registry = Registry()
    registry.shift("5", "Staging")
    registry.outside(challenger=None)
    assert read_stages(registry.model)["5"].why == "alias challenger was removed outside airflow-mcp"
    registry.outside(challenger="6")
    assert registry.stages == {"5": "None", "6": "Staging"}


def test_a_record_of_somebody_elses_is_no_move() -> None:
    for text in ("", "x", "[]", "{}", '{"stages": {}}', '{"stages": {"Staging": "a"}}', '{"stages": "1"}'):
        tags = {f"{TAG_STAGE_MOVE_PREFIX}x": text, TAG_LAST_STAGE_MOVE: text}
        assert read_stage_moves(RegisteredModel("fraud", tags=tags)) == ()


# --- setting ---------------------------------------------------------------------------------------------------------
def test_the_way_of_a_version_through_the_stages() -> None:
    registry = Registry()
    registry.promote("1")
    registry.shift("2", "Staging")
    assert registry.stages == {"1": "Production", "2": "Staging"}
    registry.promote("2")
    assert registry.stages == {"1": "Archived", "2": "Production"}
    assert registry.model.aliases == {"champion": "2", "previous_champion": "1"}
    registry.shift("1", "None")
    assert registry.stages["1"] == "None"


def test_several_versions_may_be_in_staging_and_the_latest_is_the_challenger() -> None:
    registry = Registry(challenger="3")
    registry.shift("4", "Staging")
    registry.shift("5", "Staging")
    assert registry.stages == {"3": "Staging", "4": "Staging", "5": "Staging"}
    assert registry.model.aliases["challenger"] == "5"


def test_archiving_the_existing_empties_staging_but_for_the_new_one() -> None:
    registry = Registry(challenger="3")
    registry.shift("4", "Staging")
    move = registry.shift("5", "Staging", archive_existing=True)
    assert registry.stages == {"3": "Archived", "4": "Archived", "5": "Staging"}
    assert move is not None
    assert move.to_json()["stages"] == {"Staging": "5", "Archived": "3-4"}
    assert registry.shift("5", "Staging", archive_existing=True) is None


def test_a_challenger_that_leaves_staging_loses_the_alias_and_the_others_stay() -> None:
    registry = Registry()
    registry.shift("4", "Staging")
    registry.shift("5", "Staging")
    registry.shift("5", "Archived")
    assert registry.stages == {"4": "Staging", "5": "Archived"}
    assert registry.model.aliases == {}


def test_a_version_that_is_already_in_staging_takes_the_alias_when_it_is_put_there_again() -> None:
    registry = Registry()
    registry.shift("4", "Staging")
    registry.shift("5", "Staging")
    registry.shift("4", "Staging")
    assert registry.model.aliases["challenger"] == "4"
    assert registry.stages == {"4": "Staging", "5": "Staging"}


def test_a_version_that_was_promoted_from_staging_does_not_fall_back_into_it() -> None:
    registry = Registry()
    registry.shift("1", "Staging")
    registry.promote("1")
    registry.promote("2")
    assert registry.stages == {"1": "Archived", "2": "Production"}


@pytest.mark.parametrize("stage", ["None", "Staging", "Archived"])
def test_the_champion_never_leaves_production_by_itself(stage: Stage) -> None:
    with pytest.raises(AliasConflictError, match="version 1 is the champion, and a champion leaves Production only"):
        Registry(champion="1").shift("1", stage)


@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_where_a_version_already_is_nothing_is_left_to_do(stage: Stage) -> None:
    registry = Registry()
    registry.shift("1", "Archived")
    assert (registry.shift("1", stage) is None) == (stage == "Archived")


def test_a_move_that_is_recorded_under_its_identity_is_never_made_again() -> None:
    registry = Registry()
    move = registry.shift("1", "Staging")
    assert move is not None
    registry.shift("1", "Archived")
    assert plan_stage(registry.model, identity=move.identity, version="1", stage="Staging").is_done


# --- tasks that die --------------------------------------------------------------------------------------------------
def begun(registry: Registry, version: str, stage: Stage) -> StageMove:
    """Write the intention of a move, and nothing else."""
    plan = plan_stage(registry.model, identity="begun", version=version, stage=stage)
    order = replace(ORDER, identity="begun")
    move = replace(plan.record(order, datetime.fromisoformat(AT)), number=next_number(registry.model.tags))
    registry._write({}, **{TAG_LAST_STAGE_MOVE: move.to_tag()})
    return move


def test_a_move_that_died_before_the_alias_was_not_made() -> None:
    registry = Registry(challenger="3")
    begun(registry, "4", "Staging")
    assert unfinished_stage_move(registry.model) is None
    assert registry.stages == {"3": "Staging"}


def test_a_move_that_died_after_the_alias_was_made_and_is_to_be_recorded() -> None:
    registry = Registry(challenger="3")
    move = begun(registry, "4", "Staging")
    registry.outside(challenger="4")
    assert unfinished_stage_move(registry.model) == move
    assert registry.stages == {"3": "Staging", "4": "Staging"}


def test_a_move_that_died_before_the_alias_is_not_taken_for_made_when_a_promotion_does_the_same_later() -> None:
    registry = Registry()
    registry.shift("4", "Staging")
    begun(registry, "4", "Archived")
    registry.promote("4")
    assert registry.model.aliases == {"champion": "4"}
    assert unfinished_stage_move(registry.model) is None


# --- records ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("versions", "text"), [([], ""), (["7"], "7"), (["10", "2", "3", "1"], "1-3,10"), (["1", "3", "5"], "1,3,5")]
)
def test_versions_are_written_short_and_read_back(versions: list[str], text: str) -> None:
    assert short_list(versions) == text
    assert list(read_short_list(text)) == sorted(versions, key=int)


def test_a_record_is_read_as_it_was_written() -> None:
    stages: dict[str, Stage] = {"1": "Archived", "2": "Archived", "9": "Staging", "4": "None"}
    move = StageMove("migrate", "m", stages, None, "9", AT, "me", "why", 3)
    (read,) = read_stage_moves(RegisteredModel("fraud", tags={move.done_tag: move.to_tag()}))
    assert read == move
    assert json.loads(move.to_tag())["stages"] == {"None": "4", "Staging": "9", "Archived": "1-2"}


def test_ten_thousand_versions_in_a_row_fit_into_a_record_and_a_scattered_crowd_is_refused() -> None:
    many: dict[str, Stage] = {str(number): "Archived" for number in range(1, 10_001)}
    assert len(StageMove("migrate", "m", many, None, None, AT, "me").to_tag()) < 300
    odd: dict[str, Stage] = {version: "Archived" for version in many if int(version) % 2}
    with pytest.raises(InvalidArgumentError, match=f"MLflow keeps {MAX_RECORD_CHARACTERS}. Nothing was moved"):
        StageMove("migrate", "m", odd, None, None, AT, "me").to_tag()


def test_moves_of_champion_and_stages_share_one_counter() -> None:
    registry = Registry()
    registry.promote("1")
    first = registry.shift("2", "Staging")
    registry.promote("3")
    second = registry.shift("4", "Staging")
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (2, 4)


# --- arguments -------------------------------------------------------------------------------------------------------
def test_a_stage_is_taken_in_any_case_as_mlflow_does() -> None:
    assert [require_stage("stage", stage.lower()) for stage in STAGES] == list(STAGES)


@pytest.mark.parametrize("value", ["", "Live", None, True, "prod"])
def test_another_stage_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="stage must be one of None, Staging, Production, Archived; got "):
        require_stage("stage", value)


@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_archiving_the_existing_is_for_staging_and_production(stage: Stage) -> None:
    require_archivable(stage, archive_existing=False)
    require_archivable("Staging", archive_existing=True)
    with pytest.raises(InvalidArgumentError, match=f"when archive_existing is true; got '{stage}'"):
        require_archivable(stage, archive_existing=True)


def test_two_versions_in_production_are_refused() -> None:
    require_one_production("2", None, archive_existing=False)
    require_one_production("2", "2", archive_existing=False)
    require_one_production("2", "1", archive_existing=True)
    with pytest.raises(InvalidArgumentError, match="version 1 is in Production and there can be only one champion"):
        require_one_production("2", "1", archive_existing=False)


# --- MLflow's own stages ---------------------------------------------------------------------------------------------
def version(number: int, stage: str) -> ModelVersion:
    return ModelVersion("fraud", str(number), "READY", current_stage=stage)


def test_mlflows_own_stages_that_say_something_else_are_found() -> None:
    model = RegisteredModel("fraud", aliases={"champion": "2", "challenger": "3"})
    found = stage_drift(model, [version(10, "Staging"), version(3, "Staging"), version(2, "None"), version(1, "None")])
    assert [(one.version, one.stage, one.found) for one in found] == [
        ("2", "Production", "None"),
        ("10", "None", "Staging"),
    ]


def test_the_mirror_swaps_production_in_one_call_and_then_sets_the_rest() -> None:
    model = RegisteredModel("fraud", aliases={"champion": "3", "challenger": "4", "previous_champion": "2"})
    versions = [version(1, "Production"), version(2, "Production"), version(3, "Staging"), version(4, "None")]
    assert [(step.version, step.stage, step.archive_existing) for step in plan_mirror(model, versions)] == [
        ("3", "Production", True),
        ("1", "None", False),
        ("4", "Staging", False),
    ]


def test_the_mirror_of_what_is_as_it_should_be_does_nothing() -> None:
    model = RegisteredModel("fraud", aliases={"champion": "2", "previous_champion": "1"})
    assert plan_mirror(model, [version(1, "Archived"), version(2, "Production"), version(3, "None")]) == ()


def test_a_second_version_in_production_is_archived_without_touching_the_champion() -> None:
    model = RegisteredModel("fraud", aliases={"champion": "2", "previous_champion": "1"})
    steps = plan_mirror(model, [version(1, "Production"), version(2, "Production")])
    assert [(step.version, step.stage, step.archive_existing) for step in steps] == [("1", "Archived", False)]


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("True", False), ("", False), (None, False)])
def test_stages_are_mirrored_only_where_the_tag_says_so(value: str | None, expected: bool) -> None:
    tags = {} if value is None else {TAG_MIRROR_STAGES: value}
    assert is_mirrored(RegisteredModel("fraud", tags=tags)) is expected


def test_the_time_of_a_record_has_a_time_zone() -> None:
    plan = plan_stage(RegisteredModel("fraud"), identity="i", version="1", stage="Staging")
    assert plan.record(ORDER, datetime(2026, 1, 1, tzinfo=UTC)).at.endswith("+00:00")
