"""Environment of the test suite: an Airflow home of its own, set before Airflow is imported anywhere."""

from __future__ import annotations

import os
import shutil
import tempfile
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

from tests.support import branch_coverage  # noqa: E402, I001  (the environment above comes first, then this)
from tests.support import old_mlflow  # noqa: E402
from tests.support.postgresql import programs  # noqa: E402
from tests.support.services import MlflowServer  # noqa: E402
from tests.support.shared import SharedServers, shared, shared_mlflow  # noqa: E402

pytest_plugins = ("tests.support.longest_first", "tests.support.collection")
_servers = pytest.StashKey[SharedServers]()


def pytest_configure(config: pytest.Config) -> None:
    """Hold the servers of the run here, unless this is a worker of pytest-xdist: it asks its controller for them."""
    if not hasattr(config, "workerinput"):
        config.stash[_servers] = SharedServers()
    branch_coverage.judge(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, and remove what Airflow wrote."""
    if _servers in config.stash:
        config.stash[_servers].stop()
    shutil.rmtree(_home, ignore_errors=True)


@pytest.fixture(scope="session")
def mlflow_server() -> MlflowServer:
    """A real MLflow server (SQLite, proxied artifacts) shared by the whole run."""
    return shared_mlflow("mlflow")


@pytest.fixture(scope="session")
def second_mlflow_server() -> MlflowServer:
    """Another real MLflow server, as of another environment."""
    return shared_mlflow("second-mlflow")


@pytest.fixture(scope="session")
def mlflow_on_postgresql() -> MlflowServer:
    """A real MLflow server with a real PostgreSQL of its own, shared by the whole run."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    return shared_mlflow("mlflow-on-postgresql")


@pytest.fixture(scope="session")
def postgresql() -> str:
    """The URI of a real PostgreSQL server, shared by the whole run: its user is a superuser without a password."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    return str(shared("postgresql")["uri"])


@pytest.fixture(scope="session")
def mlflow_on_s3() -> MlflowServer:
    """A real MLflow server that keeps its artifacts in S3 (moto), shared by the whole run."""
    return shared_mlflow("mlflow-on-s3")


@pytest.fixture(scope="session")
def oldest_mlflow_server() -> MlflowServer:
    """A real server of the oldest MLflow that is supported, shared by the whole run."""
    if not old_mlflow.FOLDER.is_dir():
        pytest.skip(f"MLflow {old_mlflow.VERSION} is not installed in {old_mlflow.FOLDER}: run make")
    return shared_mlflow("oldest-mlflow")


@pytest.fixture(scope="session")
def warm_server() -> str:
    """The server that forks processes of Python with MLflow, scikit-learn and pandas already imported."""
    return str(shared("warm")["address"])
