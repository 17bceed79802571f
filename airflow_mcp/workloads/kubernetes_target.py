"""Runs a training as a Job, a TrainJob or a RayJob; imports the Kubernetes libraries only when it starts or ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.targets import TARGETS
from airflow_mcp.exceptions import ClusterUnreachableError, FailedError
from airflow_mcp.workloads.base import WorkloadBackend
from airflow_mcp.workloads.kubernetes import required_context

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload
    from airflow_mcp.workloads.kubernetes_target_run import TargetRun


class TargetBackend(WorkloadBackend):
    """Runs a training as one object of Kubernetes and, by default, waits for it without a worker slot.

    The object has the identity of the work as a label. A retry attaches to the object of an earlier try that is
    running, queued or ended well, and otherwise creates one.

    :param options: options of its pods; ``target`` is not ``pods``.
    :param mlflow_conn_id: connection for the triggerer to close the MLflow run with, when a person ends the task.
    """

    python = "python"
    ships_files = True

    def __init__(self, options: PodOptions, *, mlflow_conn_id: str) -> None:
        self._options = options
        self._mlflow_conn_id = mlflow_conn_id
        self._kind = TARGETS[options.target].kind
        self._run: TargetRun | None = None
        self._is_cancelled = False

    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Create the object, or attach to that of an earlier try.

        :raises TaskDeferred: when it was created and ``deferrable`` is set.
        :raises WorkloadFailedError: when it failed; with the pod that failed first, its exit code and last lines.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        :raises WorkloadLostError: when it was deleted.
        :raises ClusterUnreachableError: when Kubernetes does not answer.
        """
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415

        known = required_context(context)
        with translated_errors(self._named):
            run = self._connected(known, log)
            run.start(workload, known["ti"].try_number)
            try:
                if self._options.deferrable and not run.is_cancelled:
                    raise run.deferral(workload, known, self._mlflow_conn_id)
                run.finish(run.wait())
            finally:
                self.image_digest = run.image_digest

    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> None:
        """Continue after the triggerer: read the rest of the log and how the training ended, and remove the object."""
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415

        known = required_context(context)
        if event["status"] == "error":
            raise ClusterUnreachableError(f"{event['message']}. A retry attaches to {self._kind} {event['name']} again")
        with translated_errors(self._named):
            run = self._connected(known, log)
            try:
                run.finish_after(event)
            finally:
                self.image_digest = run.image_digest

    def holds(self, identity: str, *, context: Context) -> bool:
        """Return whether an object of an earlier try at the same work is running, queued or ended well.

        Others are deleted first: their rank 0 may still run, and it must not finish a run that is closed next.
        """
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415

        with translated_errors(self._named):
            return self._connected(context).usable(identity) is not None

    def forget(self, identity: str, *, context: Context, log: TaskLog) -> None:
        """Copy the logs of finished objects to the task log, and remove the objects as ``on_finish`` says."""
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415

        try:
            with translated_errors(self._named):
                self._connected(context, log).forget(identity)
        except FailedError as error:
            log.warning("The work is done, but its %s may be left over: %s", self._kind, error)

    def cancel(self) -> None:
        """Delete the object, and with it its pods."""
        self._is_cancelled = True
        if self._run is not None:
            self._run.cancel()

    def _named(self) -> str:
        return f"{self._kind} {self._run.name if self._run is not None else ''}".strip()

    def _connected(self, context: Context, log: TaskLog | None = None) -> TargetRun:
        from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_target_run import TargetRun  # noqa: PLC0415

        probe = bare_pod_operator(self._options, task=cast("BaseOperator", context["task"]))
        self._run = TargetRun(probe, self._options, log or probe.log)
        if self._is_cancelled:
            self._run.cancel()
        return self._run
