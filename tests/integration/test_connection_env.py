"""Values of connections in the environment of a real child process, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.operators.training import TrainModelOperator
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import FakeSupervisor, TaskOutcome

pytestmark = pytest.mark.integration

PASSWORD = "warehouse-pass-word"
WAREHOUSE = {"conn_type": "postgres", "login": "reader", "password": PASSWORD}
SHOWN = 'import os\nprint("it is", os.environ["WAREHOUSE_PASSWORD"], len(os.environ["WAREHOUSE_PASSWORD"]))\n'


def train(world: World, script: str, **options: Any) -> TaskOutcome:
    connections = {"mlflow_default": {"host": world.url, "extra": {"retries": 0}}, "warehouse": WAREHOUSE}
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "command": world.command("model", script=script),
        "connection_env": {"WAREHOUSE_PASSWORD": "warehouse.password"},
        **options,
    }
    return world.run(TrainModelOperator, supervisor=FakeSupervisor(connections=connections), **given)


def test_the_workload_gets_the_value_and_the_log_does_not(world: World) -> None:
    outcome = train(world, SHOWN + "raise SystemExit(3)")
    assert outcome.state == "up_for_retry"
    assert f"it is *** {len(PASSWORD)}" in str(outcome.error)
    sent = [message for message in outcome.supervisor.sent if type(message).__name__ != "MaskSecret"]
    (run,) = world.runs()
    for text in (repr(sent), repr(run), str(outcome.error)):
        assert PASSWORD not in text
    assert PASSWORD in [message.value for message in outcome.supervisor.messages("MaskSecret")]


def test_a_training_with_it_succeeds(world: World) -> None:
    outcome = train(world, SHOWN + REST_TRAINING)
    assert outcome.state == "success", outcome.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"connection_env": {"A": "nowhere.password"}}, "there is no connection 'nowhere'"),
        ({"connection_env": {"A": "warehouse.host"}}, "field 'host' of connection 'warehouse' is empty or missing"),
        ({"connection_env": {"MLFLOW_RUN_ID": "warehouse.login"}}, "connection_env sets MLFLOW_RUN_ID"),
        ({"env": {"WAREHOUSE_PASSWORD": "x"}}, "env and connection_env both set WAREHOUSE_PASSWORD"),
        (
            {"env": {"LAKE_TOKEN": "hunter2"}},
            "env must have no credential; got LAKE_TOKEN, whose value",
        ),
        ({"env": {"LAKE": "s3://user:hunter2@lake"}}, "env must have no credential; got LAKE, whose value"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_starts(world: World, options: dict[str, Any], says: str) -> None:
    outcome = train(world, "raise SystemExit('must not start')", **options)
    assert outcome.state == "failed"
    assert says in str(outcome.error)
    assert "hunter2" not in str(outcome.error)
    assert world.runs("RUNNING") == []
