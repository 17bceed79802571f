"""SteerRolloutOperator on a real MLflow server, with a rollout that was really begun."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, RolloutDocument
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.steer_rollout import SteerRolloutOperator
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


@pytest.fixture
def rolling(world: World) -> World:
    """Version 2 is at 5 % of the requests, in the second step."""
    world.versions(2)
    world.hook.set_alias(world.model_name, "champion", "1")
    begun = world.run(
        RolloutModelOperator,
        model_name=world.model_name,
        version="2",
        expected_champion="1",
        experiment_name=world.experiment,
        steps=[{"setWeight": 5}, {"analysis": "10m"}],
        dag_run_id="nightly",
        deferrable=True,
    )
    assert begun.state == "deferred", begun.error
    put(world, phase="PROGRESSING", weight=5.0, step=1, generation=2)
    return world


def document(world: World) -> RolloutDocument:
    text = world.hook.get_model_version(world.model_name, "1").tags[TAG_ROLLOUT]
    return RolloutDocument.model_validate_json(text)


def put(world: World, **changes: Any) -> None:
    """Write what the task of the rollout would write."""
    text = document(world).model_copy(update=changes).model_dump_json(by_alias=True)
    world.hook.set_model_version_tag(world.model_name, "1", TAG_ROLLOUT, text)


def steer(world: World, action: str, **given: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "action": action, "reason": "look first", **given}
    return world.run(SteerRolloutOperator, **arguments)


def test_a_rollout_is_paused_resumed_and_aborted_and_a_retry_changes_nothing(rolling: World) -> None:
    paused = steer(rolling, "pause", dag_run_id="run-1")
    assert (paused.state, paused.xcom["phase"], paused.xcom["changed"]) == ("success", "WAITING", True)
    again = steer(rolling, "pause", dag_run_id="run-1", try_number=2)
    assert (again.xcom["changed"], document(rolling).generation) == (False, 3)
    resumed = steer(rolling, "resume", dag_run_id="run-2", generation="3")
    assert (resumed.xcom["phase"], document(rolling).reason) == ("PROGRESSING", "resumed: look first")
    put(rolling, phase="WAITING", by="the rollout", generation=5)
    retried = steer(rolling, "resume", dag_run_id="run-2", try_number=2, generation="3")
    assert (retried.state, document(rolling).phase) == ("failed", "WAITING")
    aborted = steer(rolling, "abort", dag_run_id="run-3", rollout=document(rolling).identity)
    assert (aborted.xcom["phase"], aborted.xcom["weight"], document(rolling).is_active) == ("FAILED", 0, False)
    assert steer(rolling, "abort", dag_run_id="run-3", try_number=2).state == "success"


@pytest.mark.parametrize(
    ("action", "given", "said"),
    [
        ("abort", {"rollout": "another"}, "rollout 'another' of .* is not in progress: the latest is"),
        ("resume", {}, "so there is nothing to resume"),
        ("stop", {}, "action must be one of pause, resume, abort; got 'stop'"),
        ("pause", {"reason": ""}, "reason must be"),
    ],
)
def test_what_does_not_fit_is_refused_and_writes_nothing(
    rolling: World, action: str, given: dict[str, str], said: str
) -> None:
    outcome = steer(rolling, action, **given)
    assert outcome.state == "failed"
    assert re.search(said, str(outcome.error))
    assert document(rolling).generation == 2
