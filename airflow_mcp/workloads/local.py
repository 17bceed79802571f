"""Runs a workload as a child process of the task: the default, for laptops, demos and tests."""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mcp.core.contract import EXIT_REFUSED
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.workload.definition import CHECKOUT_ARGUMENTS
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    SourceError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.output import OutputLog
from airflow_mcp.workloads.process import GuardedProcess

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.workload.definition import Workload, WorkloadFile

_WITHHELD_PREFIXES = ("AIRFLOW", "MLFLOW_")
_FIND_MODULES = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if importlib.util.find_spec(n) is None))"
_FIND_SECONDS = 60
"""An interpreter on a busy machine or a network disk may take seconds to start."""
_MESSAGE_LINES = 20
_MESSAGE_LINE_CHARACTERS = 500
_OUT_OF_MEMORY_HINT = "; this usually means that the machine ran out of memory"
_PASSING_ERRORS = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ETXTBSY})


class LocalBackend(WorkloadBackend):
    """Runs ``workload.command`` as a child process and ends everything it started when the task ends.

    The child's working directory is a private folder, which is removed afterwards: empty or, with a ``source``, with
    the fetched code. Scripts log what they want to keep to MLflow. The environment is that of this process without
    variables that start with ``AIRFLOW``, ``_AIRFLOW`` or ``MLFLOW_`` (connections, keys and settings of the control
    plane are not for user code), with ``PYTHONUNBUFFERED=1`` and the interpreter first in ``PATH``, and with the
    variables of the workload. ``image`` and ``resources`` are not used.

    :param log_limit_bytes: most bytes of output that are copied to the log.
    :param kill_grace_seconds: seconds between SIGTERM and SIGKILL when the workload has to be stopped.
    :param python: interpreter of the work plane; empty takes that of this process.
    :param alone: environment of a training that on Kubernetes would run on several pods; may be empty.
    :raises InvalidArgumentError: when one of the limits is negative or not a number.
    """

    ships_files = False

    def __init__(
        self,
        *,
        log_limit_bytes: int,
        kill_grace_seconds: float,
        python: str = "",
        alone: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        for name, value in (("log_limit_bytes", log_limit_bytes), ("kill_grace_seconds", kill_grace_seconds)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidArgumentError(f"{name} must be a number that is 0 or more; got {value!r}")
        self.python = python or sys.executable
        self._log_limit_bytes = log_limit_bytes
        self._kill_grace_seconds = kill_grace_seconds
        self._alone = alone
        self._is_cancelled = False
        self._process: GuardedProcess | None = None

    def require_modules(self, *names: str) -> None:
        """Check that the interpreter can import modules.

        :param names: top-level modules.
        :raises InvalidArgumentError: when it lacks one, or cannot be started.
        """
        missing = missing_modules(self.python, names)
        if missing:
            raise InvalidArgumentError(
                f"the interpreter {self.python} has no {' and no '.join(missing)}. Nothing was started, and a retry "
                "does not help: install '.[runtime]' into it, or set [airflow_mcp] python to an interpreter that has it"
            )

    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Run the workload and return when it ended with exit code 0.

        However this method ends (by a timeout of Airflow, an interrupt or any exception), everything that the workload
        started has been stopped.

        :param workload: what to run.
        :param log: receives the output, line by line; values of ``secret_env`` are masked.
        :param context: not used.
        :raises InvalidArgumentError: when the workload is invalid or its command cannot be started.
        :raises SourceError: when the repository does not have its code.
        :raises WorkloadFailedError: when it ended with another exit code, by a signal or by :meth:`cancel`.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        :raises WorkloadError: when this machine could not start or supervise it.
        """
        _check(workload)
        if self._alone and workload.is_replicable:
            log.info("The local runtime starts no replicas: this training runs alone, as rank 0 of 1")
            workload = replace(workload, env={**self._alone, **workload.env})
        output = OutputLog(log, limit_bytes=self._log_limit_bytes, secrets=workload.all_secrets.values())
        deadline = None if workload.timeout is None else time.monotonic() + workload.timeout
        with _private_folder(workload) as (folder, paths):
            for step in _steps(workload, self.python, folder, paths):
                process = self._run_step(step, folder, output, deadline)
                self._judge(step, process, output, log)

    def _run_step(self, step: _Step, folder: Path, output: OutputLog, deadline: float | None) -> GuardedProcess:
        """Run one process to its end; everything it started has ended when this returns or raises."""
        process = self._start(step, folder)
        self._process = process
        try:
            if self._is_cancelled:
                process.terminate()
            has_ended = process.pump(output.feed, None if deadline is None else max(0, deadline - time.monotonic()))
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
                f"{step.name} ran longer than its timeout of {step.workload.timeout:g} s and was stopped "
                f"with everything it had started{_tail_text(output)}"
            )
        return process

    def cancel(self) -> None:
        """Stop the workload and everything it started, now or as soon as it starts; returns at once."""
        self._is_cancelled = True
        process = self._process
        if process is not None:
            process.terminate()

    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> NoReturn:
        """Refuse: this backend never defers, so there is nothing to continue.

        :raises InvalidArgumentError: always.
        """
        raise InvalidArgumentError(
            f"workload {workload.name!r} was deferred with another runtime, and runtime='local' cannot resume it. "
            "Clear the task to run it from its start"
        )

    def _start(self, step: _Step, folder: Path) -> GuardedProcess:
        try:
            return GuardedProcess(
                step.command, env=step.env, folder=folder, cwd=step.cwd, grace=self._kill_grace_seconds
            )
        except ValueError as error:
            raise InvalidArgumentError(
                f"{step.name}: its command or environment is invalid: {error}. Nothing was started"
            ) from error
        except OSError as error:
            raise _start_error(step, error.errno or 0) from error

    def _judge(self, step: _Step, process: GuardedProcess, output: OutputLog, log: TaskLog) -> None:
        start_error, exit_code = process.report("error"), process.report("exit")
        if self._is_cancelled:
            message = f"{step.name} was cancelled and stopped with everything it had started"
            code = -signal.SIGTERM if exit_code is None else exit_code
            raise WorkloadFailedError(message + _tail_text(output), code, output.tail)
        if start_error is not None:
            raise _start_error(step, start_error)
        if exit_code is None:
            process.kill_group()
            raise WorkloadError(
                f"{step.name}: its supervisor exited without reporting a result (was it killed?), so it is not known "
                f"how the workload ended; its process group was killed. A retry starts it again{_tail_text(output)}"
            )
        if exit_code != 0:
            message = f"{step.name} {_ending(exit_code)}{_tail_text(output)}"
            if step.is_checkout and exit_code == EXIT_REFUSED:
                raise SourceError(message)
            raise WorkloadFailedError(message, exit_code, output.tail)
        left = process.report("left")
        if left is not None:
            log.warning(
                "%s ended, but %d process(es) that it had started were still running; they were stopped",
                *(step.name, left),
            )


@dataclass(frozen=True)
class _Step:
    """One process of a workload: the fetch of its code, or its command."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    is_checkout: bool
    workload: Workload


def _steps(workload: Workload, python: str, folder: Path, paths: Mapping[str, str]) -> Iterator[_Step]:
    """Yield the processes of a workload in their order."""
    env, cwd = {**child_environment(os.environ, python), **workload.env}, folder / "work"
    name = f"workload {workload.name!r}"
    if workload.folder:
        cwd = Path(workload.folder)
    if workload.source is not None:
        place = folder / "source"
        place.mkdir(mode=0o700)
        env |= workload.source.environment(str(place))
        fetch = (python, *CHECKOUT_ARGUMENTS)
        yield _Step(
            f"step 'checkout' of workload {workload.name!r}",
            fetch,
            {**env, **workload.source.secret_env},
            cwd,
            True,
            workload,
        )
        cwd = Path(workload.source.working_folder(str(place)) or cwd)
    yield _Step(name, workload.command, {**env, **workload.secret_env, **paths}, cwd, False, workload)


def missing_modules(python: str, names: Sequence[str]) -> list[str]:
    """Return the modules that an interpreter cannot import; none of them is imported.

    :param python: path or name of the interpreter.
    :param names: top-level modules.
    :raises InvalidArgumentError: when it cannot be started.
    """
    if python == sys.executable:
        return [name for name in names if importlib.util.find_spec(name) is None]
    try:
        done = subprocess.run(
            [python, "-P", "-c", _FIND_MODULES, *names],
            env=child_environment(os.environ, python),
            capture_output=True,
            text=True,
            timeout=_FIND_SECONDS,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InvalidArgumentError(
            f"python must be a Python interpreter of version 3.11 or newer; got {python!r}, which could not list its "
            f"modules: {error}. Nothing was started"
        ) from None
    return done.stdout.split()


def child_environment(environ: Mapping[str, str], python: str = sys.executable) -> dict[str, str]:
    """Return what a workload inherits from the environment of the task process.

    :param environ: environment of the task process.
    :param python: interpreter of the work plane.
    :return: the same without the variables of Airflow and MLflow, with ``PYTHONUNBUFFERED=1``, and with the folder of
        the interpreter first in ``PATH``, so that ``python`` is the one with MLflow.
    """
    kept = {name: value for name, value in environ.items() if not name.lstrip("_").startswith(_WITHHELD_PREFIXES)}
    path = os.pathsep.join(filter(None, (_folder_of(python), kept.get("PATH", os.defpath))))
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _folder_of(python: str) -> str:
    """Return the folder of an interpreter; empty for a bare name, which ``PATH`` resolves as it is."""
    return str(Path(python).parent) if os.sep in python else ""


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
        problems.append(f"command must name a program; got {workload.command!r}")
    if workload.timeout is not None and not (math.isfinite(workload.timeout) and workload.timeout > 0):
        problems.append(f"timeout must be a number of seconds above 0; got {workload.timeout!r}")
    names = [file.name for file in workload.files]
    problems += [f"files must have names without a folder; got {name!r}" for name in names if not _is_file_name(name)]
    problems += [f"files: {name!r} appears twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise InvalidArgumentError(f"workload {workload.name!r} cannot run: {'; '.join(problems)}. Nothing was started")


def _discard(_data: bytes) -> None:
    """Drop output that can no longer be logged."""


def _is_file_name(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and not any(character in name for character in "/\\\0")


def _start_error(step: _Step, number: int) -> InvalidArgumentError | WorkloadError:
    reason = os.strerror(number)
    if number in _PASSING_ERRORS:
        return WorkloadError(f"{step.name} could not be started: {reason}. A retry may succeed")
    return InvalidArgumentError(
        f"{step.name}: its command {step.command[0]!r} cannot be started: {reason}. Nothing has run. Name a program in "
        "PATH or an absolute path; the command runs in its own folder"
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
    return "\nIts last lines:\n" + "\n".join(lines) if lines else ". It printed nothing"
