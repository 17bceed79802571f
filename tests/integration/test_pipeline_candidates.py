"""A pipeline with two candidates on a real MLflow: trained once, then measured and judged again without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from tests.support.mlflow_world import World
from tests.support.task_harness import run_dag

pytestmark = pytest.mark.integration

FILE = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: {name}}}
spec:
  sourceCode: code
  trainingScript: train.py
  runtime: local
  config: {{accuracy: 0.8}}
  candidates:
    - name: small
    - name: deep
      config: {{accuracy: 0.9}}
  select: {{metric: accuracy}}
  stages:
    - name: gate
      thresholds: [accuracy >= 0.85]
  stopAfter: register
"""
SCRIPT = """\
import json, os
import mlflow
import numpy as np
from sklearn.dummy import DummyClassifier

config = json.load(open(os.environ["AIRFLOW_MCP_CONFIG_PATH"]))
mlflow.log_metric("accuracy", config["accuracy"])
rows = np.array([[0.0], [1.0]])
model = DummyClassifier().fit(rows, [0, 1])
mlflow.sklearn.log_model(
    model, name="model", serialization_format="cloudpickle", input_example=rows, pip_requirements=[]
)
"""


class Pipeline:
    """The pipeline's Dag, run task by task as the scheduler would."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        (folder / "code").mkdir()
        (folder / "code/train.py").write_text(SCRIPT)
        self.file = folder / "pipeline.yaml"
        self.file.write_text(FILE.format(name=world.experiment))

    def run(self, run_id: str, **params: Any) -> dict[str, dict[str, Any]]:
        """Run all tasks; give the results by task."""
        dag = render(plan_pipeline(load_pipeline_file(self.file)))
        outcomes = run_dag(dag, mlflow_url=self.world.url, run_id=run_id, params=params)
        for task_id, outcome in outcomes.items():
            assert outcome.state == "success", (task_id, outcome.error)
        return {task_id: outcome.result for task_id, outcome in outcomes.items()}


def trained(results: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: results[f"train_{name}"]["run_id"] for name in ("small", "deep")}


def test_candidates_are_trained_once_and_measured_or_judged_again_from_a_later_stage(
    world: World, tmp_path: Path
) -> None:
    pipeline = Pipeline(world, tmp_path)
    first = pipeline.run("run-1")
    assert first["select"]["name"] == "deep"
    assert len(set(trained(first).values())) == 2

    again = pipeline.run("run-2", start_at="evaluate")
    assert trained(again) == trained(first)
    assert again["train_small"]["reused"] is True
    assert again["evaluate_small"]["identity"] != first["evaluate_small"]["identity"]
    assert again["select"]["run_id"] == trained(first)["deep"]

    judged = pipeline.run("run-3", start_at="gate", from_run=trained(first)["small"])
    assert trained(judged) == trained(first)
    for name in ("evaluate_small", "evaluate_deep"):
        assert judged[name] == again[name]
    assert (judged["gate"]["run_id"], judged["gate"]["verdict"]) == (trained(first)["deep"], "passed")
    assert judged["register"]["version"] == first["register"]["version"]
    registered = pipeline.run("run-4", start_at="register")
    assert registered["gate"] == judged["gate"]
    found = world.hook.search_runs([world.experiment_id])
    assert sorted(run.tags[contract.TAG_TASK_ID] for run in found) == ["train_deep", "train_small"]
