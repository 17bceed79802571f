"""The interface of workload backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload


class WorkloadBackend(ABC):
    """Runs one workload to its end. One object serves one task try."""

    python: str
    """The Python interpreter, as commands of workloads name it."""
    ships_files: bool
    """Whether scripts are sent along with the workload, because it does not see the files of this machine."""
    image_digest: str = ""
    """Digest of the image that the workload ran in, ``sha256:<hex>``; empty when none has run."""

    def require_modules(self, *names: str) -> None:  # noqa: B027  (only a local interpreter can be asked)
        """Check that the interpreter can import what built-in steps need, before anything is created for them.

        :param names: modules.
        :raises InvalidArgumentError: when it is known to lack one.
        """

    def holds(self, identity: str, *, context: Context) -> bool:
        """Return whether an earlier try left work that is running or ended well, so that :meth:`run` attaches to it.

        :param identity: fingerprint of the work.
        :param context: context of the task.
        """
        return False

    def forget(self, identity: str, *, context: Context, log: TaskLog) -> None:  # noqa: B027  (most keep nothing)
        """Remove what an earlier try left of work that is done; its result stays.

        :param identity: fingerprint of the work.
        :param context: context of the task.
        :param log: receives the rest of its output.
        """

    @abstractmethod
    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Run the workload and return when it ended well.

        A backend that waits without a worker slot may raise Airflow's ``TaskDeferred`` instead; :meth:`resume` then
        continues in another process.

        :param workload: what to run.
        :param log: receives the workload's output, line by line.
        :param context: context of the task; required by the Kubernetes backend.
        :raises InvalidArgumentError: when the workload cannot be started; nothing has run.
        :raises WorkloadFailedError: when it ended with a non-zero exit code, by a signal or by :meth:`cancel`.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Stop what :meth:`run` started, and prevent it from starting anything else.

        Returns at once; may be called any number of times, from a signal handler or another thread.
        """

    @abstractmethod
    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> None:
        """Continue after a deferral; ends like :meth:`run`.

        :param workload: the workload that :meth:`run` was given.
        :param event: the trigger's event.
        :param log: receives the workload's output, line by line.
        :param context: context of the task.
        :raises InvalidArgumentError: when this backend never defers.
        """
