"""Processes of Python that start in a twentieth of a second: forked by :mod:`tests.support.warm_server`.

:class:`WarmPopen` stands in for :class:`subprocess.Popen`. A command that the fork server cannot play starts cold, and
so does everything where no server is named by :data:`ENV_ADDRESS`.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.paths import ROOT
from tests.support.services import Service
from tests.support.warm_server import GUARD, HEADER_BYTES, program_of

ENV_ADDRESS = "AIRFLOW_MCP_TEST_WARM"
"""Variable with the path of the server's socket."""
PROGRAM = Path(__file__).with_name("warm_server.py")
_PADDING = "." * 60_000
"""Room in the server's memory for arguments and environment of its children; one string may have 128 KiB on Linux."""
_GUARD_ARGUMENTS = 4


class WarmServer(Service):
    """The fork server, as a service of a test run.

    :param folder: folder for its log.
    :param program: how Python starts it.
    :param env: further variables.
    """

    def __init__(
        self, folder: Path, program: Sequence[str] = (str(PROGRAM),), env: Mapping[str, str] | None = None
    ) -> None:
        self._home = tempfile.mkdtemp(prefix="warm-")  # the path of a socket has at most 107 characters
        self.address = str(Path(self._home) / "socket")
        super().__init__(
            "warm",
            [sys.executable, "-P", *program, self.address, _PADDING],
            folder=folder,
            env={
                "COVERAGE_PROCESS_CONFIG": "",  # its children are measured, each by itself
                "DO_NOT_TRACK": "1",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "PYTHONUNBUFFERED": "1",
                "ROOM": _PADDING,
                **(env or {}),
            },
            health_check=self._answers,
            start_timeout=300,  # imports of 20 s of CPU, on a machine that is busy
            is_tied=True,
        )

    def stop(self) -> None:
        """Stop the server; its children go on."""
        super().stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.address)
            return True
        return False


class WarmPopen(subprocess.Popen[Any]):
    """A process forked by the warm server, or a cold one.

    It overrides what :class:`subprocess.Popen` does to start a process and to collect its status: those have no public
    names. Everything else (pipes, ``communicate``, time-outs, signals) is the standard library's.

    :param arguments: as for :class:`subprocess.Popen`.
    :param address: where the server listens; by default the one that :data:`ENV_ADDRESS` names.
    :param options: as for :class:`subprocess.Popen`.
    """

    _caller: socket.socket | None = None
    _status: int | None = None

    def __init__(self, *arguments: Any, address: str = "", **options: Any) -> None:
        self._address = address or os.environ.get(ENV_ADDRESS, "")
        super().__init__(*arguments, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        address = self._address
        names = ("executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo", "flags", "shell")
        given = dict(zip(names, rest, strict=False))
        env = dict(os.environ if given["env"] is None else given["env"])
        if not address or given["shell"] or given["executable"] or not _is_warm(args, env):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        pipes, is_new_session = rest[9:15], bool(rest[-2])
        placed = {0: pipes[0], 1: pipes[3], 2: pipes[5], **{number: number for number in given["pass_fds"]}}
        placed = {target: target if number == -1 else number for target, number in placed.items()}
        request = {
            "command": [os.fspath(part) for part in args],
            "env": env,
            "cwd": os.fspath(given["cwd"] or Path.cwd()),
            "targets": list(placed),
            "new_session": is_new_session,
        }
        self._caller = _ask(address, request, list(placed.values()))
        self.pid = int(_line(self._caller))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._caller is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc,no-any-return]
        return self._collect(wait_flags)

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if self._caller is None:
            return super()._internal_poll(*arguments, **options)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            pid, status = self._collect(os.WNOHANG)
            if pid == self.pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode

    def _collect(self, wait_flags: int) -> tuple[int, int]:
        """Do what ``os.waitpid`` does, for a child of the server."""
        assert self._caller is not None
        if self._status is None:
            self._caller.setblocking(not wait_flags & os.WNOHANG)
            try:
                self._status = int(_line(self._caller))
            except BlockingIOError:
                return 0, 0
            self._caller.close()
        return self.pid, self._status


SUBPROCESS = SimpleNamespace(
    Popen=WarmPopen, DEVNULL=subprocess.DEVNULL, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT
)
"""Put in place of the name ``subprocess`` in the module that starts local workloads."""


def in_airflow(home: Path, address: str) -> dict[str, str]:
    """Let the tasks of a real Airflow fork their workloads; returns what to add to its environment.

    :param home: Airflow's home folder, which need not exist yet.
    :param address: where the warm server listens.
    """
    settings = home / "config" / "airflow_local_settings.py"  # which every component of Airflow imports first
    settings.parent.mkdir(parents=True)
    settings.write_text(
        "from airflow_mcp.workloads import process\nfrom tests.support.warm import SUBPROCESS\n\n"
        "process.subprocess = SUBPROCESS\n"
    )
    return {ENV_ADDRESS: address, "PYTHONPATH": str(ROOT)}


def run(command: Sequence[str], *, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command as :func:`subprocess.run` does, with its output captured."""
    with WarmPopen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _is_warm(command: Sequence[str], env: Mapping[str, str]) -> bool:
    program = program_of(command, env.get("PATH"))
    if program is None:
        return False
    if Path(program.name).name == GUARD:
        return program_of(program.arguments[_GUARD_ARGUMENTS:], env.get("PATH")) is not None
    return True


def _ask(address: str, request: Mapping[str, Any], descriptors: Sequence[int]) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.connect(address)
    text = json.dumps(request).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    caller.sendmsg([len(text).to_bytes(HEADER_BYTES)], [rights])
    caller.sendall(text)
    return caller


def _line(caller: socket.socket) -> str:
    """Read one line; there is never more than one on its way.

    :raises BlockingIOError: when it has not come yet and the socket does not block.
    """
    text = b""
    while not text.endswith(b"\n"):
        part = caller.recv(1 if text == b"" else 64)
        if not part:
            raise RuntimeError("the warm server has ended")
        text += part
        caller.setblocking(True)
    return text.decode()
