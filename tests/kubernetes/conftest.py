"""Fixtures of the tests that need a real Kubernetes cluster and the workload image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.services import MlflowServer

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster, PodWorld

HOW_TO_GET_A_CLUSTER = (
    "KUBECONFIG is not set: these tests need a Kubernetes cluster. With kind: `kind create cluster`, `make image`, "
    "`kind load docker-image airflow-mcp/runtime:dev`, `export KUBECONFIG=$HOME/.kube/config`"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where there is no cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            if not os.environ.get("KUBECONFIG"):
                item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_A_CLUSTER))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A namespace of its own in the cluster."""
    from tests.kubernetes.cluster import Cluster

    cluster = Cluster()
    cluster.open()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def pod_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server that pods reach too."""
    from tests.kubernetes.cluster import HOST

    with MlflowServer(tmp_path_factory.mktemp("pod-mlflow"), host=HOST) as server:
        yield server


@pytest.fixture
def world(
    cluster: Cluster, pod_mlflow: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PodWorld]:
    """An experiment, a model and a Dag of the test's own, with work in pods."""
    from tests.kubernetes.cluster import PodWorld

    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": pod_mlflow.url}))
    world = PodWorld(cluster, pod_mlflow.url, tmp_path)
    yield world
    world.hook.close()
    for pod in cluster.pods(world.dag_id):
        cluster.delete(pod.metadata.name)


@pytest.fixture
def apiserver_pid() -> int:
    """Process of the cluster's API server, for tests that stop it for a while."""
    text = os.environ.get("AIRFLOW_MCP_TEST_APISERVER_PID", "")
    if not text:
        pytest.skip("AIRFLOW_MCP_TEST_APISERVER_PID is not set: it names the process of kube-apiserver on this machine")
    return int(text)
