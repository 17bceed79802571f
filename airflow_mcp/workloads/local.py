"""Runs a workload as a child process of the task: the embedded default, for a laptop, a demo and tests."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mcp.core.ports import TaskLog
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.output import OutputLog
from airflow_mcp.workloads.process import GuardedProcess

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.workload import Workload, WorkloadFile

_WITHHELD_PREFIXES = ("AIRFLOW", "MLFLOW_")
_MESSAGE_LINES = 20
_MESSAGE_LINE_CHARACTERS = 500
_OUT_OF_MEMORY_HINT = "; a kill like this mostly means that the machine ran out of memory"
_PASSING_ERRORS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ETXTBSY})


class LocalBackend(WorkloadBackend):
    """Runs ``workload.command`` as a child process and ends everything it started when the task ends.

    The child's working directory is an empty private folder that is removed afterwards: a script that wants to keep
    something logs it to MLflow. Its environment is this process's without anything of Airflow's or MLflow's
    (variables that start with ``AIRFLOW``, ``_AIRFLOW`` or ``MLFLOW_``: connections, keys and settings of the control
    plane are not for user code), then ``PYTHONUNBUFFERED=1``, then what the workload states. ``image`` and
    ``resources`` are not used.

    :param log_limit_bytes: bytes of output that are copied into the log, at most.
    :param kill_grace_seconds: seconds between SIGTERM and SIGKILL when the workload has to be stopped.
    :raises InvalidArgumentError: when one of the limits is negative or not a number.
    """

    python = sys.executable
    ships_files = False

    def __init__(self, *, log_limit_bytes: int, kill_grace_seconds: float) -> None:
        for name, value in (("log_limit_bytes", log_limit_bytes), ("kill_grace_seconds", kill_grace_seconds)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidArgumentError(f"{name}={value!r} is not usable; allowed: a number that is 0 or more.")
        self._log_limit_bytes = log_limit_bytes
        self._kill_grace_seconds = kill_grace_seconds
        self._is_cancelled = False
        self._process: GuardedProcess | None = None

    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Run the workload and return when it ended with exit code 0.

        Whatever ends this method (a time-out of Airflow, an interrupt, any exception), everything the workload
        started has been stopped before.

        :param workload: what to run.
        :param log: receives the output, line by line; values of ``secret_env`` are masked.
        :param context: not used.
        :raises InvalidArgumentError: when the workload is not usable or its command cannot be started.
        :raises WorkloadFailedError: when it ended with another exit code, by a signal or by :meth:`cancel`.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        :raises WorkloadError: when this machine could not start or supervise it.
        """
        _check(workload)
        output = OutputLog(log, limit_bytes=self._log_limit_bytes, secrets=workload.secret_env.values())
        with _private_folder(workload) as (folder, paths):
            process = self._start(workload, folder, paths)
            self._process = process
            try:
                if self._is_cancelled:
                    process.terminate()
                has_ended = process.pump(output.feed, workload.timeout)
                if not has_ended:
                    process.stop(output.feed)
            except BaseException:
                process.stop(_discard)  # the log itself may be what failed
                raise
            finally:
                self._process = None
                process.close()
        output.close()
        if not has_ended:
            raise WorkloadTimeoutError(
                f"Workload {workload.name!r} ran longer than its timeout of {workload.timeout:g} s and was stopped "
                f"with everything it had started.{_tail_text(output)}"
            )
        self._judge(workload, process, output, log)

    def cancel(self) -> None:
        """Stop the workload with everything it started, now or as soon as it starts; returns at once."""
        self._is_cancelled = True
        process = self._process
        if process is not None:
            process.terminate()

    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> NoReturn:
        """Refuse: this backend never defers, so there is nothing to go on with.

        :raises InvalidArgumentError: always.
        """
        raise InvalidArgumentError(
            f"Workload {workload.name!r}: runtime='local' never defers, so it cannot go on after a deferral; "
            "the task was deferred with another runtime. Clear the task to run it from its start."
        )

    def _start(self, workload: Workload, folder: Path, paths: Mapping[str, str]) -> GuardedProcess:
        env = {**child_environment(os.environ), **workload.env, **workload.secret_env, **paths}
        try:
            return GuardedProcess(
                workload.command, env=env, folder=folder, cwd=folder / "work", grace=self._kill_grace_seconds
            )
        except ValueError as error:
            raise InvalidArgumentError(
                f"Workload {workload.name!r}: its command or environment is not usable: {error}. Nothing was started."
            ) from error
        except OSError as error:
            raise _start_error(workload, error.errno or 0) from error

    def _judge(self, workload: Workload, process: GuardedProcess, output: OutputLog, log: TaskLog) -> None:
        start_error, exit_code = process.report("error"), process.report("exit")
        if self._is_cancelled:
            message = f"Workload {workload.name!r} was cancelled and stopped with everything it had started."
            code = -signal.SIGTERM if exit_code is None else exit_code
            raise WorkloadFailedError(message + _tail_text(output), code, output.tail)
        if start_error is not None:
            raise _start_error(workload, start_error)
        if exit_code is None:
            process.kill_group()
            raise WorkloadError(
                f"Workload {workload.name!r}: its supervisor ended without a word (was it killed?), so how the "
                f"workload ended is unknown; its process group was killed. A retry starts it anew.{_tail_text(output)}"
            )
        if exit_code != 0:
            message = f"Workload {workload.name!r} {_ending(exit_code)}.{_tail_text(output)}"
            raise WorkloadFailedError(message, exit_code, output.tail)
        left = process.report("left")
        if left is not None:
            log.warning(
                "Workload '%s' ended, but %d process(es) that it had started were still running; they were stopped.",
                *(workload.name, left),
            )


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a workload inherits from the environment of the task process.

    :param environ: environment of the task process.
    :return: the same without Airflow's and MLflow's variables, and with ``PYTHONUNBUFFERED=1``.
    """
    kept = {name: value for name, value in environ.items() if not name.lstrip("_").startswith(_WITHHELD_PREFIXES)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


@contextmanager
def _private_folder(workload: Workload) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a folder that only this user can enter, and the path of each file by its environment variable."""
    folder = Path(tempfile.mkdtemp(prefix="airflow-mcp-"))
    try:
        (folder / "work").mkdir(mode=0o700)
        (folder / "files").mkdir(mode=0o700)
        yield folder, {file.env: _write(file, folder / "files") for file in workload.files}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: WorkloadFile, folder: Path) -> str:
    path = folder / file.name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        stream.write(file.content)
    return str(path)


