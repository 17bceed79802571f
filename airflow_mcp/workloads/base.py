"""What every workload backend offers to the operators."""

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
    """The Python interpreter, as a workload calls it."""
    ships_files: bool
    """Whether a script has to travel with the workload because it runs where this machine's files are not."""
    image_digest: str = ""
    """Digest of the image that the workload ran in, ``sha256:<hex>``; empty while, or where, there is none."""

    def holds(self, identity: str, *, context: Context) -> bool:
        """Whether the work of an earlier try is still under way, or has ended well, and :meth:`run` would take it up.

        :param identity: name of the piece of work.
        :param context: context of the task.
        """
        return False

    def forget(self, identity: str, *, context: Context, log: TaskLog) -> None:  # noqa: B027  (most keep nothing)
        """Remove what an earlier try left behind of work that is done; its result stays.

        :param identity: name of the piece of work.
        :param context: context of the task.
        :param log: receives what is left of its output.
        """

    @abstractmethod
    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Run the workload and return when it ended well.

        A backend that waits without a worker slot may raise Airflow's ``TaskDeferred`` instead;
        :meth:`resume` then takes over in another process.

        :param workload: what to run.
        :param log: receives the workload's output, line by line.
        :param context: context of the task; backends that reach beyond this machine need it.
        :raises InvalidArgumentError: when the workload cannot be started at all; nothing has run.
        :raises WorkloadFailedError: when it ended with a non-zero exit code, by a signal or by :meth:`cancel`.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Stop what :meth:`run` started, and whatever it still would start.

        Returns at once; may be called any number of times, from a signal handler or another thread.
        """

    @abstractmethod
    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> None:
        """Go on after a deferral; ends like :meth:`run`.

        :param workload: the workload that :meth:`run` was given.
        :param event: the trigger's event.
        :param log: receives the workload's output, line by line.
        :param context: context of the task.
        :raises InvalidArgumentError: when this backend never defers.
        """
