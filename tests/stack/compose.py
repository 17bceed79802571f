"""docker-compose.yaml as a project of its own, driven by the command line as a person does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.airflow_api import AirflowClient
from tests.support.paths import ROOT
from tests.support.services import LOOPBACK, free_port

STAND_INS = {
    "postgres": ("STACK_POSTGRES_IMAGE", "airflow-mcp/postgres-stand-in:test"),
    "s3": ("STACK_S3_IMAGE", "airflow-mcp/s3-stand-in:test"),
}
"""Folder of a stand-in, the setting that names its image, and the name. ``AIRFLOW_MCP_TEST_STACK_…`` names another."""
_START_SECONDS = 600
_COMMAND_SECONDS = 900


def _succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def _run(*command: str, check: bool = True, env: Mapping[str, str] | None = None, timeout: float = 120) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if check and done.returncode != 0:
        output = done.stdout[-4000:] + done.stderr[-4000:]
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{output}")
    return done.stdout


@cache
def _compose() -> tuple[str, ...]:
    """Return the command of Compose: version 2 is a plugin of Docker, Debian has version 1."""
    return ("docker", "compose") if _succeeds("docker", "compose", "version") else ("docker-compose",)


def missing() -> str | None:
    """Return what this machine lacks for these tests; ``None`` when it lacks nothing."""
    if not _succeeds("docker", "info"):
        return "no Docker daemon answers here"
    return None if shutil.which(_compose()[0]) else "neither `docker compose` nor `docker-compose` is installed"


class ComposeStack:
    """The stack as a project of its own on free ports.

    :param project: name of the project.
    :param services: the services to start, with what they need; none means all.
    :param settings: further settings, as a person would write into ``.env``.
    """

    def __init__(self, project: str, *services: str, **settings: str) -> None:
        self.project, self._services = project, services
        ports = {f"STACK_{name}_PORT": str(free_port()) for name in ("AIRFLOW", "MLFLOW", "SERVING")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STACK_", "COMPOSE_"))}
        images = {name: os.environ.get(f"AIRFLOW_MCP_TEST_{name}", image) for name, image in STAND_INS.values()}
        self._env = {**kept, **ports, **images, **settings}
        self.airflow_url = f"http://{LOOPBACK}:{ports['STACK_AIRFLOW_PORT']}"
        self.mlflow_url = f"http://{LOOPBACK}:{ports['STACK_MLFLOW_PORT']}"
        self.serving_url = f"http://{LOOPBACK}:{ports['STACK_SERVING_PORT']}"

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a command of Compose and return what it prints."""
        return _run(*_compose(), "-p", self.project, *arguments, check=check, env=self._env, timeout=_COMMAND_SECONDS)

    def up(self, *services: str) -> None:
        """Start everything, or some services and what they need, and wait as ``up --wait`` of version 2 does."""
        self.compose("up", "--detach", "--no-build", *services)
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Wait until every service is healthy, and those that run once have ended well.

        :raises AssertionError: when that takes too long; has the logs of what is not.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            waiting = [name for name, state in self.states().items() if state not in ("healthy", "exited 0")]
            if not waiting:
                return
            if time.monotonic() > deadline:
                logs = self.compose("logs", "--no-color", "--tail", "40", *waiting, check=False)
                raise AssertionError(f"not healthy after {_START_SECONDS} s: {waiting}\n{logs}")
            time.sleep(2)

    def states(self) -> dict[str, str]:
        """Return the state of each service: its health, or ``exited`` and the code."""
        found = {}
        for container in self.containers():
            state = container["State"]
            ended = f"exited {state['ExitCode']}"
            running = state.get("Health", {}).get("Status", state["Status"])
            found[self.service_of(container)] = running if state["Running"] else ended
        return found

    def containers(self) -> list[dict[str, Any]]:
        """Return every container of the project, as ``docker inspect`` describes it."""
        ids = _run("docker", "ps", "--all", "--quiet", "--filter", self._label).split()
        return list(json.loads(_run("docker", "inspect", *ids))) if ids else []

    def service_of(self, container: Mapping[str, Any]) -> str:
        """Return the service that a container belongs to."""
        return str(container["Config"]["Labels"]["com.docker.compose.service"])

    def running(self) -> dict[str, str]:
        """Return the running containers: their ids by the name of the service."""
        return {self.service_of(found): found["Id"] for found in self.containers() if found["State"]["Running"]}

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in the container of a service, as its user, and return what it prints."""
        return _run("docker", "exec", self.running()[service], *command, check=check)

    def leftovers(self) -> list[str]:
        """Return what Docker still has of the project: containers, volumes, networks."""
        kinds = {"container": ["--all"], "volume": [], "network": []}
        found = []
        for kind, options in kinds.items():
            command = ("docker", kind, "ls", *options, "--quiet", "--filter", self._label)
            found += [f"{kind} {name}" for name in _run(*command).split()]
        return found

    def backup(self, action: str, folder: Path) -> None:
        """Run ``stack/backup.sh`` on this project."""
        env = {**self._env, "COMPOSE": " ".join((*_compose(), "-p", self.project))}
        _run("stack/backup.sh", action, str(folder), env=env, timeout=_COMMAND_SECONDS)

    def load_champion(self, model: str) -> str:
        """Load the champion where tasks run, and return the name of its class."""
        program = f"import mlflow; print(type(mlflow.sklearn.load_model('models:/{model}@champion')[-1]).__name__)"
        return self.execute(
            "airflow-scheduler", "env", "MLFLOW_TRACKING_URI=http://mlflow:5000", "python", "-c", program
        ).strip()

    def secret_values(self) -> dict[str, str]:
        """Return the content of every file of secrets, read as root."""
        script = 'cd /secrets && for f in */*; do printf "%s\\t" "$f"; base64 -w0 "$f"; echo; done'
        image = self._env.get("STACK_IMAGE", "airflow-mcp/airflow:dev")
        mount = f"{self.project}_secrets:/secrets:ro"
        listing = _run("docker", "run", "--rm", "--user", "0", "--volume", mount, image, "sh", "-c", script)
        return dict(line.split("\t") for line in listing.splitlines())

    def passwords(self) -> dict[str, str]:
        """Return the passwords of people, as ``secrets show`` prints them."""
        printed = self.compose("run", "--rm", "secrets", "show")
        return dict(line.split() for line in printed.splitlines() if line.strip())

    def api(self) -> AirflowClient:
        """Return a client of Airflow that is logged in with the password that was made; the caller closes it."""
        return AirflowClient(self.airflow_url, "admin", self.passwords()["admin"])

    @property
    def _label(self) -> str:
        return f"label=com.docker.compose.project={self.project}"

    def __enter__(self) -> Self:
        _build_stand_ins(self._env)
        try:
            self.up(*self._services)
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self) -> None:
        """Remove the project with its volumes, as ``down -v`` does."""
        self.compose("down", "--volumes", "--remove-orphans")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _build_stand_ins(env: Mapping[str, str]) -> None:
    """Build the images of PostgreSQL and of the S3 store from what is available, where no others were named."""
    for folder, (setting, image) in STAND_INS.items():
        if env[setting] == image:
            path = str(ROOT / "tests" / "stack" / folder)
            _run("docker", "build", "--network", "host", "--tag", image, path, timeout=_COMMAND_SECONDS)
