"""The split of a model's traffic is written by one task at a time, on a real registry."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.exceptions import ClaimUnavailableError, RolloutConflictError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.registry.rollouts import RolloutStore
from tests.support.mlflow_world import World

log = logging.getLogger("test")


@pytest.fixture
def model(world: World) -> str:
    """A registered model with two versions, the first of which is champion."""
    world.hook.create_registered_model(world.model_name)
    run = world.new_run()
    for _ in range(2):
        model_id = world.logged_model(run)
        world.hook.create_model_version(world.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id)
    world.hook.set_alias(world.model_name, ALIAS_CHAMPION, "1")
    return world.model_name


def store(world: World, name: str = "one") -> RolloutStore:
    return RolloutStore(world.hook, world.model_name, actor=Actor("user", name, "test"), log=log)


def document(identity: str = "r1", **fields: object) -> RolloutDocument:
    values = {"generation": 1, "phase": "PROGRESSING", "stable": "1", "canary": "2", "weight": 5.0, **fields}
    return RolloutDocument.model_validate({"identity": identity, **values})


class TestWriting:
    def test_counts_generations(self, world: World, model: str) -> None:
        first = store(world).write(document(), expected=0)
        assert first.generation == 1
        second = store(world).write(first.model_copy(update={"weight": 25.0}), expected=1)
        assert second.generation == 2
        state = store(world).read()
        assert state.active == second
        assert state.champion is not None
        assert state.champion.version == "1"

    def test_of_a_retry_finds_what_was_written(self, world: World, model: str) -> None:
        first = store(world).write(document(), expected=0)
        assert store(world).write(document(), expected=0) == first

    def test_refuses_what_was_not_read(self, world: World, model: str) -> None:
        store(world).write(document(), expected=0)
        with pytest.raises(RolloutConflictError, match="generation 0 was expected and 1 found"):
            store(world).write(document(weight=50.0), expected=0)
        with pytest.raises(RolloutConflictError, match="generation 7 was expected"):
            store(world).write(document(weight=50.0), expected=7)

    def test_refuses_a_second_rollout_until_the_first_has_ended(self, world: World, model: str) -> None:
        first = store(world).write(document(), expected=0)
        with pytest.raises(RolloutConflictError, match="rollout 'r1' of version 2 is PROGRESSING"):
            store(world).write(document("r2"), expected=0)
        store(world).write(first.model_copy(update={"phase": "FAILED"}), expected=1)
        assert store(world).write(document("r2"), expected=0).generation == 1

    def test_refuses_when_the_champion_has_moved(self, world: World, model: str) -> None:
        store(world).write(document(), expected=0)
        world.hook.set_alias(model, ALIAS_CHAMPION, "2")
        with pytest.raises(RolloutConflictError, match="points at version 2, not at version 1"):
            store(world).write(document(weight=50.0), expected=1)
        assert store(world).read().active is None

    def test_replaces_a_document_that_nobody_can_read(self, world: World, model: str) -> None:
        world.hook.set_model_version_tag(model, "1", TAG_ROLLOUT, "{")
        state = store(world).read()
        assert state.document is None
        assert "is not a valid RolloutDocument" in state.error
        assert store(world).write(document(), expected=0).generation == 1

    def test_cuts_a_reason_that_is_too_long(self, world: World, model: str) -> None:
        written = store(world).write(document(reason="x" * 20_000), expected=0)
        assert written.reason.endswith("… (cut)")
        assert store(world).read().document == written

    def test_leaves_no_claim_behind(self, world: World, model: str) -> None:
        store(world).write(document(), expected=0)
        assert not any(".claim." in tag for tag in world.hook.get_registered_model(model).tags)


def test_of_several_starters_one_wins(world: World, model: str) -> None:
    settings = MlflowSettings("test", world.url, world.url)

    def start(number: int) -> str:
        mlflow = DirectMlflow(settings)
        try:
            actor = Actor("task", f"dag.start_{number}", "run")
            RolloutStore(mlflow, model, actor=actor, log=log).write(document(f"r{number}"), expected=0)
        except (RolloutConflictError, ClaimUnavailableError):
            return "refused"
        finally:
            mlflow.close()
        return f"r{number}"

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(start, range(4)))
    winners = [result for result in results if result != "refused"]
    assert len(winners) == 1
    active = store(world).read().active
    assert active is not None
    assert active.identity == winners[0]
