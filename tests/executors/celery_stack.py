"""A real Airflow on CeleryExecutor: Redis, PostgreSQL, two of everything, and workers with folders of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support.airflow_stack import AirflowService, AirflowStack
from tests.support.object_store import S3Server, xcom_settings
from tests.support.postgresql import PostgresServer, programs
from tests.support.services import LOOPBACK, MlflowServer, Service, free_port

WORKERS = ("worker-1", "worker-2")
LOGS_BUCKET, XCOM_BUCKET = "airflow-logs", "airflow-xcoms"
_START_SECONDS = 300
_ServiceT = TypeVar("_ServiceT", bound=Service)


def missing() -> str:
    """Return what these tests lack; empty when they can run."""
    needed = ("airflow.providers.celery", "airflow.providers.amazon", "redis", "s3fs")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    absent += [] if _redis() else ["the program redis-server"]
    absent += [] if programs() else ["PostgreSQL"]
    return f"not installed: {', '.join(absent)}; `make test-executors` installs the Python packages" if absent else ""


def _redis() -> str | None:
    return os.environ.get("AIRFLOW_MCP_TEST_REDIS") or shutil.which("redis-server")


class RedisServer(Service):
    """Redis on loopback, without persistence."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        options = ["--port", str(self.port), "--bind", LOOPBACK, "--save", "", "--dir", str(folder)]
        super().__init__("redis", [_redis() or "redis-server", *options], folder=folder, health_check=self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


class CeleryStack:
    """Redis, PostgreSQL, S3, MLflow, and Airflow with two schedulers, two triggerers and two Celery workers.

    Each worker has a home and a copy of the Dags of its own: it reaches the others by the network alone. The logs
    of tasks are in S3, from where the API server reads them, and so is every XCom.

    :param folder: everything is written below it.
    :param dags: folder of the Dags.
    :param env: further variables of every component.
    """

    def __init__(self, folder: Path, dags: Path, env: Mapping[str, str]) -> None:
        self.folder, self.dags = folder, dags
        self._env = dict(env)
        self._started: list[Service] = []
        self._airflow: AirflowStack | None = None
        self.further: dict[str, AirflowService] = {}

    def __enter__(self) -> Self:
        found = programs()
        assert found is not None
        (self.folder / "redis").mkdir()
        try:
            # One after the other: a port is only taken once its server has started.
            self.redis = self._start(RedisServer(self.folder / "redis"))
            self.s3 = self._start(S3Server(self.folder / "s3"))
            self.database = self._start(PostgresServer(self.folder / "postgresql", found))
            self.mlflow = self._start(MlflowServer(self.folder / "mlflow"))
            self.s3.bucket(LOGS_BUCKET)
            self.s3.bucket(XCOM_BUCKET)
            self._start_airflow()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self, service: _ServiceT) -> _ServiceT:
        service.start()
        self._started.append(service)
        return service

    def _start_airflow(self) -> None:
        self._airflow = AirflowStack(
            *(self.folder / "airflow", self.dags),
            env={**self._settings(), **self._env},
            database=self.database.uri,
            start_timeout=_START_SECONDS,
        )
        self._airflow.start()
        for name, command in (
            ("scheduler-2", ["scheduler", "--skip-serve-logs"]),
            ("triggerer-2", ["triggerer", "--skip-serve-logs"]),
            *((name, ["celery", "worker", "--skip-serve-logs", "--concurrency", "2"]) for name in WORKERS),
        ):
            self.further[name] = self._component(name, command).start()
        self._wait_for_workers()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def airflow(self) -> AirflowStack:
        """Airflow with everything but the second ones and the workers."""
        assert self._airflow is not None
        return self._airflow

    def _stop(self) -> None:
        for service in self.further.values():
            service.stop()
        if self._airflow is not None:
            self._airflow.stop()
        for server in reversed(self._started):
            server.stop()

    def _settings(self) -> dict[str, str]:
        endpoint = {"endpoint_url": self.s3.url}
        store = {"conn_type": "aws", "login": "tests", "password": "tests", "extra": endpoint}
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # only the runs that the test triggers
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",  # a killed worker is noticed after this time
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",  # and a killed scheduler's tasks are taken over
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{LOOPBACK}:{self.redis.port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.database.uri}",
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{LOGS_BUCKET}/logs",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "store",
            "AIRFLOW_CONN_STORE": json.dumps(store),
            **xcom_settings(f"s3://store@{XCOM_BUCKET}/xcom"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow.url}),
        }

    def _component(self, name: str, command: list[str]) -> AirflowService:
        """Return a component; a worker has a home, logs and Dags of its own."""
        env = self.airflow.environment()
        if name in WORKERS:
            home, dags = self.folder / name, self.folder / name / "dags"
            shutil.copytree(self.dags, dags)
            shutil.copy(self.airflow.home / "airflow.cfg", home / "airflow.cfg")
            (home / "tmp").mkdir()
            env |= {
                "AIRFLOW_HOME": str(home),
                "TMPDIR": str(home / "tmp"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "bundles"),
            }
            command = [*command, "--celery-hostname", f"{name}@%h"]
        python = self.airflow._python
        return AirflowService(name, [python, "-m", "airflow", *command], folder=self.airflow.home / "logs", env=env)

    def _wait_for_workers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        waiting = set(WORKERS)
        while waiting:
            for service in self.further.values():
                service.check()
            for name in list(waiting):
                if "ready." in self.further[name].log_path.read_text(errors="replace"):
                    waiting.discard(name)
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready in {_START_SECONDS} s: {', '.join(sorted(waiting))}")
            time.sleep(0.5)
