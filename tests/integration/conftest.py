"""Fixtures of the integration tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.workloads import process
from tests.support.audit_log import Logs, postgresql_logs, sqlite_logs
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.warm import ENV_ADDRESS, SUBPROCESS


@pytest.fixture(autouse=True)
def warm_starts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork local workloads from the warm server; those of tests marked ``cold`` start an interpreter of their own."""
    if not request.node.get_closest_marker("cold"):
        monkeypatch.setenv(ENV_ADDRESS, request.getfixturevalue("warm_server"))
        monkeypatch.setattr(process, "subprocess", SUBPROCESS)


@pytest.fixture(params=["postgresql", "sqlite"])
def audit_logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logs]:
    """A new audit log, once in PostgreSQL and once in a file."""
    if request.param == "sqlite":
        yield sqlite_logs(tmp_path)
        return
    with postgresql_logs(request.getfixturevalue("postgresql")) as found:
        yield found


@pytest.fixture
def registry_server(mlflow_server: MlflowServer) -> MlflowServer:
    """The MLflow server that a test's world is on; a module may put another one here."""
    return mlflow_server


@pytest.fixture
def world(registry_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The session's MLflow server with an experiment, a model and a Dag of the test's own."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": registry_server.url}))
    world = World(registry_server.url, tmp_path)
    yield world
    world.hook.close()


@pytest.fixture
def second_world(
    second_mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """The session's second MLflow server, as of another environment, with names of the test's own."""
    connection = {"conn_type": "mlflow", "host": second_mlflow_server.url}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_SECOND", json.dumps(connection))
    world = World(second_mlflow_server.url, tmp_path, conn_id="mlflow_second")
    yield world
    world.hook.close()
