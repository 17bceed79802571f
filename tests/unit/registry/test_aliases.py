"""Aliases as movers and readers take them, on a registry that keeps the aliases of deleted versions."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.history import is_way_back, read_timeline, unrecorded_moves
from airflow_mcp.core.registry.load_check import NOTHING_REQUIRED
from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord, read_history
from airflow_mcp.core.registry.packed_moves import PACKED_FROM
from airflow_mcp.core.registry.plans import AliasPlan, plan_promotion, plan_rollback
from airflow_mcp.exceptions import AliasConflictError, InvalidArgumentError, MlflowAuthError, MlflowNotFoundError
from airflow_mcp.registry import claims
from airflow_mcp.registry.aliases import AliasMover, champion_of, model_of, ways_back
from airflow_mcp.registry.governance import NOT_GOVERNED

NAME = "fraud"
ACTOR = Actor("task", "dag.promote", "run-1")


class Registry:
    """One registered model, as MLflow 3.10 keeps it: aliases outlive their version."""

    def __init__(self, *versions: str, **pointed: str) -> None:
        self.numbers, self.aliases, self.tags = set(versions), dict(pointed), dict[str, str]()
        self.refused: set[str] = set()
        self.calls = itertools.count(1)
        self.refuses_to_delete = "nothing"

    def get_registered_model(self, name: str) -> RegisteredModel:
        newest = tuple(ModelVersion(NAME, max(self.numbers), "READY") for _ in range(1 if self.numbers else 0))
        return RegisteredModel(name, tags=dict(self.tags), aliases=dict(self.aliases), latest_versions=newest)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        if version not in self.numbers:
            raise MlflowNotFoundError("gone", 404, "RESOURCE_DOES_NOT_EXIST")
        return ModelVersion(name, version, "READY")

    def find_deleted_versions(
        self, models: Iterable[RegisteredModel], aliases: Collection[str]
    ) -> frozenset[tuple[str, str]]:
        return frozenset(
            (model.name, number)
            for model in models
            for alias, number in model.aliases.items()
            if alias in aliases and number not in self.numbers
        )

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        assert len(value) <= 5000
        self.tags[key] = value

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        if key.startswith(self.refuses_to_delete):
            raise MlflowAuthError("no", 403)
        self.tags.pop(key, None)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self.get_model_version(name, version)
        self.aliases[alias] = version

    def delete_alias(self, name: str, alias: str) -> None:
        if alias in self.refused:
            raise MlflowAuthError("no", 403)
        self.aliases.pop(alias, None)


def move(registry: Registry, action: Any, reason: Any = "why", **plan: Any) -> AliasPlan:
    make = plan_promotion if action == "promote" else plan_rollback
    order = MoveOrder(action, f"{action}-{next(registry.calls)}", ACTOR, reason)
    mover = AliasMover(
        registry, NAME, actor=ACTOR, log=logging.getLogger("test"), rule=NOTHING_REQUIRED, governance=NOT_GOVERNED
    )  # type: ignore[arg-type]
    return mover.move(
        lambda model: make(model.aliases, model.tags, model_name=NAME, identity=order.identity, **plan), order
    )


def test_an_alias_of_a_deleted_version_counts_as_none_for_readers() -> None:
    registry = Registry("1", "3", champion="2", previous_champion="1", other="7")
    model = model_of(registry, NAME)  # type: ignore[arg-type]
    assert model.aliases == {"previous_champion": "1", "other": "7"}
    done = MoveRecord("promote", "p", "1", "2", "2026-11-21T02:00:00+00:00", "dag")
    model = replace(model, tags={done.done_tag: done.to_tag()})
    timeline = read_timeline(model, datetime(2026, 11, 22, tzinfo=UTC))
    assert (timeline.champion, timeline.changes[-1].before, timeline.changes[-1].after) == (None, "2", None)
    assert [(found.alias, found.found) for found in unrecorded_moves(model)] == [("champion", None)]


def test_after_the_champion_was_deleted_a_promotion_without_a_champion_to_compare_with_succeeds() -> None:
    registry = Registry("1", "3", champion="2", previous_champion="1")
    with pytest.raises(AliasConflictError, match="now points at no version"):
        move(registry, "promote", version="3", expected_champion="2")
    move(registry, "promote", version="3", expected_champion=None)
    assert registry.aliases == {"champion": "3", "previous_champion": "1"}
    assert [entry.champion_before for entry in read_history(registry.tags)] == [None]


def test_after_the_champion_was_deleted_a_rollback_goes_to_the_previous_one() -> None:
    registry = Registry("1", "3", champion="2", previous_champion="1")
    assert move(registry, "rollback", to_version=None).champion_before is None
    assert registry.aliases == {"champion": "1"}


def test_a_way_back_to_a_deleted_version_counts_as_none() -> None:
    registry = Registry("2", champion="2", previous_champion="1")
    with pytest.raises(AliasConflictError, match="has no alias 'previous_champion'"):
        move(registry, "rollback", to_version=None)


def test_a_record_that_cannot_fit_is_refused_before_anything_moves() -> None:
    registry = Registry("1", "2", champion="1")
    order = MoveOrder("promote", "p", Actor("task", "d" * 6000, "r"))
    mover = AliasMover(
        registry, NAME, actor=ACTOR, log=logging.getLogger("test"), rule=NOTHING_REQUIRED, governance=NOT_GOVERNED
    )  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="Nothing was moved"):
        mover.move(
            lambda model: plan_promotion(
                model.aliases, model.tags, model_name=NAME, identity="p", version="2", expected_champion="1"
            ),
            order,
        )
    assert (registry.aliases, registry.tags) == ({"champion": "1"}, {})


def test_an_alias_that_may_not_be_removed_stays_and_the_move_is_recorded() -> None:
    registry = Registry("1", "2", champion="1", challenger="2")
    registry.refused = {"challenger", "previous_champion"}
    move(registry, "promote", version="2", expected_champion="1")
    assert registry.aliases == {"champion": "2", "previous_champion": "1", "challenger": "2"}
    move(registry, "rollback", to_version=None)
    assert registry.aliases == {"champion": "1", "previous_champion": "1", "challenger": "2"}
    assert [entry.way_back for entry in read_history(registry.tags)] == ["", "1"]
    assert unrecorded_moves(registry.get_registered_model(NAME)) == ()
    with pytest.raises(AliasConflictError, match="no champion to go back to"):
        move(registry, "rollback", to_version=None)


def test_movers_pack_old_records_and_a_failure_of_that_fails_no_move(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(*map(str, range(1, 200)))
    for number in range(1, 130):
        if number == PACKED_FROM:
            registry.refuses_to_delete = "airflow_mcp.move."
        before = None if number == 1 else str(number - 1)
        move(registry, "promote", version=str(number), expected_champion=before)
        if number == PACKED_FROM + 3:
            assert "older records of moves stay unpacked until the next move" in caplog.text
            registry.refuses_to_delete = "nothing"
    assert [each.number for each in read_history(registry.tags)] == list(range(1, 130))
    assert sum(name.startswith(contract.TAG_MOVE_PREFIX) for name in registry.tags) < PACKED_FROM
    back = move(registry, "rollback", to_version="1")
    assert (back.champion_after, registry.aliases["champion"]) == ("1", "1")
    assert is_way_back(registry.get_registered_model(NAME), "2")


@pytest.mark.parametrize("exists", [False, True])
def test_a_model_that_basic_auth_hides_because_it_does_not_exist_has_no_champion(exists: bool) -> None:
    class Guarded:
        def get_model_version_by_alias(self, name: str, alias: str) -> None:
            raise MlflowAuthError("forbidden", 403)

        def search_registered_models(self, where: str, limit: int) -> list[RegisteredModel]:
            assert where == "name = 'fraud'"
            return [RegisteredModel(NAME)] if exists else []

    if exists:
        with pytest.raises(MlflowAuthError):
            champion_of(Guarded(), NAME)  # type: ignore[arg-type]
    else:
        assert champion_of(Guarded(), NAME) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("year", [1970, 2026, 9999])
def test_a_claim_is_waited_for_as_long_as_it_lasts_by_the_clock_of_the_waiting_task(
    monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims.time, "time", lambda: now[0])
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    registry = Registry("1", "2", champion="1")
    dead = {"expires_at": f"{year}-01-01T00:00:00+00:00", "holder": "killed"}
    registry.tags[f"{contract.TAG_CLAIM_PREFIX}x"] = json.dumps(dead)
    move(registry, "promote", version="2", expected_champion="1")
    assert 60 <= now[0] - 1000 <= 66
    assert not [tag for tag in registry.tags if tag.startswith(contract.TAG_CLAIM_PREFIX)]


def test_ways_back_are_the_latest_champions_and_no_other_version_is_read() -> None:
    read: list[set[int]] = []

    class Long(Registry):
        def read_model_versions(self, name: str, numbers: set[int]) -> list[ModelVersion]:
            read.append(numbers)
            return [ModelVersion(NAME, str(number), "READY") for number in numbers]

    model = RegisteredModel(NAME, aliases={"champion": "500"}, tags=_moves(500))
    said = ways_back(Long("500"), model)  # type: ignore[arg-type]
    assert said == f"Usable earlier champions, the latest first: {', '.join(map(str, range(499, 479, -1)))}"
    assert read == [set(range(480, 500))]


def _moves(count: int) -> dict[str, str]:
    """Return the tags of that many promotions, one after the other."""
    records = [
        MoveRecord(
            identity=f"move-{number}",
            action="promote",
            champion_before=str(number - 1) if number > 1 else None,
            champion_after=str(number),
            at=datetime(2026, 1, 1, tzinfo=UTC).replace(minute=number % 60, hour=number // 60).isoformat(),
            by="dag.promote",
            reason="",
            number=number,
        )
        for number in range(1, count + 1)
    ]
    return {record.done_tag: record.to_tag() for record in records}
