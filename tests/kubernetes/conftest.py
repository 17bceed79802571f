"""Fixtures of the tests that need a real Kubernetes cluster and the workload image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.services import MlflowServer
from tests.kubernetes.lanes import Lanes

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
def world(cluster: Cluster, pod_mlflow: MlflowServer, tmp_path: Path) -> Iterator[PodWorld]:
    """An experiment, a model and a Dag of the test's own, with work in pods."""
    with opened_world(cluster, pod_mlflow.url, tmp_path) as world:
        yield world


@pytest.fixture
def lonely_world(pod_mlflow: MlflowServer, tmp_path: Path) -> Iterator[PodWorld]:
    """A world in a namespace of its own, for tests of what looks at every pod of a namespace."""
    from tests.kubernetes.cluster import Cluster

    cluster = Cluster()
    cluster.open()
    with opened_world(cluster, pod_mlflow.url, tmp_path) as world:
        yield world
    cluster.close()


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


# --- tests side by side -------------------------------------------------------------------------------------------

LANES = pytest.StashKey[Lanes]()


def mostly_waits(item: pytest.Item) -> bool:
    """Whether a test needs a world and nothing else: then it may run beside others, in another process."""
    if not isinstance(item, pytest.Function) or item.get_closest_marker("kubernetes") is None:
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return set(item._fixtureinfo.argnames) - set(parameters) == {"world"}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Take the result of a test from the lanes; the first that is asked for starts them."""
    waiting = [item for item in pyfuncitem.session.items if mostly_waits(item)]
    if pyfuncitem not in waiting or len(waiting) < 2 or pyfuncitem.config.getoption("usepdb"):
        return None
    session = pyfuncitem.session
    if LANES not in session.stash:
        session.stash[LANES] = start_lanes(waiting, pyfuncitem.funcargs["world"])
    session.stash[LANES].require(pyfuncitem)
    return True


def start_lanes(items: list[pytest.Function], world: PodWorld) -> Lanes:
    """Import what every process needs before there are several, and start them."""
    from airflow_mcp.triggers import replicas  # noqa: F401
    from airflow_mcp.workloads import kubernetes_replicas  # noqa: F401

    def perform(item: pytest.Function) -> None:
        folder = world.folder / item.name.replace("/", "-")
        folder.mkdir()
        world.cluster.connect()
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        with opened_world(world.cluster, world.url, folder) as own:
            item.obj(world=own, **parameters)

    return Lanes(items, perform, world.folder)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what is still under way when the tests are stopped."""
    if LANES in session.stash:
        session.stash[LANES].close()


@pytest.fixture
def apiserver_pid() -> int:
    """Process of the cluster's API server, for tests that stop it for a while."""
    text = os.environ.get("AIRFLOW_MCP_TEST_APISERVER_PID", "")
    if not text:
        pytest.skip("AIRFLOW_MCP_TEST_APISERVER_PID is not set: it names the process of kube-apiserver on this machine")
    return int(text)
