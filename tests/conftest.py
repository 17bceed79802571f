"""Environment of the test suite: an Airflow home of its own, set before Airflow is imported anywhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_home = Path(tempfile.mkdtemp(prefix="airflow-mcp-tests-"))
(_home / "dags").mkdir()
for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "MLFLOW"))]:
    if not _name.startswith("AIRFLOW_MCP_TEST_"):
        del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": str(_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(_home / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
)

from tests.support.postgresql import PostgresServer, programs  # noqa: E402
from tests.support.services import MlflowServer  # noqa: E402  (the environment above comes first)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server (SQLite, proxied artifacts) shared by the whole session."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def second_mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Another real MLflow server, as of another environment."""
    with MlflowServer(tmp_path_factory.mktemp("second-mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server with a real PostgreSQL of its own, shared by the whole session."""
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("mlflow-on-postgresql")
    with PostgresServer(folder, where) as postgresql, MlflowServer(folder, database=postgresql.uri) as server:
        yield server
