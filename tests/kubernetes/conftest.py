"""Fixtures of the tests that need a real Kubernetes cluster and the workload image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.services import MlflowServer

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster, PodWorld

HOW_TO_GET_A_CLUSTER = (
    "KUBECONFIG is not set: these tests need a Kubernetes cluster. With kind: `kind create cluster`, `make image "
    "serving-image`, `kind load docker-image airflow-mcp/runtime:dev airflow-mcp/serving:dev`, "
    "`export KUBECONFIG=$HOME/.kube/config`"
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

    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def pod_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server that pods reach too."""
    from tests.kubernetes.cluster import HOST

    with MlflowServer(tmp_path_factory.mktemp("pod-mlflow"), host=HOST) as server:
        yield server


@pytest.fixture
def world(cluster: Cluster, pod_mlflow: MlflowServer, tmp_path: Path) -> Iterator[PodWorld]:
    """An experiment, a model and a Dag of the test's own, with work in pods."""
    with opened_world(cluster, pod_mlflow.url, tmp_path) as world:
        yield world


@pytest.fixture
def lonely_world(pod_mlflow: MlflowServer, tmp_path: Path) -> Iterator[PodWorld]:
    """A world in a namespace of its own, for tests of what looks at every pod of a namespace."""
    from tests.kubernetes.cluster import Cluster

    with Cluster() as cluster, opened_world(cluster, pod_mlflow.url, tmp_path) as world:
        yield world


@contextmanager
def opened_world(cluster: Cluster, url: str, folder: Path) -> Iterator[PodWorld]:
    """Make the world of one test and clear its pods away afterwards."""
    from tests.kubernetes.cluster import PodWorld

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": url}))
        world = PodWorld(cluster, url, folder)
        yield world
        world.hook.close()
        for pod in cluster.pods(world.dag_id):
            cluster.delete(pod.metadata.name)
