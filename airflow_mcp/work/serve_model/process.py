"""The process that loads one version, and its forks, which answer.

The loader loads the model once, freezes what it holds and forks a process for each socket that the front sends it. So
the forks share the memory of the model, and a fork that dies is replaced without loading again. The loader itself never
predicts: after a prediction a fork could hang, since the threads of OpenMP do not survive it. Where a fork is not safe,
the loader serves the one socket it is sent by itself.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from airflow_mcp.core.serving.signature import ModelDescription, read_model_file

_log = logging.getLogger(__name__)
_RECEIVE_BYTES = 1 << 18
_REAP_SECONDS = 1.0
_MAX_TEXT = 500
_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})
"""Threads that a fork starts anew by itself: jemalloc, the allocator of Arrow, registers handlers for that."""


class OneLine(logging.Formatter):
    """Writes a record with its traceback as one line, since the server copies lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return super().format(record).replace("\n", "\\n")


class Loader:
    """The process that has loaded the model.

    :param control: socket to the front.
    :param path: folder of the model's files.
    """

    def __init__(self, control: socket.socket, path: Path) -> None:
        self._control = control
        self._path = path
        self._children: set[int] = set()
        self._pyfunc: Any = None
        self._description = ModelDescription()
        self._can_fork = False

    def run(self) -> int:
        """Load the model and start processes until the front closes the socket.

        :return: the exit code.
        """
        try:
            self._load()
        except BaseException as error:
            self._send({"event": "failed", "message": _why(error)})
            _log.exception("the model in %s did not load", self._path)
            return 1
        self._send({"event": "loaded", "memory_bytes": _memory_bytes(), "can_fork": self._can_fork})
        self._serve_control()
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:  # otherwise they stay behind as zombies where the front is process 1
            os.waitpid(pid, 0)
        return 0

    def _load(self) -> None:
        self._description = read_model_file((self._path / "MLmodel").read_text(encoding="utf-8"))
        import mlflow.pyfunc  # noqa: PLC0415  (1.5 s that belong to this process alone)

        os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
        self._pyfunc = mlflow.pyfunc.load_model(str(self._path))
        import airflow_mcp.work.serve_model.worker  # noqa: F401, PLC0415  (before the fork, so that forks share it)

        self._can_fork = self._description.may_fork and _may_be_forked()
        gc.collect()
        gc.freeze()  # without it, the first collection in each fork copies what it touches

    def _serve_control(self) -> None:
        self._control.settimeout(_REAP_SECONDS)
        waiting = b""
        while True:
            self._reap()
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _RECEIVE_BYTES, 1)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                self._obey(json.loads(line), descriptors)

    def _obey(self, order: dict[str, Any], descriptors: list[int]) -> None:
        if order["order"] == "kill":
            if order["pid"] in self._children:  # not reaped yet, so the number belongs to no other process
                os.kill(order["pid"], signal.SIGKILL)
            return
        connection = socket.socket(fileno=descriptors.pop())
        if not self._can_fork:
            self._send({"event": "spawned", "pid": os.getpid()})
            self._work(connection)
        pid = os.fork()
        if pid == 0:
            self._control.close()
            self._work(connection)
        connection.close()
        self._children.add(pid)
        self._send({"event": "spawned", "pid": pid})

    def _work(self, connection: socket.socket) -> NoReturn:
        """Answer batches until the front closes the connection; never returns."""
        from airflow_mcp.work.serve_model.worker import Worker  # noqa: PLC0415

        code = 1
        try:
            connection.settimeout(None)
            code = Worker(connection, self._pyfunc, self._path, self._description).run()
        except BaseException:
            _log.exception("a process of the model in %s ends", self._path)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # a fork must not run what its parent registered for its own end

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.discard(pid)
                self._send({"event": "exited", "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _send(self, event: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(event).encode() + b"\n")
        except OSError:  # the front is gone: the next read ends this process
            _log.debug("the front has closed the socket")


def serve_model(descriptor: int, path: Path) -> int:
    """Run a loader.

    :param descriptor: file descriptor of the socket to the front.
    :param path: folder of the model's files.
    :return: the exit code.
    """
    for handler in logging.getLogger().handlers:
        handler.setFormatter(OneLine("%(message)s"))
    for number in (signal.SIGINT, signal.SIGTERM):  # the front ends this process, after it has drained
        signal.signal(number, signal.SIG_IGN)
    return Loader(socket.socket(fileno=descriptor), path).run()


def _may_be_forked() -> bool:
    """Return whether no other thread runs, also of native libraries; threads do not survive a fork."""
    names = []
    try:
        for thread in Path("/proc/self/task").iterdir():
            names.append((thread / "comm").read_text(encoding="utf-8").strip())
    except OSError:
        return False
    return len([name for name in names if name not in _SAFE_THREADS]) == 1


def _memory_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_MAX_TEXT]}"
