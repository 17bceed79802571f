"""Every operator while MLflow is unreachable, slow, broken, or answers for somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_mcp.operators.retrain import RetrainTriggerOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.fakes.faulty_server import FaultyServer, answer, html, slow
from tests.support.mlflow_world import World
from tests.support.services import free_port
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

TOKEN = "t0ken-that-nobody-may-see"
ONCE = {"retries": 0, "timeout": 0.3, "token": TOKEN}
DATA = {"uri": "/data/v1/train.csv", "version": "v1", "hash": "sha256:00"}


def arguments(world: World) -> dict[type[Any], dict[str, Any]]:
    """What each operator needs; champion, version 2 and a judged model are there."""
    run = world.new_run()
    name, run_id = world.model_name, run.run_id
    model_id = world.judged_model()[1]
    command = world.command("model")
    env = {"MARKER": world.marker}
    return {
        TrainModelOperator: {"experiment_name": world.experiment, "model_name": name, "command": command, "env": env},
        EvaluateModelOperator: {
            "run_id": run_id,
            "model_uri": f"models:/{model_id}",
            "model_name": name,
            "dataset": DATA,
            "target": "y",
            "model_type": "classifier",
            "env": env,
        },
        EvaluationGateOperator: {"run_id": run_id, "model_name": name, "thresholds": ["accuracy >= 0.9"]},
        RegisterModelOperator: {"model_name": name, "model_uri": f"models:/{model_id}"},
        LoadCheckOperator: {"model_name": name, "version": "2", "env": env},
        PromoteModelOperator: {"model_name": name, "version": "2", "expected_champion": "1"},
        RollbackModelOperator: {"model_name": name, "to_version": "2"},
        TransitionModelStageOperator: {"model_name": name, "version": "2", "stage": "Staging"},
        CopyModelVersionOperator: {
            "model_name": name,
            "version": "2",
            "target_model_name": f"{name}-prod",
            "experiment_name": world.experiment,
            "env": env,
        },
        DriftCheckOperator: {"experiment_name": world.experiment, "model_name": name, "current": DATA, "env": env},
        RetrainTriggerOperator: {
            "trigger_dag_id": "nightly",
            "model_name": name,
            "experiment_name": world.experiment,
            "dataset": DATA,
        },
    }


OPERATORS = [
    TrainModelOperator,
    EvaluateModelOperator,
    EvaluationGateOperator,
    RegisterModelOperator,
    LoadCheckOperator,
    PromoteModelOperator,
    RollbackModelOperator,
    TransitionModelStageOperator,
    CopyModelVersionOperator,
    DriftCheckOperator,
    RetrainTriggerOperator,
]
FAULTS = {
    "slow": (lambda: slow(1.0), "silent for 0.3 s"),
    "error-500": (lambda: answer(500, '{"error_code": "INTERNAL_ERROR", "message": "disk full"}'), "HTTP 500"),
    "error-503": (lambda: answer(503, "down for maintenance"), "HTTP 503"),
    "unauthorized": (lambda: answer(401, '{"message": "who are you?"}'), "HTTP 401"),
    "forbidden": (lambda: answer(403, '{"error_code": "PERMISSION_DENIED", "message": "no"}'), "HTTP 403"),
    "html": (lambda: html(200), "(text/html; charset=utf-8) is not a JSON object; this is not MLflow's API"),
    "broken-json": (lambda: answer(200, '{"run": {'), "this is not MLflow's API"),
    "empty-object": (lambda: answer(200, "{}"), "is missing"),
}


class Scene:
    """A server that goes wrong in front of the real one, and what must not change on the real one."""

    def __init__(self, world: World, server: FaultyServer) -> None:
        self.world, self.server = world, server
        world.versions(2)
        world.hook.set_alias(world.model_name, "champion", "1")
        self.arguments = arguments(world)
        self.before = self._state()

    def run(self, operator: type[Any], **options: Any) -> TaskOutcome:
        given = {"url": self.server.url, "extra": ONCE, **self.arguments[operator], **options}
        return self.world.run(operator, **given)

    def require_untouched(self) -> None:
        """Require that nothing was created, moved or left running."""
        assert self._state() == self.before
        assert self.world.processes() == []

    def _state(self) -> Any:
        world = self.world
        versions = sorted(version.version for version in world.all_versions())
        return world.aliases, versions, sorted(run.run_id for run in world.runs()), world.claims


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    with FaultyServer(world.url) as server:
        yield Scene(world, server)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_mlflow_that_is_not_there_is_named_and_nothing_happens(scene: Scene, operator: type[Any]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    outcome = scene.run(operator, url=url)
    assert outcome.state == "up_for_retry"
    message = str(outcome.error)
    assert f"at {url} (connection 'mlflow_default')" in message
    assert "Connection refused" in message
    assert TOKEN not in message
    scene.require_untouched()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_an_answer_that_is_wrong_is_described_and_nothing_happens(
    scene: Scene, operator: type[Any], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = FAULTS[fault]
    scene.server.fail("", make())
    outcome = scene.run(operator)
    message = str(outcome.error)
    assert outcome.state == "up_for_retry", message
    assert expected in message
    assert f"at {scene.server.url} (connection 'mlflow_default')" in message
    assert TOKEN not in message + capsys.readouterr().out
    scene.require_untouched()


RECOVERS: list[tuple[type[Any], Callable[[World], bool]]] = [
    (TrainModelOperator, lambda world: len(world.runs("FINISHED")) == 5 and not world.runs("RUNNING")),
    (RegisterModelOperator, lambda world: len(world.all_versions()) == 3),
    (PromoteModelOperator, lambda world: world.aliases == {"champion": "2", "previous_champion": "1"}),
    (RollbackModelOperator, lambda world: world.aliases == {"champion": "2"}),
    (TransitionModelStageOperator, lambda world: world.aliases == {"champion": "1", "challenger": "2"}),
]


@pytest.mark.parametrize(("operator", "is_done"), RECOVERS, ids=[item[0].__name__ for item in RECOVERS])
def test_a_short_failure_is_bridged_without_a_retry_of_the_task(
    scene: Scene, operator: type[Any], is_done: Callable[[World], bool]
) -> None:
    scene.server.fail("", answer(503, "restarting"), times=2)
    outcome = scene.run(operator, extra={"retries": 4, "timeout": 5})
    assert outcome.state == "success", outcome.error
    assert is_done(scene.world)


def test_a_connection_that_does_not_exist_is_said_so(world: World) -> None:
    outcome = world.run(
        RollbackModelOperator, model_name=world.model_name, mlflow_conn_id="nobody_made_it", to_version="1"
    )
    assert outcome.state != "success"
    assert "nobody_made_it" in str(outcome.error)