def _check(workload: Workload) -> None:
    problems = []
    if not workload.command or not workload.command[0]:
        problems.append(f"command={workload.command!r} names no program")
    if workload.timeout is not None and not (math.isfinite(workload.timeout) and workload.timeout > 0):
        problems.append(f"timeout={workload.timeout!r} is not a number of seconds above 0")
    names = [file.name for file in workload.files]
    problems += [f"files: {name!r} is not a file name without a folder" for name in names if not _is_file_name(name)]
    problems += [f"files: {name!r} appears twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise InvalidArgumentError(
            f"Workload {workload.name!r} is not usable: {'; '.join(problems)}. Nothing was started."
        )


def _discard(_data: bytes) -> None:
    """Take output that nobody can receive any more."""


def _is_file_name(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and not any(character in name for character in "/\\\0")


def _start_error(workload: Workload, number: int) -> InvalidArgumentError | WorkloadError:
    reason = os.strerror(number)
    if number in _PASSING_ERRORS:
        return WorkloadError(f"Workload {workload.name!r} could not be started: {reason}. A retry may succeed.")
    return InvalidArgumentError(
        f"Workload {workload.name!r}: its command {workload.command[0]!r} cannot be started: {reason}. Allowed: a "
        "program in PATH or an absolute path (it runs in an empty folder of its own). Nothing has run."
    )


def _ending(exit_code: int) -> str:
    if exit_code > 0:
        hint = _OUT_OF_MEMORY_HINT if exit_code == 128 + signal.SIGKILL else ""
        return f"ended with exit code {exit_code}{hint}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"was ended by {name}{_OUT_OF_MEMORY_HINT if exit_code == -signal.SIGKILL else ''}"


def _tail_text(output: OutputLog) -> str:
    lines = [line[:_MESSAGE_LINE_CHARACTERS] for line in output.tail[-_MESSAGE_LINES:]]
    return "\nIts last lines:\n" + "\n".join(lines) if lines else " It printed nothing."
