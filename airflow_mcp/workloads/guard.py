"""Supervisor of one local workload: a small program, so that nothing that a workload starts outlives the task.

Started by :mod:`airflow_mcp.workloads.process` as ``python -I -S guard.py LIFELINE STATUS GRACE FOLDER COMMAND …``
in its own session. It imports only the standard library and starts the command as leader of a process group.

- The task process holds the only write end of the pipe ``LIFELINE`` (a file descriptor). When the task process ends
  for any reason, the pipe reads end-of-file and the guard ends the workload and removes ``FOLDER``.
- SIGTERM ends the workload as well: SIGTERM to all, ``GRACE`` seconds, then SIGKILL.
- When the command ends by itself, the processes that it left running are ended too.
- On Linux the guard is the subreaper of all its descendants, so a process that left the group (a daemon) becomes its
  child and is ended like the others. On other systems only the process group is ended.

It reports to the task process in lines on the file descriptor ``STATUS``: ``started <pid>``,
``error <errno>`` when the command could not be started, ``exit <code>`` (negative: number of a signal),
``left <number>`` of processes that outlived the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

TICK_SECONDS = 0.05
SETTLE_SECONDS = 0.5
"""Time for helpers of the command (multiprocessing's trackers) to notice its end and exit by themselves."""
LEFTOVER_GRACE_SECONDS = 2.0
ORPHAN_GRACE_SECONDS = 5.0
KILL_SECONDS = 5.0
"""Time for the kernel to end killed processes."""

_PR_SET_CHILD_SUBREAPER = 36
_DEFAULT_SIGNALS = (
    *(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM),
    *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ),
)


class Guard:
    """One command and all its descendants.

    :param lifeline: read end of the pipe that the task process holds open.
    :param status: file descriptor for the status lines.
    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, lifeline: int, status: int, grace: float) -> None:
        self._lifeline, self._status, self._grace = lifeline, status, grace
        for descriptor in (lifeline, status):
            os.set_inheritable(descriptor, False)
        self._is_subreaper = _become_subreaper()
        self._wake_up, wake_up_write = os.pipe()
        os.set_blocking(self._wake_up, False)
        os.set_blocking(wake_up_write, False)
        self._stop_requested = False
        signal.set_wakeup_fd(wake_up_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        self._leader = 0
        self._exit_code: int | None = None
        self._asked: set[int] = set()

    def run(self, command: list[str]) -> None:
        """Run the command to its end, or until the task process ends or asks for a stop."""
        try:
            self._leader = os.posix_spawnp(
                command[0], command, os.environ, setpgroup=0, setsigdef=_DEFAULT_SIGNALS, setsigmask=()
            )
        except OSError as error:
            self._report("error", error.errno or 0)
            return
        self._report("started", self._leader)
        while self._exit_code is None and not self._stop_requested and not self.is_orphaned:
            self._wait(None)
            self._reap()
        if self._exit_code is None:
            self._end_all(min(self._grace, ORPHAN_GRACE_SECONDS) if self.is_orphaned else self._grace)
        elif self._something_outlives():
            self._report("left", max(1, len(_children())))
            self._end_all(min(self._grace, LEFTOVER_GRACE_SECONDS))
        if self._exit_code is not None:
            self._report("exit", self._exit_code)

    @property
    def is_orphaned(self) -> bool:
        """Whether the task process has ended (it never writes, so a readable pipe is at its end)."""
        return bool(select.select([self._lifeline], [], [], 0)[0])

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self._stop_requested = True

    def _wait(self, seconds: float | None) -> None:
        watched = [self._wake_up] if seconds is not None else [self._wake_up, self._lifeline]
        select.select(watched, [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_up, 4096)

    def _something_outlives(self) -> bool:
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._reap() and time.monotonic() < deadline:
            self._wait(TICK_SECONDS)
        return self._reap()

    def _end_all(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        while self._reap() and time.monotonic() < deadline:
            self._ask_to_end()
            self._wait(TICK_SECONDS)
        deadline = time.monotonic() + KILL_SECONDS
        while self._reap() and time.monotonic() < deadline:
            self._signal_group(signal.SIGKILL)
            for child in _children():
                _signal(child, signal.SIGKILL)
            self._wait(TICK_SECONDS)

    def _ask_to_end(self) -> None:
        """Send SIGTERM once to the group, and once to each child outside it as it appears."""
        if not self._asked:
            self._asked.add(self._leader)
            self._signal_group(signal.SIGTERM)
        for child in _children():
            if child not in self._asked and _group_of(child) != self._leader:
                self._asked.add(child)
                _signal(child, signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, number)

    def _reap(self) -> bool:
        """Collect ended processes and return whether any are left."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._leader:
                    self._exit_code = os.waitstatus_to_exitcode(status)
        return not self._is_subreaper and _group_exists(self._leader)

    def _report(self, word: str, number: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._status, f"{word} {number}\n".encode())


def _become_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    try:
        import ctypes  # noqa: PLC0415  (some builds of Python have no ctypes)

        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def _children() -> list[int]:
    """Return the process ids of this process's children; empty without ``/proc``."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):  # noqa: PTH208  (pathlib costs more than the rest of this program)
            if name.isdigit() and _parent_of(name) == os.getpid():
                found.append(int(name))
    return found


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def main(arguments: list[str]) -> None:
    """Run the command line ``LIFELINE STATUS GRACE FOLDER COMMAND …``."""
    lifeline, status, grace, folder, *command = arguments
    guard = Guard(int(lifeline), int(status), float(grace))
    guard.run(command)
    if guard.is_orphaned:
        import shutil  # noqa: PLC0415  (needed in this rare case only)

        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
