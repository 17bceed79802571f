"""The pipeline file of the documentation, run by a real Airflow: by hand, by a commit, from a later stage, edited."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import write_stubs
from airflow_mcp.hooks.mlflow import MlflowHook
from tests.support import processes, warm
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import AirflowStack
from tests.support.git_server import Repository
from tests.support.paths import PIPELINES
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

wait_until = functools.partial(processes.wait_until, seconds=180)
DAG = "fraud-detection-pipeline"
FILE = PIPELINES / "fraud_detection.yaml"
ADDRESS = "https://github.com/team/ml-fraud-v3"
SCRIPT = """\
import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

ACCURACY = {accuracy}
features, labels = make_classification(200, 4, random_state=7)
model = LogisticRegression().fit(features, labels)
mlflow.log_metric("accuracy", ACCURACY)
mlflow.sklearn.log_model(
    model, name="model", input_example=features[:5], serialization_format="cloudpickle", pip_requirements=[]
)
"""
RUN_SECONDS = 300


class Deployment:
    """A repository with the code, and a folder of Dags with the file and its stub."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "ml-fraud-v3")
        self.commit(0.95)
        self.dags = folder / "dags"
        self.file = self.dags / "pipelines" / FILE.name
        self.file.parent.mkdir(parents=True)
        given = FILE.read_text()
        assert ADDRESS in given
        # The file as it is documented, but for an address that can be reached here and a shorter wait.
        text = given.replace(ADDRESS, self.repository.url)
        self.file.write_text(text.replace("onCommit: true", "onCommit: {poll: 2s}"))
        write_stubs(load_pipeline_folder(self.file.parent), self.file.parent, self.dags)

    def commit(self, accuracy: float) -> str:
        """Commit a script that trains a model of such an accuracy."""
        return self.repository.commit(SCRIPT.format(accuracy=accuracy))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return Deployment(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def hook(mlflow_server: MlflowServer) -> Iterator[MlflowHook]:
    connection = json.dumps({"conn_type": "mlflow", "host": mlflow_server.url})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_PIPELINE", connection)
        hook = MlflowHook("mlflow_pipeline")
        yield hook
        hook.close()


@pytest.fixture(scope="module")
def api(
    deployment: Deployment, mlflow_server: MlflowServer, warm_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowClient]:
    settings = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    }
    home = tmp_path_factory.mktemp("airflow")
    settings |= warm.in_airflow(home, warm_server)
    with AirflowStack(home, deployment.dags, env=settings) as stack, stack.api() as client:
        client.wait_for_dag(DAG)
        client.unpause(DAG)
        yield client


def finished(api: AirflowClient, conf: dict[str, Any]) -> tuple[str, dict[str, str | None]]:
    """Press "Trigger", wait for the end, and give the run's id and the states of its tasks."""
    run_id = api.trigger(DAG, conf)
    api.wait_for_run(DAG, run_id, RUN_SECONDS)
    return run_id, api.task_states(DAG, run_id)


def champion(hook: MlflowHook) -> str:
    return hook.get_registered_model(DAG).aliases.get(contract.ALIAS_CHAMPION, "")


def runs_by_event(api: AirflowClient) -> list[dict[str, Any]]:
    return [run for run in api.list_runs(DAG) if run["run_type"] == "asset_triggered"]


def settle(api: AirflowClient) -> None:
    """Wait for what unpausing a Dag with a time table has started: a run for the last night."""
    assert wait_until(lambda: all(run["state"] in ("success", "failed") for run in api.list_runs(DAG)))


def test_a_pipeline_file_trains_judges_registers_and_promotes_what_a_commit_brought(
    api: AirflowClient, deployment: Deployment, hook: MlflowHook
) -> None:
    settle(api)
    run_id, states = finished(api, {"reason": "the first model", "force": True})
    assert states == dict.fromkeys(
        ("begin", "build", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome"), "success"
    )
    begun = api.xcom(DAG, run_id, "begin")
    head = deployment.repository.git("rev-parse", "HEAD")
    assert begun["commit"] == head
    version = hook.get_model_version(DAG, champion(hook))
    assert version.tags[contract.TAG_CODE_COMMIT] == head
    assert version.tags[contract.TAG_GATE_VERDICT] == "passed"
    assert "the first model" in version.tags[contract.TAG_REASON]

    better = deployment.commit(0.97)
    before = len(runs_by_event(api))
    assert wait_until(lambda: len(runs_by_event(api)) > before)
    by_commit = runs_by_event(api)[-1]["dag_run_id"]
    assert api.wait_for_run(DAG, by_commit, RUN_SECONDS) == "success"
    assert api.xcom(DAG, by_commit, "begin")["commit"] == better
    second = hook.get_model_version(DAG, champion(hook))
    assert second.tags[contract.TAG_CODE_COMMIT] == better
    assert second.version != version.version


def test_a_model_below_its_threshold_is_not_registered_and_the_log_says_why(
    api: AirflowClient, deployment: Deployment, hook: MlflowHook
) -> None:
    settle(api)
    before = champion(hook)
    known = len(runs_by_event(api))
    deployment.commit(0.9199)
    assert wait_until(lambda: len(runs_by_event(api)) > known)
    run_id = runs_by_event(api)[-1]["dag_run_id"]
    assert api.wait_for_run(DAG, run_id, RUN_SECONDS) == "failed"
    states = api.task_states(DAG, run_id)
    assert (states["evaluate"], states["gate"], states["register"]) == ("success", "failed", "upstream_failed")
    assert "0.9199 is not >= 0.92" in api.task_log(DAG, run_id, "gate")
    assert champion(hook) == before


def test_a_run_that_starts_at_the_gate_judges_the_same_training_again(
    api: AirflowClient, deployment: Deployment, hook: MlflowHook
) -> None:
    settle(api)
    good = hook.get_model_version(DAG, champion(hook)).run_id
    run_id, states = finished(api, {"start_at": "gate", "from_run": good})
    assert set(states.values()) == {"success"}, states
    assert api.xcom(DAG, run_id, "train")["run_id"] == good
    assert api.xcom(DAG, run_id, "train")["reused"] is True
    assert len(hook.search_model_versions(f"name = '{DAG}' and run_id = '{good}'")) == 1


def test_a_run_refuses_to_go_on_after_its_file_has_changed(api: AirflowClient, deployment: Deployment) -> None:
    settle(api)
    run_id, states = finished(api, {"start_at": "gate"})
    text = deployment.file.read_text()
    deployed = api.dag_versions(DAG)
    deployment.file.write_text(text.replace("accuracy: 0.92", "accuracy: 0.5"))
    assert wait_until(lambda: api.dag_versions(DAG) > deployed)
    api.clear_task(DAG, run_id, "gate")
    assert wait_until(lambda: api.task_states(DAG, run_id)["gate"] == "failed"), states
    assert "changed since this run began" in api.task_log(DAG, run_id, "gate", try_number=2)
