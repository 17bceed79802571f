"""A real local Airflow in one folder, for the demo and for integration tests."""

from __future__ import annotations

import base64
import configparser
import functools
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from tests.support.airflow_api import AirflowClient
from tests.support.services import LOOPBACK, Service, free_port
from tests.support.shared import ENV_BROKER, shared
from tests.support.warm import WarmPopen

ADMIN = "admin"
READER = "reader"
"""Role of FAB that may read what the connection ``airflow_api`` is for, and nothing else; docs/approvals.md has it."""
FAB_ROLES = {
    READER: [["can_read", resource] for resource in ("DAGs", "DAG Runs", "Task Instances", "HITL Detail", "Audit Logs")]
}
_AUTH_MANAGERS = {
    "simple": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "fab": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
}
_PRELOADED = """
import sys

if {"scheduler", "dag-processor"} & set(sys.argv):
    import airflow_mcp.audit.postgresql
    import airflow_mcp.dag_rendering.render
"""
"""For the end of ``airflow_local_settings.py``: tasks and readers of Dag files are forks of these two components, and
each of them would spend 1.3 s of CPU on the imports."""
_COMPONENTS = ("scheduler", "dag_processor", "triggerer")
_DROPPED_PREFIXES = ("AIRFLOW", "_AIRFLOW")
_POLL_SECONDS = 0.25
_PREPARE_TIMEOUT_SECONDS = 600


class AirflowService(Service):
    """A component of Airflow in a session of its own, with exactly the environment it is given."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        super().__init__(name, command, folder=folder, popen=popen)
        self._env = dict(env)
        self._session: int | None = None

    def start(self) -> Self:
        """Start the process; :class:`AirflowStack` waits for all of them together."""
        super().start()
        self._session = None if self._process is None else self._process.pid
        return self

    def stop(self) -> None:
        """Stop the process and everything in its session, also what has a process group of its own."""
        super().stop()
        self.kill()

    def kill(self) -> None:
        """Kill the process and everything in its session; nothing of it can clean up."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        if self._process is not None:
            self._process.wait(10)

    def processes(self) -> list[int]:
        """Return the ids of the living processes of this service's session."""
        if self._session is None:
            return []
        return [pid for pid in _living_processes() if _session_of(pid) == self._session]

    def check(self) -> None:
        """Raise when the process has ended, with the end of its log.

        :raises RuntimeError: when it has ended.
        """
        if not self.is_running:
            raise RuntimeError(f"Airflow's {self.name} ended:\n{self._log_tail()}")


