"""Servers that a whole test run shares: the first test that asks for one starts it, in the process that stays longest.

That is pytest's own process, or with pytest-xdist the controller. Its workers ask it over a socket, so three of them
wait for one MLflow server instead of starting three.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from tests.support.object_store import S3Server
from tests.support.old_mlflow import on_oldest
from tests.support.paths import ROOT
from tests.support.postgresql import PostgresServer, programs
from tests.support.services import MlflowServer
from tests.support.warm import WarmServer

ENV_BROKER = "AIRFLOW_MCP_TEST_BROKER"
"""Variable with the path of the socket."""
_KEY = b"tests"
Answer = Mapping[str, Any]


class SharedServers:
    """Starts each server once, when it is asked for, and stops all of them at the end."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="airflow-mcp-servers-"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self._home, ignore_errors=True)
        self._answers: dict[str, Answer] = {}
        self._locks = {name: threading.Lock() for name in _STARTERS}
        self._listener = Listener(str(self._home / "broker"), "AF_UNIX", authkey=_KEY)
        os.environ[ENV_BROKER] = str(self._home / "broker")
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Stop everything that was started."""
        os.environ.pop(ENV_BROKER, None)
        with contextlib.suppress(OSError):
            self._listener.close()
        self._stack.close()

    def _accept(self) -> None:
        while True:
            try:
                caller = self._listener.accept()
            except OSError:  # closed: the run is over
                return
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: Connection[Any, Any]) -> None:
        with caller, contextlib.suppress(EOFError, OSError):
            name = caller.recv()
            try:
                caller.send(self._answer(name))
            except RuntimeError as error:
                caller.send({"error": str(error)})

    def _answer(self, name: str) -> Answer:
        with self._locks[name]:
            if name not in self._answers:
                folder = self._home / name
                folder.mkdir()
                self._answers[name] = _STARTERS[name](self._stack, folder)
            return self._answers[name]


def shared(name: str) -> Answer:
    """Return how to reach a shared server, which is started when it is the first time.

    :param name: a key of ``_STARTERS``, for example ``mlflow`` or ``warm``.
    :raises RuntimeError: when it does not start; the message has the end of its log.
    """
    with Client(os.environ[ENV_BROKER], "AF_UNIX", authkey=_KEY) as broker:
        broker.send(name)
        answer: Answer = broker.recv()
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


def shared_mlflow(name: str) -> MlflowServer:
    """Return a shared MLflow server: its handle in this process, which neither starts nor stops it."""
    return MlflowServer(**shared(name))


def _start_mlflow(stack: contextlib.ExitStack, folder: Path) -> Answer:
    server = stack.enter_context(MlflowServer(folder, http="gunicorn"))
    return {"folder": folder, "port": server.port}


def _start_mlflow_on_postgresql(stack: contextlib.ExitStack, folder: Path) -> Answer:
    where = programs()
    assert where is not None, "the fixture skips where PostgreSQL is not installed"
    postgresql = stack.enter_context(PostgresServer(folder, where))
    server = stack.enter_context(MlflowServer(folder, database=postgresql.uri, http="gunicorn"))
    return {"folder": folder, "port": server.port, "database": postgresql.uri}


def _start_postgresql(stack: contextlib.ExitStack, folder: Path) -> Answer:
    where = programs()
    assert where is not None, "the fixture skips where PostgreSQL is not installed"
    return {"uri": stack.enter_context(PostgresServer(folder, where)).uri}


def _start_mlflow_on_s3(stack: contextlib.ExitStack, folder: Path) -> Answer:
    store = stack.enter_context(S3Server(folder))
    options = {"options": ("--artifacts-destination", store.bucket("mlflow")), "env": store.client_env}
    server = stack.enter_context(MlflowServer(folder, **options))  # type: ignore[arg-type]
    return {"folder": folder, "port": server.port, **options}


def _start_oldest_mlflow(stack: contextlib.ExitStack, folder: Path) -> Answer:
    server = stack.enter_context(MlflowServer(folder, **on_oldest()))
    return {"folder": folder, "port": server.port, **on_oldest()}


def _start_warm_airflow(stack: contextlib.ExitStack, folder: Path) -> Answer:
    from tests.support.airflow_stack import AirflowStack  # which asks for this server

    template = AirflowStack(folder, folder / "dags")
    program = ("-m", "tests.support.warm_airflow")
    template.prepare()
    env = {"AIRFLOW_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    template.address = stack.enter_context(WarmServer(folder, program, env)).address
    template.migrate()
    return {"address": template.address, "database": folder / "airflow.db"}


def _start_warm(stack: contextlib.ExitStack, folder: Path) -> Answer:
    return {"address": stack.enter_context(WarmServer(folder)).address}


_STARTERS: Mapping[str, Callable[[contextlib.ExitStack, Path], Answer]] = {
    "mlflow": _start_mlflow,
    "second-mlflow": _start_mlflow,
    "mlflow-on-postgresql": _start_mlflow_on_postgresql,
    "mlflow-on-s3": _start_mlflow_on_s3,
    "postgresql": _start_postgresql,
    "oldest-mlflow": _start_oldest_mlflow,
    "warm": _start_warm,
    "warm-airflow": _start_warm_airflow,
}
