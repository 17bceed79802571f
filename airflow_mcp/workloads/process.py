"""One command under the supervision of :mod:`airflow_mcp.workloads.guard`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
_CHUNK = 65536
_MAX_WAIT_SECONDS = 3600.0
_STOP_MARGIN_SECONDS = 10.0
"""Time beyond the grace period for the guard to start, and for the kernel to end killed processes."""


class GuardedProcess:
    """A command that ends no later than this process, together with everything it started.

    :param command: command line; the program is looked up in the PATH of ``env``.
    :param env: the whole environment.
    :param folder: private folder; the guard removes it when this process is killed.
    :param cwd: working directory.
    :param grace: seconds between SIGTERM and SIGKILL.
    :raises OSError: when the guard cannot be started.
    :raises ValueError: when command or environment contain a NUL byte.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, cwd: Path, grace: float
    ) -> None:
        self._grace = grace
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            lifeline_read, lifeline_write = os.pipe()
            theirs.callback(os.close, lifeline_read)
            self._lifeline = ours.enter_context(os.fdopen(lifeline_write, "wb", 0))
            status_read, status_write = os.pipe()
            theirs.callback(os.close, status_write)
            self._status = ours.enter_context(os.fdopen(status_read, "rb", 0))
            self._guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(GUARD)),
                    *(str(lifeline_read), str(status_write), str(grace), str(folder), *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=env,
                cwd=cwd,
                pass_fds=(lifeline_read, status_write),
                start_new_session=True,
            )
            self._open = ours.pop_all()
        self._reports = bytearray()
        self._has_ended = False

    def pump(self, on_output: Callable[[bytes], None], seconds: float | None) -> bool:
        """Forward the output until everything has ended.

        :param on_output: receives standard output and standard error, merged, as they come.
        :param seconds: time limit; None sets none.
        :return: whether everything has ended; False when the time is over.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        output = self._output
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(self._status, selectors.EVENT_READ)
            while not self._has_ended:
                remaining = _MAX_WAIT_SECONDS if deadline is None else deadline - time.monotonic()
                if remaining <= 0:
                    return False
                for key, _ in selector.select(min(remaining, _MAX_WAIT_SECONDS)):
                    if key.fd == output:
                        on_output(os.read(output, _CHUNK))
                    else:
                        self._take_report()
        self._drain(on_output)
        self._guard.wait()
        return True

    def terminate(self) -> None:
        """Ask the guard to end everything; returns at once, safe from a signal handler or another thread."""
        self._guard.terminate()

    def stop(self, on_output: Callable[[bytes], None]) -> None:
        """End everything and wait for it."""
        self.terminate()
        if self.pump(on_output, self._grace + _STOP_MARGIN_SECONDS):
            return
        self._guard.kill()
        self.kill_group()
        self._guard.wait()

    def kill_group(self) -> None:
        """Kill the command's process group without the guard."""
        leader = self.report("started")
        if leader is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)

    def close(self) -> None:
        """Close all pipes; a guard that still runs now ends the workload by itself."""
        self._open.close()
        if self._guard.stdout is not None:
            self._guard.stdout.close()

    def report(self, word: str) -> int | None:
        """Return the number that the guard reported for ``word`` (see its module); None when it reported none."""
        for line in self._reports.decode().splitlines():
            name, _, number = line.partition(" ")
            if name == word:
                return int(number)
        return None

    @property
    def _output(self) -> int:
        if self._guard.stdout is None:
            raise ValueError("the output of a guarded process is always a pipe")
        return self._guard.stdout.fileno()

    def _take_report(self) -> None:
        data = os.read(self._status.fileno(), _CHUNK)
        self._reports += data
        self._has_ended = not data

    def _drain(self, on_output: Callable[[bytes], None]) -> None:
        """Read the rest of the pipe, without waiting for processes that still hold its other end."""
        os.set_blocking(self._output, False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                data = os.read(self._output, _CHUNK)
                if not data:
                    return
                on_output(data)