class AirflowStack:
    """Scheduler, Dag processor, triggerer and API server; everything they write is below ``home``.

    The same ``home`` can be started again: database, password and keys stay, the port may change.

    :param home: Airflow's home folder; made when it is missing.
    :param dags_folder: folder of the Dags.
    :param env: variables added to the environment of every component; ``AIRFLOW__SECTION__KEY`` overrides a setting.
    :param accounts: account to role, ``viewer``, ``user``, ``op`` or ``admin``, besides the administrator; with FAB
        also :data:`READER`.
    :param auth_manager: who keeps the accounts: Airflow's simple auth manager or FAB.
    :param database: URI of the metadata database; empty is a file of SQLite.
    :param has_triggerer: whether there is a triggerer; Dags that defer nothing need none.
    :param python: interpreter that has Airflow installed.
    :param start_timeout: seconds to wait for all components.
    :param host: address that the API server listens on.
    :param is_cold: whether every process starts an interpreter of its own; the others of a test run are forked by
        :mod:`tests.support.warm_airflow`.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        accounts: Mapping[str, str] | None = None,
        auth_manager: Literal["simple", "fab"] = "simple",
        database: str = "",
        has_triggerer: bool = True,
        python: str = sys.executable,
        start_timeout: float = 300,
        host: str = LOOPBACK,
        is_cold: bool = False,
    ) -> None:
        self.home, self.dags_folder = home.resolve(), dags_folder.resolve()
        self.start_timeout = start_timeout
        self.host, self.port = host, free_port()
        self.url = f"http://{host}:{self.port}"
        self.accounts = {ADMIN: "admin", **(accounts or {})}
        self.passwords: dict[str, str] = {}
        self.auth_manager, self.database, self.has_triggerer = auth_manager, database, has_triggerer
        self.env, self._python = dict(env or {}), python
        self._services: tuple[AirflowService, ...] = ()
        self.is_cold = is_cold or ENV_BROKER not in os.environ or python != sys.executable
        self.address = ""

    def start(self) -> Self:
        """Prepare the home, migrate the database, start everything and wait until it is healthy.

        :raises RuntimeError: when the migration fails, or a component ends or does not become healthy in time.
        """
        if not self.is_cold:
            self.address = str(shared("warm-airflow")["address"])
        if not self._copy_database():
            self.migrate()
        self.prepare()
        env = self.environment()
        if self.auth_manager == "fab":
            self._make_fab_accounts(env)
        names = [name for name in _commands(self.host, self.port) if self.has_triggerer or name != "triggerer"]
        self._services = tuple(self._service(name, env) for name in names)
        started_at = time.time()
        try:
            for service in self._services:
                service.start()
            self._wait_until_healthy(started_at)
            # The first request of the tasks' own API builds its routes, for longer than a task waits when it is busy.
            httpx.get(f"{self.url}/execution/health", timeout=self.start_timeout, trust_env=False).raise_for_status()
        except BaseException:
            self.stop()
            raise
        return self

    def migrate(self) -> None:
        """Prepare the home and bring the database to Airflow's schema.

        :raises RuntimeError: when the migration fails.
        """
        self.prepare()
        self._run("db-migrate", ["-m", "airflow", "db", "migrate"], self.environment())

    def stop(self) -> None:
        """Stop every component; returns when none of their processes is left."""
        if self._services:
            with ThreadPoolExecutor(len(self._services)) as pool:
                list(pool.map(AirflowService.stop, self._services))

    def processes(self) -> list[int]:
        """Return the ids of all living processes of the components, their children included."""
        return [pid for service in self._services for pid in service.processes()]

    def component(self, name: str) -> AirflowService:
        """Return a component by its name, for example ``triggerer``."""
        return next(service for service in self._services if service.name == name)

    @property
    def password(self) -> str:
        """Password of the administrator."""
        return self.passwords[ADMIN]

    def api(self, account: str = ADMIN) -> AirflowClient:
        """Return a client that is logged in; the caller closes it.

        :param account: whose name.
        """
        return AirflowClient(self.url, account, self.passwords[account])

    def _copy_database(self) -> bool:
        """Copy the database that this test run has migrated once; returns whether it could.

        A migration takes 6 s of CPU. FAB adds tables of its own, PostgreSQL and a home that has a database migrate.
        """
        target = self.home / "airflow.db"
        if ENV_BROKER not in os.environ or self.database or self.auth_manager != "simple" or target.exists():
            return False
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(shared("warm-airflow")["database"], target)
        return True

    def prepare(self) -> None:
        """Make the home with its configuration and its passwords."""
        for folder in (self.home, self.home / "logs", self.home / "tmp"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._preload()
        path = self.home / "simple_auth_manager_passwords.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        self.passwords = {**{name: secrets.token_urlsafe(18) for name in self.accounts}, **known}
        _write_private(path, json.dumps(self.passwords))
        config_path = self.home / "airflow.cfg"
        before = configparser.ConfigParser(interpolation=None)
        before.read(config_path, encoding="utf-8")
        config = configparser.ConfigParser(interpolation=None)
        config.read_dict(self._settings(before))
        text = io.StringIO()
        config.write(text)
        _write_private(config_path, text.getvalue())

    def _preload(self) -> None:
        """Add :data:`_PRELOADED` to the local settings, once."""
        path = self.home / "config" / "airflow_local_settings.py"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        given = path.read_text() if path.exists() else ""
        if not given.endswith(_PRELOADED):
            path.write_text(given + _PRELOADED)

    def _settings(self, before: configparser.ConfigParser) -> dict[str, dict[str, str]]:
        """Return airflow.cfg; keys are taken from the file of the last start, if there was one."""
        home, logs = _escaped(self.home), _escaped(self.home / "logs")
        return {
            "core": {
                "executor": "LocalExecutor",
                "parallelism": "4",
                "load_examples": "False",
                "dags_folder": _escaped(self.dags_folder),
                "dags_are_paused_at_creation": "False",
                "auth_manager": _AUTH_MANAGERS[self.auth_manager],
                "simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in self.accounts.items()),
                "simple_auth_manager_passwords_file": f"{home}/simple_auth_manager_passwords.json",
                "execution_api_server_url": f"{self.url}/execution/",
                "fernet_key": before.get("core", "fernet_key", fallback=_new_fernet_key()),
            },
            "database": {"sql_alchemy_conn": self.database or f"sqlite:///{home}/airflow.db"},
            "logging": {
                "base_log_folder": logs,
                "dag_processor_child_process_log_directory": f"{logs}/dag_processor",
            },
            "api": {
                "host": self.host,
                "port": str(self.port),
                "base_url": self.url,
                "secret_key": before.get("api", "secret_key", fallback=secrets.token_urlsafe(32)),
            },
            "api_auth": {"jwt_secret": before.get("api_auth", "jwt_secret", fallback=secrets.token_urlsafe(64))},
            "scheduler": {"enable_health_check": "False", "scheduler_idle_sleep_time": "0.5"},
            "dag_processor": {
                "dag_bundle_storage_path": f"{home}/bundles",
                "refresh_interval": "5",
                # A file that has changed is read at once; reading all of dags/ again takes 16 s of CPU.
                "min_file_process_interval": "60",
            },
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of every component, for a command of Airflow's beside them."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED_PREFIXES)}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "DO_NOT_TRACK": "true",
            **self.env,
        }

    def _make_fab_accounts(self, env: Mapping[str, str]) -> None:
        accounts = [
            {"name": name, "role": role if role in FAB_ROLES else role.title(), "password": self.passwords[name]}
            for name, role in self.accounts.items()
        ]
        program = Path(__file__).with_name("fab_accounts.py")
        # -P: the program's folder has modules of names that others use too.
        self._run("fab-accounts", ["-P", str(program)], env, json.dumps({"roles": FAB_ROLES, "accounts": accounts}))

    def _run(self, name: str, arguments: Sequence[str], env: Mapping[str, str], given: str = "") -> None:
        """Run a program to its end, with its output in a log of its own.

        :raises RuntimeError: when it fails; has the end of its log.
        """
        log_path = self.home / "logs" / f"{name}.log"
        with log_path.open("wb") as log:
            process = self._popen()(
                [self._python, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.home,
            )
        try:
            process.communicate(given.encode(), timeout=_PREPARE_TIMEOUT_SECONDS)
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{log_path.read_text(errors='replace')[-3000:]}")

    def _service(self, name: str, env: Mapping[str, str]) -> AirflowService:
        command = [self._python, "-m", "airflow", *_commands(self.host, self.port)[name]]
        return AirflowService(name, command, folder=self.home / "logs", env=env, popen=self._popen())

    def _popen(self) -> Callable[..., subprocess.Popen[bytes]]:
        """Return what starts a process: cold, or forked by the server that has Airflow imported."""
        return functools.partial(WarmPopen, address=self.address) if self.address else subprocess.Popen

    def _wait_until_healthy(self, started_at: float) -> None:
        """Wait for a heartbeat that is younger than this start (a database may hold those of the last one)."""
        deadline = time.monotonic() + self.start_timeout
        wanted = [name for name in _COMPONENTS if self.has_triggerer or name != "triggerer"]
        missing = [*wanted]
        while missing:
            for service in self._services:
                service.check()
            if time.monotonic() > deadline:
                logs = self.home / "logs"
                raise RuntimeError(f"Airflow: not healthy in {self.start_timeout:g} s: {missing}; logs in {logs}")
            time.sleep(_POLL_SECONDS)
            health = _health(self.url)
            missing = [name for name in wanted if not _is_healthy(health, name, started_at)]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _commands(host: str, port: int) -> dict[str, list[str]]:
    """Return the components; none serves logs, because the API server reads them from the same folder."""
    return {
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dag-processor": ["dag-processor"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
        "api-server": ["api-server", "--host", host, "--port", str(port), "--workers", "1"],
    }


def _health(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False)
        return dict(answer.json()) if answer.is_success else {}
    except (httpx.TransportError, ValueError):
        return {}


def _is_healthy(health: Mapping[str, Any], name: str, started_at: float) -> bool:
    component = health.get(name) or {}
    heartbeat = component.get(f"latest_{name}_heartbeat")
    if component.get("status") != "healthy" or not heartbeat:
        return False
    return datetime.fromisoformat(heartbeat).timestamp() >= started_at


def _living_processes() -> Iterator[int]:
    listing = subprocess.run(
        ["ps", "-axo", "pid=,stat="],
        capture_output=True,
        check=True,
        text=True,
    )
    for line in listing.stdout.splitlines():
        pid, state = line.split()[:2]
        if not state.startswith("Z"):
            yield int(pid)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _new_fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _escaped(path: Path) -> str:
    """Airflow interpolates ``%`` in its configuration."""
    return str(path).replace("%", "%%")
