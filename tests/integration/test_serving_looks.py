"""What a model server reads of a real registry: the champion, what its tags name, and the way back of a policy."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.pipeline.file.policies import TAG_RELEASE, RollbackPolicy
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK
from airflow_mcp.core.serving.settings import ModelAddress
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.serving.looks import Look, Looker
from tests.support.mlflow_world import World

NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)


@pytest.fixture
def model(world: World) -> str:
    """A registered model with three versions, the last of which is champion."""
    world.hook.create_registered_model(world.model_name)
    run = world.new_run()
    for _ in range(3):
        model_id = world.logged_model(run)
        world.hook.create_model_version(world.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id)
    world.hook.set_alias(world.model_name, ALIAS_CHAMPION, "3")
    return world.model_name


def look(world: World, *, stable: str = "", version: str = "") -> Look:
    policy = None
    if stable:
        trigger = {"metric": "http_5xx_rate", "threshold": "0.05", "duration": "2m"}
        policy = RollbackPolicy.model_validate({"trigger": trigger, "strategy": {"stableVersion": stable}})
    mlflow = DirectMlflow(MlflowSettings("test", world.url, world.url, retries=0))
    return asyncio.run(Looker(mlflow, 20.0, policy).look(ModelAddress(world.model_name, version), NOW))


class TestALook:
    def test_finds_the_champion(self, world: World, model: str) -> None:
        found = look(world)
        assert (found.champion.version, dict(found.others)) == ("3", {})

    def test_finds_what_the_tags_of_the_champion_name(self, world: World, model: str) -> None:
        fields = {"identity": "r", "generation": 1, "phase": "WAITING", "stable": "3", "canary": "2"}
        rollout = {"schema": "airflow_mcp/rollout/1", **fields}
        rollback = {"schema": "airflow_mcp/rollback/1", "threshold": 0.1, "duration": 60, "stable": "1"}
        world.hook.set_model_version_tag(model, "3", TAG_ROLLOUT, json.dumps(rollout))
        world.hook.set_model_version_tag(model, "3", TAG_ROLLBACK, json.dumps(rollback))
        assert set(look(world).others) == {"1", "2"}

    def test_leaves_out_a_version_that_does_not_exist(self, world: World, model: str) -> None:
        fields = {"identity": "r", "generation": 1, "phase": "WAITING", "stable": "3", "canary": "99"}
        rollout = {"schema": "airflow_mcp/rollout/1", **fields}
        world.hook.set_model_version_tag(model, "3", TAG_ROLLOUT, json.dumps(rollout))
        assert look(world).others == {}

    def test_of_a_version_by_its_number_reads_nothing_else(self, world: World, model: str) -> None:
        found = look(world, version="1")
        assert (found.champion.version, found.is_pinned) == ("1", True)

    def test_says_that_there_is_nothing(self, world: World, model: str) -> None:
        world.hook.delete_alias(model, ALIAS_CHAMPION)
        with pytest.raises(MlflowNotFoundError, match="no alias 'champion'"):
            look(world)
        with pytest.raises(MlflowNotFoundError):
            look(world, version="99")


class TestTheWayBackOfAPolicy:
    @pytest.mark.parametrize("stable", ["1", "v1.7.3", "previous_champion"])
    def test_is_a_number_a_release_or_an_alias(self, world: World, model: str, stable: str) -> None:
        world.hook.set_model_version_tag(model, "1", TAG_RELEASE, "v1.7.3")
        world.hook.set_alias(model, ALIAS_PREVIOUS_CHAMPION, "1")
        found = look(world, stable=stable)
        assert (found.standby, set(found.others), found.policy_error) == ("1", {"1"}, "")

    @pytest.mark.parametrize("stable", ["99", "v9.9.9", "v9", "nobody"])
    def test_that_does_not_exist_is_an_error(self, world: World, model: str, stable: str) -> None:
        found = look(world, stable=stable)
        assert found.standby == ""
        assert stable in found.policy_error

    def test_need_not_exist_for_a_first_champion(self, world: World, model: str) -> None:
        found = look(world, stable="previous_champion")
        assert (found.standby, found.policy_error) == ("", "")
