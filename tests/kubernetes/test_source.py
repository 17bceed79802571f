"""Trainings in pods whose code an init container fetches from a Git server that wants a login."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.kubernetes.cluster import HOST, IMAGE, Cluster, PodWorld, training
from tests.support.dvc_repository import FIRST, DvcRepository
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer, Repository
from tests.support.mlflow_world import REST_TRAINING
from tests.support.task_harness import TaskOutcome

FOREIGN_IMAGE = "airflow-mcp/foreign:test"
DOCKERFILE = f"""
FROM {IMAGE}
USER 0
RUN rm -rf /opt/airflow-mcp/lib/python*/site-packages/airflow_mcp* && ! python -c 'import airflow_mcp'
USER 10001
ENTRYPOINT []
"""
READS_ITS_NEIGHBOUR = """
import os, pathlib
assert pathlib.Path('beside.txt').read_text() == 'from the commit'
assert not [name for name in os.environ if '_GIT_' in name]
"""
READS_DATA = f"""
import os, pathlib
assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).read_text() == {FIRST!r}
assert not [name for name in os.environ if '_GIT_' in name]
"""
WITH_MLFLOW = """
import mlflow
from sklearn.dummy import DummyClassifier
with mlflow.start_run():
    mlflow.sklearn.log_model(DummyClassifier().fit([[0], [1]], [0, 1]), name='model', pip_requirements=[])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "models")
    repository.commit("from the commit", "jobs/beside.txt")
    return repository


@pytest.fixture
def url(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    connection = {"conn_type": "git", "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps(connection))
    with GitHttpServer(repository.folder.parent, HOST) as server:
        yield f"{server.url}/models"


@pytest.fixture(scope="module")
def foreign_image(cluster: Cluster) -> str:
    """An image with Python and MLflow and nothing of this package, on nodes of Docker or of containerd."""
    runtimes = {node.status.node_info.container_runtime_version for node in cluster.api.list_node().items}
    needed = {"docker", *("ctr" for version in runtimes if version.startswith("containerd://"))}
    known = all(version.startswith(("docker://", "containerd://")) for version in runtimes)
    if not known or not all(shutil.which(program) for program in needed):
        pytest.skip("needs Docker, and nodes that run this machine's images: one is built for the test")
    subprocess.run(["docker", "build", "--quiet", "--tag", FOREIGN_IMAGE, "-"], input=DOCKERFILE.encode(), check=True)
    if "ctr" in needed:
        image = subprocess.run(["docker", "save", FOREIGN_IMAGE], capture_output=True, check=True).stdout
        subprocess.run(["ctr", "--namespace", "k8s.io", "images", "import", "-"], input=image, check=True)
    return FOREIGN_IMAGE


@pytest.fixture
def dvc_remote(tmp_path: Path) -> Iterator[str]:
    """Address by which pods read the remote of a DVC repository that is made in this folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "remote"))
    with ThreadingHTTPServer((HOST, 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()


def source(url: str, commit: str) -> dict[str, str]:
    return {"repo_url": url, "revision": commit, "path": "jobs", "git_conn_id": "git_tests"}


def train(world: PodWorld, code: dict[str, str], **options: Any) -> TaskOutcome:
    """Train with a script of the repository."""
    return world.run(
        TrainModelOperator,
        experiment_name=world.experiment,
        model_name=world.model_name,
        code=code,
        script="train.py",
        runtime="kubernetes",
        workload_resources={"memory": "1Gi", "cpu": "1"},
        kubernetes=world.pod_options(deferrable=False),
        **options,
    )


def trained_commit(world: PodWorld, outcome: TaskOutcome) -> str:
    """Require one training that ended well and left no pod; give the commit that its run names."""
    assert outcome.state == "success", outcome.error
    (run,) = world.runs()
    assert run.status == "FINISHED"
    assert outcome.result["model_id"] == run.model_ids[0]
    assert world.cluster.pods(world.dag_id) == []
    return run.tags[contract.TAG_CODE_COMMIT]


def test_a_script_trains_under_our_runtime(world: PodWorld, repository: Repository, url: str) -> None:
    commit = repository.commit(READS_ITS_NEIGHBOUR + REST_TRAINING, "jobs/train.py")
    outcome = train(world, source(url, commit), arguments=["model"])
    assert trained_commit(world, outcome) == commit


def test_a_script_trains_in_an_image_that_has_nothing_of_ours(
    world: PodWorld, repository: Repository, url: str, foreign_image: str
) -> None:
    commit = repository.commit(READS_ITS_NEIGHBOUR + WITH_MLFLOW, "jobs/train.py")
    outcome = train(world, source(url, commit), image=foreign_image)
    assert trained_commit(world, outcome) == commit


def test_a_command_of_a_deferred_task_runs_in_the_checkout(world: PodWorld, repository: Repository, url: str) -> None:
    commit = repository.commit("any", "jobs/train.py")
    outcome = world.see_through(training(READS_ITS_NEIGHBOUR), deferrable=True, code=source(url, commit))
    assert trained_commit(world, outcome) == commit


def test_a_commit_that_is_not_there_fails_for_good_and_says_so(
    world: PodWorld, repository: Repository, url: str
) -> None:
    repository.commit("any", "jobs/train.py")
    outcome = world.see_through(deferrable=True, code=source(url, "1" * 40))
    assert outcome.state == "failed", outcome.error
    for text in ("in its init container 'checkout' with exit code 2", "has no commit 1111"):
        assert text in str(outcome.error)
    assert [run.status for run in world.runs()] == ["FAILED"]
    assert world.cluster.pods(world.dag_id) == []


def test_a_server_that_refuses_the_login_is_named_and_tried_again(
    world: PodWorld, repository: Repository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_GIT_TESTS", json.dumps({"conn_type": "git", "login": "x", "password": "wrong-one"})
    )
    commit = repository.commit("any", "jobs/train.py")
    outcome = world.see_through(deferrable=False, code=source(url, commit))
    world.require_failure(outcome, "in its init container 'checkout' with exit code 1", "Authentication failed")
    assert "wrong-one" not in str(outcome.error)


def test_data_of_dvc_is_a_plain_file_in_the_pod(
    world: PodWorld, tmp_path: Path, dvc_remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "git", "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps(connection))
    commit = DvcRepository(tmp_path / "data").move_remote(dvc_remote)
    with GitHttpServer(tmp_path, HOST) as server:
        dvc = {"repo_url": f"{server.url}/data", "git_conn_id": "git_tests"}
        pinned = world.run(PinDatasetOperator, dvc=dvc, files={"train": "data/train.csv"}, version=commit)
        assert pinned.state == "success", pinned.error
        dataset = pinned.xcom["train"]
        outcome = world.train(training(READS_DATA), dataset=dataset, workload_resources={"memory": "512Mi", "cpu": "1"})
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    assert (run.tags[contract.TAG_DATA_URI], run.tags[contract.TAG_DATA_HASH]) == (dataset["uri"], dataset["hash"])
    assert world.cluster.pods(world.dag_id) == []


def test_a_step_runs_its_command_in_a_pod(world: PodWorld, repository: Repository, url: str) -> None:
    commit = repository.commit("x = 1", "jobs/train.py")
    outcome = world.run(
        RunStepOperator,
        experiment_name=world.experiment,
        command=["sh", "-c", "test -f train.py && cp train.py written-beside-it.py"],
        code=source(url, commit),
        runtime="kubernetes",
        kubernetes=world.pod_options(deferrable=False),
    )
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    assert (outcome.result["run_id"], outcome.result["skipped"]) == (run.run_id, False)
    assert world.cluster.pods(world.dag_id) == []
