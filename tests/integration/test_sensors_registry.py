"""ModelAliasSensor and ModelVersionSensor against a real MLflow registry, in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize
from mlflow import MlflowClient

from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.sensors.registry import ModelAliasSensor, ModelVersionSensor
from tests.support.fakes.faulty_server import FaultyServer, answer
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome, run_task

pytestmark = pytest.mark.integration
CONNECTION = "mlflow_tests"
WAITS: dict[str, Any] = {"poke_interval": 0.05, "timeout": 0.2}


def sense(world: World, sensor: type[Any], url: str = "", **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "deferrable": False, **WAITS, **options}
    connection = {"host": url, "extra": {"retries": 0}}
    operator = sensor(task_id="task", mlflow_conn_id="elsewhere" if url else CONNECTION, retries=3, **arguments)
    return run_task(operator, connections={"elsewhere": connection})


def promote(world: World, version: str, expected: str) -> None:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    assert world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{version}").state == "success"


class TestAliases:
    def test_an_alias_that_is_set_is_found_with_who_set_it(self, world: World) -> None:
        (version,) = world.versions(1)
        promote(world, "1", "none")
        outcome = sense(world, ModelAliasSensor)
        assert outcome.state == "success", outcome.error
        assert outcome.result == {
            "model_name": world.model_name,
            "alias": "champion",
            "version": "1",
            "model_uri": f"models:/{world.model_name}/1",
            "run_id": version.run_id,
            "moved_by": f"{world.dag_id}.task run-1",
        }
        links = {value for key, value in outcome.xcom.items() if key.startswith("_link_")}
        assert f"{world.url}/#/models/{world.model_name}/versions/1" in links

    def test_an_alias_that_was_moved_outside_is_found_and_nobody_is_named(self, world: World) -> None:
        world.versions(2)
        promote(world, "1", "none")
        MlflowClient(world.url).set_registered_model_alias(world.model_name, "champion", "2")
        outcome = sense(world, ModelAliasSensor)
        assert (outcome.result["version"], outcome.result["moved_by"]) == ("2", "")

    @pytest.mark.parametrize(
        "options",
        [{"version": "2"}, {"other_than": "1"}, {"alias": "previous_champion"}, {"model_name": "nobody-knows-it"}],
        ids=lambda options: next(iter(options)),
    )
    def test_what_is_not_there_is_waited_for_until_the_time_is_up(self, world: World, options: dict[str, str]) -> None:
        world.versions(2)
        world.hook.set_alias(world.model_name, "champion", "1")
        outcome = sense(world, ModelAliasSensor, **options)
        assert outcome.state == "failed"
        assert "timed out" in str(outcome.error)
        assert sense(world, ModelAliasSensor, soft_fail=True, **options).state == "skipped"
        assert sense(world, ModelAliasSensor).state == "success"


class TestVersions:
    def test_of_several_versions_that_will_do_the_newest_is_given(self, world: World) -> None:
        versions = world.versions(3)
        assert sense(world, ModelVersionSensor).result == {
            "model_name": world.model_name,
            "version": "3",
            "model_uri": f"models:/{world.model_name}/3",
            "run_id": versions[2].run_id,
        }
        assert sense(world, ModelVersionSensor, version="2").result["version"] == "2"
        assert sense(world, ModelVersionSensor, newer_than=2).result["version"] == "3"

    def test_only_a_version_with_the_tags_will_do(self, world: World) -> None:
        world.versions(2)
        world.hook.set_model_version_tag(world.model_name, "1", "team", "fraud")
        assert sense(world, ModelVersionSensor, tags={"team": "fraud"}).result["version"] == "1"
        assert "timed out" in str(sense(world, ModelVersionSensor, tags={"team": "other"}).error)

    def test_a_version_with_the_tags_is_found_however_many_came_after_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mlflow_registry_api, "NEWEST_VERSIONS", 1)
        world.versions(3)
        for version in ("1", "2"):
            world.hook.set_model_version_tag(world.model_name, version, "team", "fraud")
        assert sense(world, ModelVersionSensor, tags={"team": "fraud"}).result["version"] == "2"

    @pytest.mark.parametrize(
        "options", [{"version": "9"}, {"newer_than": "2"}], ids=lambda options: next(iter(options))
    )
    def test_a_version_that_is_not_there_is_waited_for(self, world: World, options: dict[str, str]) -> None:
        world.versions(2)
        assert "timed out" in str(sense(world, ModelVersionSensor, **options).error)


class TestArguments:
    @pytest.mark.parametrize("deferrable", [False, True])
    @pytest.mark.parametrize(
        ("sensor", "options", "message"),
        [
            (ModelAliasSensor, {"model_name": ""}, "model_name must be text that is not empty; got ''"),
            (ModelAliasSensor, {"alias": "latest"}, "got 'latest'"),
            (ModelAliasSensor, {"version": "newest"}, "version must be a version number; got 'newest'"),
            (ModelAliasSensor, {"version": "1", "other_than": "2"}, "only one of version and other_than must be given"),
            (ModelVersionSensor, {"newer_than": "None"}, "newer_than must be a version number; got 'None'"),
            (
                ModelVersionSensor,
                {"version": "1", "newer_than": "2"},
                "only one of version and newer_than must be given",
            ),
            (ModelVersionSensor, {"tags": {"a": 1}}, "tags must be a mapping of text to text"),
        ],
    )
    def test_a_wrong_argument_is_refused_at_once(
        self, world: World, sensor: type[Any], options: dict[str, Any], message: str, deferrable: bool
    ) -> None:
        outcome = sense(world, sensor, deferrable=deferrable, **options)
        assert outcome.state == "failed"
        assert message in str(outcome.error)


class TestAServerThatIsIll:
    def test_a_server_that_does_not_answer_is_asked_again(self, world: World) -> None:
        world.versions(1)
        with FaultyServer(world.url) as server:
            server.fail("model-versions/search", answer(503, "{}"), times=1)
            outcome = sense(world, ModelVersionSensor, url=server.url, timeout=30)
            assert outcome.state == "success", outcome.error
            assert server.count("model-versions/search") == 2

    def test_refused_credentials_end_the_try(self, world: World) -> None:
        with FaultyServer(world.url) as server:
            server.fail("model-versions/search", answer(401, "{}"))
            outcome = sense(world, ModelVersionSensor, url=server.url, timeout=30)
        assert outcome.state == "up_for_retry"
        assert "401" in str(outcome.error)


class TestInTheTriggerer:
    async def wait_in_the_triggerer(self, deferred: TaskOutcome, meanwhile: Callable[[], Any]) -> dict[str, Any]:
        """Build the trigger again from what the database keeps, and run it while something happens."""
        (message,) = deferred.supervisor.messages("DeferTask")
        module, _, name = message.classpath.rpartition(".")
        kept = deserialize(json.loads(json.dumps(serialize(message.trigger_kwargs))))
        trigger = getattr(importlib.import_module(module), name)(**kept)
        trigger.poll_seconds = 0.01
        events = trigger.run()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.2)
        assert not first.done()
        meanwhile()
        event = await asyncio.wait_for(first, 60)
        assert [more async for more in events] == []
        return dict(event.payload)

    async def test_a_sensor_that_defers_goes_on_when_the_alias_moves(self, world: World) -> None:
        versions = world.versions(2)
        promote(world, "1", "none")
        outcome = sense(world, ModelAliasSensor, other_than="1", deferrable=True, timeout=60, poke_interval=7)
        assert outcome.state == "deferred"
        (message,) = outcome.supervisor.messages("DeferTask")
        assert message.trigger_kwargs["poll_seconds"] == 7
        assert message.trigger_timeout.total_seconds() == 60
        event = await self.wait_in_the_triggerer(outcome, lambda: promote(world, "2", "1"))
        assert (event["status"], event["found"]["version"], event["message"]) == ("found", "2", "")
        resumed = run_task(outcome.operator, supervisor=outcome.supervisor, resume_with=event)
        assert resumed.state == "success", resumed.error
        assert (resumed.result["version"], resumed.result["run_id"]) == ("2", versions[1].run_id)
        assert resumed.result["moved_by"] == f"{world.dag_id}.task run-2"

    async def test_a_version_of_a_model_that_did_not_exist_yet_is_found(self, world: World) -> None:
        outcome = sense(world, ModelVersionSensor, deferrable=True)
        assert outcome.state == "deferred"
        event = await self.wait_in_the_triggerer(outcome, lambda: world.versions(1))
        resumed = run_task(outcome.operator, supervisor=outcome.supervisor, resume_with=event)
        assert resumed.result["version"] == "1"

    async def test_a_version_that_gets_its_tags_late_is_found_however_many_came_after_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mlflow_registry_api, "NEWEST_VERSIONS", 1)
        world.versions(3)
        outcome = sense(world, ModelVersionSensor, tags={"team": "fraud"}, deferrable=True)
        assert outcome.state == "deferred"
        tag = partial(world.hook.set_model_version_tag, world.model_name, "2", "team", "fraud")
        event = await self.wait_in_the_triggerer(outcome, tag)
        assert (event["status"], event["found"]["version"]) == ("found", "2")

    def test_what_is_there_at_the_first_look_is_not_deferred(self, world: World) -> None:
        world.versions(1)
        outcome = sense(world, ModelVersionSensor, deferrable=True)
        assert (outcome.state, outcome.supervisor.messages("DeferTask")) == ("success", [])

    async def test_a_server_that_is_down_for_a_while_is_asked_again(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.versions(1)
        dead = {"conn_type": "mlflow", "host": "http://127.0.0.1:9", "extra": {"retries": 0}}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(dead))
        outcome = sense(world, ModelVersionSensor, deferrable=True)
        assert outcome.state == "deferred"

        def come_back() -> None:
            alive = {"conn_type": "mlflow", "host": world.url}
            monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(alive))

        event = await self.wait_in_the_triggerer(outcome, come_back)
        assert event["found"]["version"] == "1"

    async def test_credentials_that_are_refused_end_the_wait(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outcome = sense(world, ModelVersionSensor, deferrable=True)
        with FaultyServer(world.url) as server:
            fields = {"conn_type": "mlflow", "host": server.url, "extra": {"retries": 0}}
            monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(fields))
            refuse = answer(403, "{}")
            event = await self.wait_in_the_triggerer(outcome, lambda: server.fail("registered-models/search", refuse))
        assert event["status"] == "failed"
        resumed = run_task(outcome.operator, supervisor=outcome.supervisor, resume_with=event)
        assert resumed.state == "up_for_retry"
        assert "403" in str(resumed.error)
