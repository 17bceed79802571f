"""The services of the demo: MLflow, Airflow and a model server in one folder, started and stopped together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.mlflow_client.transport import SyncDriver
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import ADMIN, AirflowStack
from tests.support.services import LOOPBACK, MlflowServer, Service, free_port

MODEL = "breast_cancer"
REPOSITORY = Path(__file__).resolve().parent.parent
_LOCAL_SETTINGS = """\
def is_played(file_path, zip_file=None):
    return file_path.endswith({files!r})
"""
"""Airflow's components import this before they look for Dags; what is played needs no others."""


class Stage:
    """A real MLflow server, a real Airflow with the Dags of this repository, and a model server, all on loopback.

    :param folder: everything is written below it.
    :param dags: the Dags that Airflow reads; empty reads all of this repository, which takes half a minute of CPU.
    """

    def __init__(self, folder: Path, dags: Sequence[str] = ()) -> None:
        self.folder, self._dags = folder.resolve(), tuple(dags)
        self.data, self.reports = self.folder / "data", self.folder / "reports"
        self.audit_log = self.folder / "audit.db"
        self.serving_port = free_port()
        self._notes = self.folder / "stage.json"
        self.mlflow = MlflowServer(self.folder / "mlflow", self._free_port_of_last_time())
        self.airflow = AirflowStack(
            self.folder / "airflow",
            REPOSITORY / "dags",
            env={
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
                "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow.url}),
                "AIRFLOW_CONN_AUDIT_LOG_DEFAULT": json.dumps(
                    {"conn_type": "audit_log", "extra": {"sqlite_path": str(self.audit_log)}}
                ),
                "AIRFLOW_CONN_MODEL_SERVER_DEFAULT": json.dumps(
                    {"conn_type": "model_server", "host": LOOPBACK, "port": self.serving_port}
                ),
                "AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID": "audit_log_default",
                "AIRFLOW_VAR_BREAST_CANCER_DATA": str(self.data),
                "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # nights pass when the demo says so
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # nobody edits the Dags meanwhile
                **({"AIRFLOW__CORE__MIGHT_CONTAIN_DAG_CALLABLE": "airflow_local_settings.is_played"} if dags else {}),
            },
        )
        self.serving = _model_server(self.folder, self.serving_port, self.mlflow.url)
        self.registry = SyncDriver(MlflowSettings("demo", self.mlflow.url, self.mlflow.url))
        self.api: AirflowClient

    @property
    def has_run(self) -> bool:
        """Whether the folder has the data of an earlier start."""
        return self._notes.exists()

    @property
    def login(self) -> str:
        """User and password of Airflow's web UI."""
        return f"{ADMIN} / {self.airflow.password}"

    @property
    def serving_url(self) -> str:
        """Address of the model server."""
        return f"http://{LOOPBACK}:{self.serving_port}"

    def audit(self, *arguments: str) -> str:
        """Run ``airflow-mcp audit`` on the audit log, and return what it prints.

        :raises RuntimeError: when it ends with an error; has what it printed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "airflow_mcp.cli", "audit", *arguments],
            env={**os.environ, "AIRFLOW_MCP_AUDIT_LOG": f"sqlite:///{self.audit_log}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"airflow-mcp audit {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        self.reports.mkdir(parents=True, exist_ok=True)
        settings = self.airflow.home / "config" / "airflow_local_settings.py"
        self.airflow.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.parent.mkdir(mode=0o700, exist_ok=True)
        settings.write_text(_LOCAL_SETTINGS.format(files=tuple(f"/{name}.py" for name in self._dags)))
        starts: list[Callable[[], Any]] = [self.airflow.start, self._start_mlflow_and_serving]
        if not self.has_run:
            starts.append(lambda: self.audit("init"))
        try:
            with ThreadPoolExecutor(len(starts)) as pool:
                for started in [pool.submit(start) for start in starts]:
                    started.result()
            self._notes.write_text(json.dumps({"mlflow_port": self.mlflow.port}))
            self.api = self.airflow.api()
        except BaseException:
            self.stop()
            raise
        return self

    def _start_mlflow_and_serving(self) -> None:
        self.mlflow.start()
        self.serving.start()

    def stop(self) -> None:
        """Stop all services, whatever their state."""
        self.registry.close()
        with ThreadPoolExecutor(3) as pool:
            stopped = [pool.submit(service.stop) for service in (self.serving, self.airflow, self.mlflow)]
        for service in stopped:
            service.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.api.close()
        self.stop()

    def _free_port_of_last_time(self) -> int | None:
        """Reuse the MLflow port, so that links of earlier runs keep working."""
        if not self._notes.exists():
            return None
        port = int(json.loads(self._notes.read_text())["mlflow_port"])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return None
        return port


def _model_server(folder: Path, port: int, mlflow: str) -> Service:
    """Return the model server that follows the champion, as a user would start it."""
    return Service(
        "model-server",
        [
            *(sys.executable, "-m", "airflow_mcp.cli", "serve", f"models:/{MODEL}", "--tracking-uri", mlflow),
            *("--host", LOOPBACK, "--port", str(port)),
        ],
        folder=folder,
        env={
            "AIRFLOW_MCP_SERVING_POLL_SECONDS": "1",
            "AIRFLOW_MCP_SERVING_ACCESS_LOG": "false",
            "AIRFLOW_MCP_SERVING_DRAIN_SECONDS": "0",  # its only client has gone by then
            "AIRFLOW_MCP_SERVING_CACHE_FOLDER": str(folder / "serving-cache"),
        },
        health_url=f"http://{LOOPBACK}:{port}/healthz",
    )
