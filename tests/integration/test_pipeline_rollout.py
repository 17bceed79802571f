"""A pipeline file with a stage ``deploy``: its Dag on a real MLflow and a real model server, while clients ask.

The tests share the server and the pipeline. Each begins with a champion, whichever version that is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.rollout.state import ARTIFACT_REPORT_HTML
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from tests.support.followed_server import FollowingServer, NumberedVersions, SteadyClient
from tests.support.mlflow_world import World
from tests.support.services import LOOPBACK, MlflowServer
from tests.support.task_harness import TaskOutcome, run_dag

pytestmark = pytest.mark.integration

FILE = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: {name}}}
spec:
  sourceCode: code
  trainingScript: train.py
  runtime: local
  data: {{root: {data}, train: train.csv}}
  stages:
    - name: gate
      thresholds: [accuracy >= 0.85]
    - name: deploy
      steps: [{{setWeight: 50}}, {{analysis: 4s}}]
      analysis: {{rules: ["http_5xx_rate <= 0.2"], onInconclusive: abort}}
      pollInterval: 1s
"""
SCRIPT = """\
import mlflow
import numpy as np
import pandas as pd


class Numbered(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if {is_broken} and (model_input["x1"] == 0.5).any():
            raise ValueError("no such customer")
        return np.full(len(model_input), {number})


mlflow.log_metric("accuracy", 0.9)
rows = pd.DataFrame({{"x1": [0.0, 1.0], "x2": [1.0, 0.0]}})
mlflow.pyfunc.log_model(
    name="model",
    python_model=Numbered(),
    input_example=rows,
    signature=mlflow.models.infer_signature(rows, np.array([0, 0])),
    pip_requirements=[],
)
"""
TASKS = ["begin", "pin_data", "train", "evaluate", "gate", "register", "load_check", "rollout"]


class Pipeline:
    """The pipeline's Dag, run task by task as scheduler and triggerer would."""

    def __init__(self, world: World, server: MlflowServer, folder: Path) -> None:
        self.world, self.name = world, world.experiment
        self.code = folder / "code/train.py"
        self.code.parent.mkdir()
        data = folder / "data/2026-11-29/train.csv"
        data.parent.mkdir(parents=True)
        data.write_text("x1,x2\n0,1\n1,0\n")
        self.file = folder / "pipeline.yaml"
        self.file.write_text(FILE.format(name=self.name, data=folder / "data"))
        self.server = FollowingServer(folder, f"models:/{self.name}@champion", world.url, PROCESSES=1)
        self.versions = NumberedVersions(server, world.hook, self.name, folder)
        """The champion that everything begins with is one of these."""
        self.number = 1

    @property
    def champion(self) -> str:
        return self.world.hook.get_registered_model(self.name).aliases.get(contract.ALIAS_CHAMPION, "")

    def run(self, *, is_broken: bool = False) -> dict[str, TaskOutcome]:
        """Train the next version, which predicts its number, and do with it what the file says."""
        self.number += 1
        self.code.write_text(SCRIPT.format(number=self.number, is_broken=is_broken))
        dag = render(plan_pipeline(load_pipeline_file(self.file)))
        address = {"conn_type": "model_server", "host": LOOPBACK, "port": self.server.port}
        given = {"model_server_default": address}
        return run_dag(dag, mlflow_url=self.world.url, run_id=f"run-{self.number}", connections=given)


@pytest.fixture(scope="module")
def pipeline(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory, warm_server: str
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("pipeline-rollout")
    address = {"conn_type": "mlflow", "host": mlflow_server.url}
    with pytest.MonkeyPatch.context() as patch:
        for conn_id in ("tests", "default"):
            patch.setenv(f"AIRFLOW_CONN_MLFLOW_{conn_id.upper()}", json.dumps(address))
        made = Pipeline(World(mlflow_server.url, folder), mlflow_server, folder)
        place = {"conn_type": "model_server", "host": LOOPBACK, "port": made.server.port}
        patch.setenv("AIRFLOW_CONN_MODEL_SERVER_DEFAULT", json.dumps(place))
        made.versions.add()
        made.versions.promote("1")
        with made.server as server:
            server.wait_for_version("1")
            yield made
        made.world.hook.close()


def test_a_sound_version_takes_over_the_requests_and_becomes_the_champion(
    pipeline: Pipeline,
) -> None:
    before = pipeline.champion
    with SteadyClient(pipeline.server, connections=4, pause=0.1) as client:
        outcomes = pipeline.run()
        version = str(pipeline.number)
        assert {name: outcome.state for name, outcome in outcomes.items()} == dict.fromkeys(
            [*TASKS, "outcome"], "success"
        )
        pipeline.server.wait_for_version(version)
    client.require_no_failure()
    assert client.versions == {before, version}
    assert pipeline.champion == version
    result = outcomes["rollout"].result
    assert (result["phase"], result["version"], result["previous_version"]) == ("SUCCEEDED", version, before)


def test_a_version_that_passes_the_gate_and_fails_in_production_is_taken_back(
    pipeline: Pipeline,
) -> None:
    before = pipeline.champion
    with SteadyClient(pipeline.server, connections=4, pause=0.1) as client:
        outcomes = pipeline.run(is_broken=True)
        pipeline.server.wait_for(lambda: pipeline.server.status()["models"][pipeline.name]["weight"] == 0)
        answered = len(client.answers)
        pipeline.server.wait_for(lambda: len(client.answers) > answered + 20)
    assert [name for name, outcome in outcomes.items() if outcome.state == "success"] == TASKS[:-1]
    result = outcomes["rollout"].result
    assert (outcomes["rollout"].state, result["phase"]) == ("failed", "FAILED")
    assert result["cause"] in ("analysis", "breaker")
    assert outcomes["load_check"].result["version"] == result["version"]
    assert pipeline.champion == before
    assert client.errors == []
    assert {answer.status for answer in client.answers} == {200, 500}
    assert {(answer.status, answer.version) for answer in client.answers[answered:]} == {(200, before)}
    run = pipeline.world.hook.get_run(result["run_id"])
    assert run.status == "FAILED"
    assert b"<svg" in pipeline.world.artifact(run, ARTIFACT_REPORT_HTML)
