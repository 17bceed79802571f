"""The pipeline file of the documentation with its steps in pods: from the commit to the champion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from airflow_mcp.core import contract
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from tests.kubernetes.cluster import HOST, IMAGE, PodWorld
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository
from tests.support.paths import PIPELINES
from tests.support.task_harness import run_dag

FILE = PIPELINES / "fraud_detection.yaml"
TASKS = ["begin", "build", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome"]
SCRIPT = """\
import os
import mlflow
from sklearn.dummy import DummyClassifier

assert os.environ["LOGIN_OF_THE_CODE"] == "bob"
model = DummyClassifier().fit([[0.0], [1.0]], [0, 1])
mlflow.log_metric("accuracy", 0.95)
mlflow.sklearn.log_model(model, name="model", input_example=[[0.0]], serialization_format="cloudpickle")
"""


def pipeline_file(world: PodWorld, url: str) -> Path:
    """Write the documented file, with an address, an image and pods that there are here."""
    document = yaml.safe_load(FILE.read_text())
    document["metadata"]["name"] = world.dag_id
    spec = document["spec"]
    spec |= {
        "sourceCode": {"repoUrl": url, "gitConnId": "git_tests"},
        "runtime": "kubernetes",
        "resources": {"cpu": "500m", "memory": "1Gi"},
        "secretEnv": {"LOGIN_OF_THE_CODE": "git_tests.login"},
        "kubernetes": {
            name: value for name, value in world.pod_options(deferrable=False).items() if name not in ("cpu", "memory")
        },
    }
    spec["stages"][0]["image"] = IMAGE
    path = world.folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_documented_pipeline_makes_a_champion_with_every_step_in_a_pod(
    world: PodWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "git", "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps(connection))
    repository = Repository(tmp_path / "models")
    commit = repository.commit(SCRIPT)
    with GitHttpServer(repository.folder.parent, HOST) as server:
        dag = render(plan_pipeline(load_pipeline_file(pipeline_file(world, f"{server.url}/models"))))
        outcomes = run_dag(dag, mlflow_url=world.url)
    assert [(name, outcome.state, outcome.error) for name, outcome in outcomes.items()] == [
        (name, "success", None) for name in TASKS
    ]
    champion = world.hook.get_registered_model(world.dag_id).aliases[contract.ALIAS_CHAMPION]
    version = world.hook.get_model_version(world.dag_id, champion)
    assert version.tags[contract.TAG_CODE_COMMIT] == commit
    assert version.tags[contract.TAG_IMAGE_DIGEST].startswith("sha256:")
    runs = world.hook.search_runs([world.hook.get_or_create_experiment(world.dag_id)])
    by_task = {run.tags[contract.TAG_TASK_ID]: run.tags for run in runs}
    assert by_task.keys() == {"build", "train"}
    assert {tags[contract.TAG_CODE_COMMIT] for tags in by_task.values()} == {commit}
    assert version.tags[contract.TAG_IMAGE_DIGEST] == by_task["train"][contract.TAG_IMAGE_DIGEST]
    assert world.cluster.pods(world.dag_id) == []
