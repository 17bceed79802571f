"""DriftSensor against a real MLflow server, in a worker and in the triggerer."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.sensors.drift import DriftSensor
from airflow_mcp.triggers.drift import DriftVerdictTrigger
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome, run_task

pytestmark = pytest.mark.integration
CONNECTION = "mlflow_tests"


def sensor(world: World, **options: Any) -> DriftSensor:
    given = {"model_name": world.model_name, "experiment_name": world.experiment, "deferrable": False, **options}
    waits = {"poke_interval": 0.05, "timeout": 0.2}
    return DriftSensor(task_id="wait", mlflow_conn_id=CONNECTION, retries=3, **{**waits, **given})


def checked(world: World, verdict: str, at: int, version: str = "v1", status: str = "FINISHED") -> Run:
    """Leave what a drift check leaves that ended at a time (milliseconds)."""
    tags = {
        contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
        contract.TAG_MODEL_NAME: world.model_name,
        contract.TAG_DRIFT_VERDICT: verdict,
        contract.TAG_DATA_VERSION: version,
    }
    run = world.hook.create_run(world.experiment_id, "check", tags, at - 10)
    world.hook.update_run(run.run_id, status, at)
    return world.hook.get_run(run.run_id)


def test_the_newest_verdict_is_given_and_an_older_one_does_not_count(world: World) -> None:
    older, newer = checked(world, "drifted", 1000), checked(world, "not_drifted", 2000, version="v2")
    checked(world, "drifted", 3000, status="FAILED")
    outcome = run_task(sensor(world))
    assert outcome.state == "success", outcome.error
    assert outcome.result == {
        "run_id": newer.run_id,
        "verdict": "not_drifted",
        "drift_share": None,
        "data_uri": "",
        "data_version": "v2",
        "data_hash": "",
    }
    links = [value for key, value in outcome.xcom.items() if key.startswith("_link_")]
    assert any(newer.run_id in str(link) for link in links)
    assert "timed out" in str(run_task(sensor(world, verdicts=["drifted"])).error)
    assert run_task(sensor(world, verdicts=["drifted"], data_version="v1")).result["run_id"] == older.run_id
    assert "timed out" in str(run_task(sensor(world, since="2026-01-01T00:00:00+00:00")).error)


def test_a_check_that_ends_while_the_sensor_waits_in_the_triggerer_resumes_it(world: World) -> None:
    operator = sensor(world, deferrable=True, verdicts=["drifted", "inconclusive"], timeout=60)
    outcome: TaskOutcome = run_task(operator)
    assert outcome.state == "deferred", outcome.error
    stored = outcome.supervisor.messages("DeferTask")[-1]
    module, _, name = stored.classpath.rpartition(".")
    arguments = deserialize(serialize(deserialize(stored.trigger_kwargs)))
    trigger = getattr(importlib.import_module(module), name)(**{**arguments, "poll_seconds": 1})
    trigger.poll_seconds = 0.05

    async def wait() -> dict[str, Any]:
        async with asyncio.timeout(30):
            first = asyncio.ensure_future(anext(aiter(trigger.run())))
            await asyncio.to_thread(checked, world, "not_drifted", 1000)
            await asyncio.sleep(0.2)
            assert not first.done()
            await asyncio.to_thread(checked, world, "inconclusive", 2000)
            return dict((await first).payload)

    event = asyncio.run(wait())
    assert event["status"] == "found"
    resumed = run_task(operator, supervisor=outcome.supervisor, resume_with=event)
    assert resumed.state == "success", resumed.error
    assert resumed.result["verdict"] == "inconclusive"


def test_the_event_trigger_sees_only_checks_that_found_drift(world: World) -> None:
    trigger = DriftVerdictTrigger(
        model_name=world.model_name, experiment_name=world.experiment, mlflow_conn_id=CONNECTION
    )
    checked(world, "inconclusive", 500)
    assert asyncio.run(trigger.look()) is None
    found = checked(world, "drifted", 1000)
    checked(world, "not_drifted", 2000)
    sighting = asyncio.run(trigger.look())
    assert sighting is not None
    assert (sighting.mark, sighting.payload["data_version"]) == (found.run_id, "v1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": ""}, "model_name must be text that is not empty; got ''"),
        ({"experiment_name": "None"}, "experiment_name must be text that is not empty; got 'None'"),
        ({"verdicts": "drifted"}, "verdicts must be a list of drifted"),
        ({"verdicts": ["maybe"]}, "got ['maybe']"),
        ({"since": "now"}, "since must be a time with its time zone"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(world: World, options: dict[str, Any], message: str) -> None:
    outcome = run_task(sensor(world, **options))
    assert outcome.state == "failed"
    assert message in str(outcome.error)
