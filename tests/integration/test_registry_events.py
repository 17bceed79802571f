"""Events of a real MLflow registry, through Airflow's own shared stream, and a triggerer that dies at every point."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.events import EVENT_NAMES, MOVED_OUTSIDE
from airflow_mcp.core.registry.goal import ModelGoal
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.plans import AliasPlan, plan_promotion
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.registry.aliases import AliasMover
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.triggers import registry_watch
from airflow_mcp.triggers.model import ModelGoalTrigger, found_version
from airflow_mcp.triggers.registry import RegistryEventTrigger
from airflow_mcp.triggers.registry_watch import FailedLook, Look, RegistryWatch
from airflow_mcp.triggers.watch import STATE_KEY
from tests.support.mlflow_world import World
from tests.support.triggerer import Fuse, Triggerer, triggerer
from tests.support.watching import StateOfAssets

pytestmark = pytest.mark.integration

CONNECTION = "mlflow_tests"
MOVES = ("alias_moved", "alias_removed")


class Log:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, text: str, *values: Any) -> None:
        assert text % values

    def warning(self, text: str, *values: Any, exc_info: Any = None) -> None:
        self.said.append(text % values)


def watcher(models: Any, events: tuple[str, ...] = EVENT_NAMES, **arguments: Any) -> RegistryEventTrigger:
    return RegistryEventTrigger(models=models, events=events, mlflow_conn_id=CONNECTION, **arguments)


def promote(world: World, version: str, expected: str, dag_run_id: str) -> None:
    versions = {"version": version, "expected_champion": expected}
    outcome = world.run(PromoteModelOperator, model_name=world.model_name, dag_run_id=dag_run_id, **versions)
    assert outcome.state == "success", outcome


def move(world: World, version: str, night: int) -> None:
    """Promote a version as the operator does; it may run in a thread, which a task may not."""

    def plan(model: RegisteredModel) -> AliasPlan:
        champion = model.aliases.get("champion")
        what: dict[str, Any] = {"identity": f"night-{night}", "version": version, "expected_champion": champion}
        return plan_promotion(model.aliases, model.tags, model_name=world.model_name, **what)

    order = MoveOrder("promote", f"night-{night}", by=Actor("task", "nightly.promote", f"night-{night}"))
    AliasMover(world.hook, world.model_name, actor=order.by, log=Log(), governance=NOT_GOVERNED).move(plan, order)


def told(stored: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(event[name] for name in names) for event in stored]


async def first_look(running: Triggerer, state: StateOfAssets, asset: str = "asset-0") -> None:
    """Wait until a watcher has written what it saw first."""
    await running.until(lambda: (asset, STATE_KEY) in state.values)


async def test_every_move_between_two_looks_is_told_with_who_made_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.versions(3)
    state, stored = StateOfAssets(), list[dict[str, Any]]()
    async with triggerer([watcher(world.model_name, MOVES)], state, stored, monkeypatch) as running:
        await first_look(running, state)
    assert stored == []
    promote(world, "1", "none", "night-1")
    promote(world, "2", "1", "night-2")
    world.hook.set_alias(world.model_name, "champion", "3")
    promote(world, "2", "3", "night-3")
    world.run(RollbackModelOperator, model_name=world.model_name, reason="it was worse", dag_run_id="night-4")
    world.hook.set_alias(world.model_name, "shadow", "1")
    async with triggerer([watcher(world.model_name, MOVES)], state, stored, monkeypatch) as running:
        await running.until(lambda: len(stored) >= 6)
        world.hook.delete_alias(world.model_name, "champion")
        await running.until(lambda: len(stored) >= 7)
        await running.looks()
    assert [
        (*row[:3], row[3].rpartition(".task ")[2], row[4])
        for row in told(stored, "alias", "from", "to", "by", "reason")
    ] == [
        ("champion", None, "1", "night-1", ""),
        ("champion", "1", "2", "night-2", ""),
        ("champion", "2", "3", MOVED_OUTSIDE, ""),
        ("champion", "3", "2", "night-3", ""),
        ("champion", "2", "3", "night-4", "it was worse"),
        ("shadow", None, "1", MOVED_OUTSIDE, ""),
        ("champion", "3", None, MOVED_OUTSIDE, ""),
    ]
    assert {row[0] for row in told(stored, "run_id")[:-1]} == {version.run_id for version in world.all_versions()}
    assert len({event["key"] for event in stored}) == len(stored)


async def test_every_version_and_every_changed_tag_is_told_of_all_models_that_are_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = world.versions(1)
    name, other = world.model_name, f"{world.model_name}-b"
    world.hook.set_registered_model_tag(name, "owner", "ann")
    state, stored = StateOfAssets(), list[dict[str, Any]]()
    both = watcher(f"{name}*", ("new_version", "model_tag_changed", "version_tag_changed"), tags=["owner", "stage"])
    async with triggerer([both], state, stored, monkeypatch) as running:
        await first_look(running, state)
        world.hook.set_registered_model_tag(name, "not watched", "x")
        await running.looks()
    more = [world.hook.create_model_version(name, first.source, run_id=first.run_id) for _ in range(6)]
    world.hook.set_model_version_tag(name, "1", "stage", "archived")
    world.hook.set_registered_model_tag(name, "owner", "bob")
    world.hook.create_registered_model(other, {"owner": "eve"})
    world.hook.create_model_version(other, first.source, run_id=first.run_id)
    async with triggerer([both], state, stored, monkeypatch) as running:
        await running.until(lambda: len(stored) >= 9)
        world.hook.set_registered_model_tag(other, "owner", "dan")
        await running.until(lambda: len(stored) >= 10)
        await running.looks()
    assert told(stored, "event", "model_name", "version", "tag", "from", "to") == [
        *(("new_version", name, version.version, "", None, version.version) for version in more),
        ("model_tag_changed", name, "", "owner", "ann", "bob"),
        ("version_tag_changed", name, "1", "stage", None, "archived"),
        ("new_version", other, "1", "", None, "1"),
        ("model_tag_changed", other, "", "owner", "eve", "dan"),
    ]


async def test_a_triggerer_that_dies_at_any_point_loses_nothing_and_repeats_only_with_the_same_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *_) = world.versions(2)
    name = world.model_name
    promote(world, "1", "none", "night-0")
    begin = StateOfAssets()
    async with triggerer([watcher(name, aliases=["champion"])], begin, [], monkeypatch) as running:
        await first_look(running, begin)
    promote(world, "2", "1", "night-1")
    world.hook.set_alias(name, "champion", "1")
    world.hook.create_model_version(name, first.source, run_id=first.run_id)
    world.hook.set_registered_model_tag(name, "owner", "bob")
    expected = [
        ("new_version", None, "3"),
        ("model_tag_changed", None, "bob"),
        ("alias_moved", "1", "2"),
        ("alias_moved", "2", "1"),
    ]
    repeated = deaths = 0
    for effects in itertools.count():
        state, stored, fuse = StateOfAssets(dict(begin.values)), list[dict[str, Any]](), Fuse(effects)
        for life in (fuse, Fuse()):
            async with triggerer(
                [watcher(name, aliases=["champion"])], state, stored, monkeypatch, fuse=life
            ) as running:
                await running.until(lambda state=state: state.values != begin.values)
        by_key = {event["key"]: event for event in stored}
        assert all(by_key[event["key"]] == event for event in stored), "the same key is the same event"
        assert [told([event], "event", "from", "to")[0] for event in by_key.values()] == expected
        assert len(stored) <= 2 * len(by_key)
        repeated += len(stored) - len(by_key)
        if not fuse.blown.is_set():
            assert len(stored) == len(by_key), "who does not die repeats nothing"
            break
        deaths += 1
    assert deaths >= 6, "searching, reading what is remembered, looking again, storing, confirming, writing"
    assert repeated > 0, "dying between storing and writing was tried"


async def test_moves_under_way_are_never_taken_for_moves_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.versions(2)
    state, stored = StateOfAssets(), list[dict[str, Any]]()
    async with triggerer([watcher(world.model_name, MOVES)], state, stored, monkeypatch, poll_seconds=0.01) as running:
        await first_look(running, state)
        for night in range(6):
            await asyncio.to_thread(move, world, str(1 + night % 2), night)
        await running.until(lambda: sum(event["alias"] == "champion" for event in stored) == 6)
        await running.looks()
    assert {event["by"] for event in stored} == {f"nightly.promote night-{night}" for night in range(6)}
    moves = [event for event in stored if event["alias"] == "champion"]
    assert told(moves, "from", "to") == [(None, "1"), *[("1", "2"), ("2", "1")] * 2, ("1", "2")]


async def test_all_that_wait_share_one_search_of_the_registry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{world.model_name}-{number}" for number in range(60)]
    (version,) = world.versions(1)
    for name in names:
        world.hook.create_registered_model(name)
    state, stored = StateOfAssets(), list[dict[str, Any]]()
    events: list[TriggerEvent] = []

    async def sensor(name: str) -> None:
        goal = ModelGoal(name, alias="champion").to_json()
        async for event in ModelGoalTrigger(goal=goal, mlflow_conn_id=CONNECTION, poll_seconds=1).run():
            events.append(event)

    watchers = [watcher(name, ("new_version", "alias_moved")) for name in names]
    async with triggerer(watchers, state, stored, monkeypatch, poll_seconds=0.2) as running:
        sensors = [asyncio.create_task(sensor(name)) for name in names]
        await running.until(lambda: len(state.values) == len(names))
        before = len(running.requests)
        await running.looks(3)
        looks = running.requests[before:]
        assert set(looks) == {"search registered models"}
        assert 4 <= len(looks) <= 6
        before = len(running.requests)
        found = world.hook.create_model_version(names[7], version.source, run_id=version.run_id)
        world.hook.set_alias(names[7], "champion", "1")
        await running.until(lambda: len(stored) == 2 and len(events) == 1)
        others = [asked for asked in running.requests[before:] if asked != "search registered models"]
        assert others.count("find model versions") == 1
        assert len(others) <= 3
        for task in sensors:
            task.cancel()
        await asyncio.gather(*sensors, return_exceptions=True)
    assert sorted(told(stored, "event", "model_name")) == [("alias_moved", names[7]), ("new_version", names[7])]
    assert events[0].payload == {"status": "found", "found": found_version(found), "message": ""}


async def test_while_mlflow_is_away_it_is_asked_ever_less_often_said_once_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = world.versions(1)
    log, state, stored = Log(), StateOfAssets(), list[dict[str, Any]]()
    monkeypatch.setattr(registry_watch, "log", log)
    connection: Mapping[str, Any] = {"conn_type": "mlflow", "host": world.url}

    def connect(**changes: Any) -> None:
        fields = json.dumps({**connection, "extra": {"retries": 0}, **changes})
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", fields)

    async with triggerer(
        [watcher(world.model_name), watcher(f"{world.model_name}*")], state, stored, monkeypatch
    ) as running:
        await first_look(running, state, "asset-1")
        connect(host="http://127.0.0.1:9")
        world.hook.set_alias(world.model_name, "champion", version.version)
        looks: list[Look | FailedLook] = []
        with RegistryWatch.of(CONNECTION).heard(looks.append):
            await running.looks(4)
        waits = [look.wait for look in looks if isinstance(look, FailedLook)]
        assert waits[0] < waits[2]
        connect(host=world.url + "/no-such-path")
        await running.looks(1)
        assert stored == []
        connect()
        await running.until(lambda: len(stored) == 2)
    kinds = [line.rpartition("later each time. ")[2].partition(":")[0] for line in log.said]
    assert kinds == ["MlflowUnreachableError", "MlflowProtocolError"], log.said
