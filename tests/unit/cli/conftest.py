"""What the commands ask in these tests: a Kubernetes API and an MLflow of our own, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakes.faulty_server import FaultyServer
from tests.support.fakes.kube_api import KubeApi


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    """A cluster; the kubeconfig of the process leads to it."""
    with KubeApi() as kube:
        monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig(tmp_path)))
        yield kube


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """An MLflow server that knows nothing until a test tells it what to answer; the process is led to it."""
    with FaultyServer() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server
