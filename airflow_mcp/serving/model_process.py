"""The model processes as the front sees them: the loader of a version, and a link to each process that answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import site
import socket
import sys
import tempfile
import weakref
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from airflow_mcp.core.serving.frames import Frame, FrameReader, encode
from airflow_mcp.serving.model_output import copy_output
from airflow_mcp.serving.pool import PoolStartError

_log = logging.getLogger(__name__)
_PASSED_ON = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "USER"}
)
"""Environment variables that model processes see. Models run code of their own, so credentials are not among them."""
_NO_HOME = "/nonexistent"
"""Home of model processes where no temporary folder can be made, such as on a read-only file system."""
_PASSED_ON_PREFIXES = ("LC_", "COVERAGE")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Cores are used by processes. With more threads a fork can hang for ever: the threads of OpenMP do not survive it."""

_REACTION_SECONDS = 10.0
"""A loader that has not started a process by then does not react: a fork takes less than a second."""
_DIRECT_SECONDS = 1.0
"""A process that its loader has not ended by then is ended by the front itself."""


def model_environment(environment: Mapping[str, str], further: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the environment of model processes.

    :param environment: environment of this process.
    :param further: names of variables that they see besides the usual ones. Without ``HOME`` among them, each
        :class:`Loader` gets a home of its own.
    """
    passed = {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name in further or name.startswith(_PASSED_ON_PREFIXES)
    }
    if site.ENABLE_USER_SITE and "PYTHONUSERBASE" not in passed:
        passed["PYTHONUSERBASE"] = site.getuserbase()  # is below HOME, which is another one there
    return {**passed, **dict.fromkeys(_ONE_THREAD, "1"), "PYTHONUNBUFFERED": "1"}


class Loader:
    """The process that has loaded a version and starts the processes that answer.

    :param name: name and version of the model, for the log.
    :param path: folder of the model's files.
    :param environment: its whole environment.
    :param on_lost: called when it has ended, unless it was told to.
    """

    def __init__(self, name: str, path: Path, environment: Mapping[str, str], on_lost: Callable[[], None]) -> None:
        self._name = name
        self._path = path
        self._environment = dict(environment)
        self._on_lost = on_lost
        self._process: Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._remove_home: Callable[[], object] | None = None
        self._control: socket.socket | None = None
        self._buffer = b""
        self._loaded: asyncio.Future[dict[str, Any]] | None = None
        self._spawned: asyncio.Future[int] | None = None
        self._spawning = asyncio.Lock()
        self.can_fork = False
        self.memory_bytes = 0

    async def start(self) -> None:
        """Start the process and return when it has loaded the model.

        :raises PoolStartError: when it has ended before.
        """
        loop = asyncio.get_running_loop()
        self._environment.setdefault("HOME", self._make_home())
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._loaded = loop.create_future()
        arguments = ("-m", "airflow_mcp.work", "serve-model", "--fd", str(theirs.fileno()), "--model", str(self._path))
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                pass_fds=(theirs.fileno(),),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the front, which lets the processes finish
            )
        if self._process.stdout is not None:
            self._output = loop.create_task(copy_output(self._process.stdout, self._name))
        loop.add_reader(self._control.fileno(), self._receive, self._control)
        event = await self._loaded
        self.can_fork = bool(event["can_fork"])
        self.memory_bytes = int(event["memory_bytes"])

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, or is about to."""
        return self._control is None

    async def spawn(self, owner: LinkOwner, *, register: Callable[[WorkerLink], None]) -> WorkerLink:
        """Start a process that answers, and return the link to it.

        :param owner: what its frames are for.
        :param register: called with the link before the first frame can arrive.
        :raises PoolStartError: when the loader has ended, or does not react and was ended therefore.
        """
        async with self._spawning:
            if self._control is None:
                raise PoolStartError("the process that has loaded the model has ended")
            loop = asyncio.get_running_loop()
            self._spawned = loop.create_future()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            link = WorkerLink(owner, self)
            register(link)
            order = json.dumps({"order": "spawn"}).encode() + b"\n"
            try:
                with theirs:
                    socket.send_fds(self._control, [order], [theirs.fileno()])
                    await loop.create_unix_connection(lambda: link, sock=ours)
                    link.pid = await asyncio.wait_for(self._spawned, _REACTION_SECONDS)
            except BaseException as error:
                self._end_alone()  # otherwise its late answer would be taken for that to the next order
                if isinstance(error, TimeoutError):
                    raise PoolStartError("the process that has loaded the model did not react") from None
                raise
            return link

    def kill_worker(self, pid: int) -> None:
        """End a process that answers, at once."""
        if not self.can_fork:
            self.kill()
        elif self._control is None:
            self.kill_directly(pid)
        else:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"order": "kill", "pid": pid}).encode() + b"\n")

    def kill_directly(self, pid: int) -> None:
        """End a process that this loader has started, at once and without its help.

        :param pid: its number; nothing happens when that belongs to a process of somebody else by now.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process is not None and os.getsid(pid) == self._process.pid:
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the loader at once, with every process that it has started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end_alone(self) -> None:
        """End the loader at once; the processes that it has started go on."""
        if self._control is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._lose()

    async def stop(self) -> None:
        """End the loader and what it has started, and wait for its end."""
        self._on_lost = _nothing
        self._close()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), 2.0)
            except TimeoutError:
                self.kill()
                await self._process.wait()
        if self._output is not None:
            await asyncio.wait([self._output], timeout=1.0)
        if self._remove_home is not None:
            self._remove_home()

    def _make_home(self) -> str:
        """Return a new empty folder, since the home of this user may hold credentials such as ``~/.aws``.

        It is removed when this loader is stopped, or when no process that it has started is linked any more.
        """
        try:
            home = tempfile.mkdtemp(prefix="airflow-mcp-model-")
        except OSError:
            return _NO_HOME
        self._remove_home = weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        return home

    def _receive(self, control: socket.socket) -> None:
        try:
            data = control.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._on_event(json.loads(line))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "loaded":
            _resolve(self._loaded, event)
        elif event["event"] == "failed":
            _fail(self._loaded, PoolStartError(str(event["message"])))
        elif event["event"] == "spawned":
            _resolve(self._spawned, int(event["pid"]))
        elif event["code"]:
            _log.warning("a model process ended: %s", how_ended(int(event["code"])))

    def _lose(self) -> None:
        self._close()
        if self._process is not None:
            self._end = asyncio.get_running_loop().create_task(self._ended(self._process))

    async def _ended(self, process: Process) -> None:
        code = await process.wait()
        error = PoolStartError(f"the process that loads the model ended: {how_ended(code)}")
        _fail(self._loaded, error)
        _fail(self._spawned, error)
        self._on_lost()

    def _close(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None


class LinkOwner:
    """What receives the frames of model processes."""

    def on_frame(self, link: WorkerLink, frame: Frame) -> None:
        """Take a frame that a process has sent."""

    def on_lost(self, link: WorkerLink) -> None:
        """Take notice that a process has ended."""

    def on_defect(self, error: BaseException) -> None:
        """Take notice that nothing replaces processes any more, because of an error that was not expected."""


class WorkerLink(asyncio.Protocol):
    """The connection to one process that answers.

    :param owner: what its frames are for.
    :param loader: the loader that has started it.
    """

    def __init__(self, owner: LinkOwner, loader: Loader) -> None:
        self._owner = owner
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.loader = loader
        self.pid = 0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Pass on every complete frame."""
        try:
            for frame in self._reader.feed(data):
                self._owner.on_frame(self, frame)
        except ValueError:
            _log.exception("a model process sent something that cannot be read, so it is ended")
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the process has ended."""
        self.is_open = False
        self._owner.on_lost(self)

    def send(self, batch: int, rows: int, kind: int, payload: bytes) -> None:
        """Send a batch."""
        if self._transport is not None:
            self._transport.write(encode(batch, rows, kind, payload))

    def close(self) -> None:
        """Close the connection; the process ends when it has answered what it is doing."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End the process at once, also when its loader does not help."""
        if self.is_open:
            self.loader.kill_worker(self.pid)
            asyncio.get_running_loop().call_later(_DIRECT_SECONDS, self._kill_directly)

    def abandon(self) -> None:
        """End the process at once, and report nothing of it any more."""
        self._owner = LinkOwner()
        self.close()
        self.loader.kill_directly(self.pid)

    def _kill_directly(self) -> None:
        if self.is_open:
            self.loader.kill_directly(self.pid)


def how_ended(code: int) -> str:
    """Return in words how a process ended.

    :param code: its exit code; negative for a signal.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _nothing() -> None:
    """Do nothing: the end of the process was wanted."""


def _resolve(future: asyncio.Future[Any] | None, value: Any) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any] | None, error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
