"""Local services on loopback: a real MLflow server in its own process group, stopped when the caller ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

LOOPBACK = "127.0.0.1"
_HTTP_OPTIONS = {
    # A tenth of the server's time goes into a line per request that nobody reads.
    "uvicorn": "--no-access-log",
    # Requests that wait for a lock of SQLite, and connections that stay open, hold up nobody else.
    "gunicorn": "--worker-class gthread --threads 16 --keep-alive 30",
}


def free_port() -> int:
    """Return a TCP port that nothing on the loopback interface listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """A server process that is ready when its health URL answers 200.

    :param name: name for messages and for the log file.
    :param command: command line.
    :param folder: folder for its log, ``<name>.log``.
    :param env: variables added to this process's environment.
    :param health_url: URL to ask; None means that nothing is waited for.
    :param start_timeout: seconds to wait for it.
    :param health_check: what to ask instead of a URL.
    :param user: user to run it as; None is this process's own.
    :param is_tied: whether its standard input stays open exactly as long as this process lives.
    :param popen: what starts the process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        health_url: str | None = None,
        start_timeout: float = 120,
        health_check: Callable[[], bool] | None = None,
        user: str | None = None,
        is_tied: bool = False,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self._popen = popen
        self.name, self.command, self.health_url = name, list(command), health_url
        self.start_timeout = start_timeout
        self.log_path = folder / f"{name}.log"
        self._env = {**os.environ, **(env or {})}
        self._user = user
        self._stdin = subprocess.PIPE if is_tied else None
        self._is_healthy = health_check or (None if health_url is None else lambda: _answers(health_url))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process and wait until it is healthy.

        :raises RuntimeError: when it ends or stays silent; the message has the end of its log.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = self._popen(
                self.command,
                stdin=self._stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
                user=self._user,
                cwd="/" if self._user else None,
            )
        try:
            self._wait_until_healthy(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the whole process group: politely, then for good."""
        if self._process is None:
            return
        for number, grace in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(grace)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def processes(self) -> list[int]:
        """Return the ids of its living processes: its own, and those of the session that it has begun."""
        if self._process is None:
            return []
        found = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [pid for pid in found if _session_of(pid) == self._process.pid]

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def _wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        if self._is_healthy is None:
            return
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with code {process.returncode}:\n{self._log_tail()}")
            if self._is_healthy():
                return
            time.sleep(0.2)
        raise RuntimeError(
            f"{self.name} did not answer at {self.health_url} in {self.start_timeout:.0f} s:\n{self._log_tail()}"
        )

    def _log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class MlflowServer(Service):
    """A real MLflow server: artifacts proxied by the server, one worker, loopback only.

    :param folder: folder for database, artifacts and log.
    :param port: TCP port; None takes a free one.
    :param host: address to listen on.
    :param database: URI of its database; None takes an SQLite file in the folder.
    :param options: further options of ``mlflow server``.
    :param env: further variables.
    :param http: the web server below it. ``uvicorn`` is MLflow's default; ``gunicorn`` serves the same REST API with
        half the CPU per request, and neither spans of OpenTelemetry nor the AI gateway.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        host: str = LOOPBACK,
        database: str | None = None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        http: Literal["uvicorn", "gunicorn"] = "uvicorn",
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{host}:{self.port}"
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'mlflow.db'}"
        super().__init__(
            "mlflow",
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(self.port)),
                *("--backend-store-uri", self.database, "--serve-artifacts"),
                *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
                *(f"--{http}-opts", _HTTP_OPTIONS[http], *options),
            ],
            folder=folder,
            env={
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
                "COVERAGE_PROCESS_CONFIG": "",  # the server is not what is measured
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nobody asks for anything
                **(env or {}),
            },
            health_url=f"{self.url}/health",
        )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
