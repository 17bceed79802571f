"""From stages to aliases: what is done, what is refused, and that doing it twice does it once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import TAG_LAST_MOVE
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord, next_number
from airflow_mcp.core.registry.plans import plan_promotion
from airflow_mcp.core.registry.stage_migration import Migration, MigrationChoices, plan_migration
from airflow_mcp.core.registry.stages import read_stages, stage_drift

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def versions(*stages: str, broken: int = 0) -> list[ModelVersion]:
    """Make versions 1, 2, … in these stages (by first letter)."""
    names = {"P": "Production", "S": "Staging", "A": "Archived", "-": "None"}
    return [
        ModelVersion(
            "fraud",
            str(number),
            "FAILED_REGISTRATION" if number == broken else "READY",
            run_id=f"r{number}",
            current_stage=names[stage],
        )
        for number, stage in enumerate("".join(stages), 1)
    ]


def model(**aliases: str) -> RegisteredModel:
    return RegisteredModel("fraud", aliases=aliases)


def carried_out(registered: RegisteredModel, migration: Migration) -> RegisteredModel:
    """Do what the mover does, without a server."""
    order = MoveOrder("migrate", f"m{next_number(registered.tags)}", Actor.of_user("me", "here"), "why")
    if migration.moves_stages:
        stage_move = replace(migration.stage_plan().record(order, NOW), number=next_number(registered.tags))
        tags = {**registered.tags, stage_move.done_tag: stage_move.to_tag()}
        aliases = {**registered.aliases, "challenger": migration.challenger}
        kept = {alias: version for alias, version in aliases.items() if version}
        registered = replace(registered, aliases=kept, tags=tags)
    if migration.moves_champion and migration.champion:
        plan = plan_promotion(
            registered.aliases,
            registered.tags,
            model_name="fraud",
            identity=order.identity,
            version=migration.champion,
            expected_champion=migration.champion_before,
        )
        move = replace(plan.record(order, NOW, None), number=next_number(registered.tags))
        aliases = {**registered.aliases, **{step.alias: step.version for step in plan.moves}}
        tags = {**registered.tags, move.done_tag: move.to_tag(), TAG_LAST_MOVE: move.to_tag()}
        kept = {alias: version for alias, version in aliases.items() if version}
        registered = replace(registered, aliases=kept, tags=tags)
    return registered


@pytest.mark.parametrize(
    ("stages", "champion", "challenger", "recorded"),
    [
        ("AAPS", "3", "4", {"1": "Archived", "2": "Archived"}),
        ("P", "1", None, {}),
        ("-S", None, "2", {}),
        ("SS-S", None, "4", {"1": "Staging", "2": "Staging"}),
        ("A", None, None, {"1": "Archived"}),
        ("--", None, None, {}),
        ("", None, None, {}),
    ],
)
def test_stages_become_aliases_and_records(
    stages: str, champion: str | None, challenger: str | None, recorded: dict[str, str]
) -> None:
    found = versions(stages)
    migration = plan_migration(model(), found)
    assert migration.refusals == ()
    assert (migration.champion, migration.challenger, migration.stages) == (champion, challenger, recorded)
    after = carried_out(model(), migration)
    assert stage_drift(after, found) == ()
    assert plan_migration(after, found).is_done


def test_a_model_that_airflow_mcp_has_moved_since_is_left_alone() -> None:
    found = versions("APS--")
    after = carried_out(model(), plan_migration(model(), found))
    promotion = MoveRecord("promote", "p", "2", "3", NOW.isoformat(), "dag", number=next_number(after.tags))
    tags = {**after.tags, promotion.done_tag: promotion.to_tag(), TAG_LAST_MOVE: promotion.to_tag()}
    moved = replace(after, aliases={"champion": "3", "previous_champion": "2"}, tags=tags)
    assert plan_migration(moved, found).is_done


def test_a_stage_that_an_old_tool_has_set_since_is_a_conflict_again() -> None:
    after = carried_out(model(), plan_migration(model(), versions("P-")))
    (refusal,) = plan_migration(after, versions("AP")).refusals
    assert refusal.startswith("alias champion is at version 1, but version 2 is in Production")


# --- several in Production -------------------------------------------------------------------------------------------
def test_several_in_production_are_refused_until_the_newest_is_asked_for() -> None:
    found = versions("P-PAP")
    refused = plan_migration(model(), found)
    assert refused.status == "refused"
    assert "versions 1,3,5 are all in Production" in refused.refusals[0]
    assert (refused.moves_champion, refused.moves_stages) == (False, False)
    migration = plan_migration(model(), found, MigrationChoices(newest=True))
    assert migration.champion == "5"
    assert migration.stages == {"1": "Archived", "3": "Archived", "4": "Archived"}
    assert migration.notes == ("the newest of versions 1,3,5 in Production becomes champion; the others: Archived",)
    assert plan_migration(carried_out(model(), migration), found).is_done


def test_of_several_in_production_the_champion_is_the_one() -> None:
    found = versions("PP")
    migration = plan_migration(model(champion="1"), found)
    assert (migration.champion, migration.stages) == ("1", {"2": "Archived"})
    assert plan_migration(carried_out(model(champion="1"), migration), found).is_done


# --- aliases that disagree -------------------------------------------------------------------------------------------
def test_an_alias_that_disagrees_is_refused_until_one_side_is_preferred() -> None:
    found, registered = versions("PS--"), model(champion="3", challenger="4")
    refused = plan_migration(registered, found)
    assert [refusal.partition(":")[0] for refusal in refused.refusals] == [
        "alias champion is at version 3, but version 1 is in Production",
        "alias challenger is at version 4, but version 2 is in Staging",
    ]
    aliases = carried_out(registered, plan_migration(registered, found, MigrationChoices("aliases")))
    assert aliases.aliases == registered.aliases
    assert {version: its.stage for version, its in read_stages(aliases).items()} == {
        "1": "Archived",
        "2": "Staging",
        "3": "Production",
        "4": "Staging",
    }
    assert plan_migration(aliases, found).is_done
    stages = carried_out(registered, plan_migration(registered, found, MigrationChoices("stages")))
    assert stages.aliases == {"champion": "1", "previous_champion": "3", "challenger": "2"}
    assert plan_migration(stages, found).is_done


def test_a_challenger_that_is_in_production_becomes_the_champion_and_nothing_else() -> None:
    found, registered = versions("P"), model(challenger="1")
    after = carried_out(registered, plan_migration(registered, found))
    assert after.aliases == {"champion": "1"}
    assert plan_migration(after, found).is_done


def test_a_champion_that_mlflow_has_in_staging_stays_champion() -> None:
    migration = plan_migration(model(champion="1"), versions("SS"))
    assert (migration.champion, migration.challenger, migration.stages) == ("1", "2", {})


@pytest.mark.parametrize(("stages", "alias"), [("P", "champion"), ("S", "challenger")])
def test_a_version_that_is_not_ready_gets_no_alias(stages: str, alias: str) -> None:
    migration = plan_migration(model(), versions(stages, broken=1))
    assert migration.refusals == (f"version 1 is not READY, so it cannot have the alias {alias}",)
