"""Runs a workload as a pod; imports the Kubernetes libraries only when a pod starts, resumes or ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk.exceptions import TaskDeferred

from airflow_mcp.core.contract import ENV_RUN_ID
from airflow_mcp.core.workload.pod import pod_name
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.replicas import ANNOTATION_REPLICAS
from airflow_mcp.exceptions import FailedError, InvalidArgumentError, WorkloadFailedError
from airflow_mcp.workloads.base import WorkloadBackend

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload
    from airflow_mcp.workloads.kubernetes_pod import WorkloadPodOperator


class KubernetesBackend(WorkloadBackend):
    """Runs ``workload.command`` in a pod and, by default, waits for it without a worker slot.

    The pod has the identity of its work as a label. A retry attaches to the pod of an earlier try that is running or
    ended well, and otherwise creates one.

    :param options: options of pods.
    :param mlflow_conn_id: connection for the triggerer to close the MLflow run with, when a person ends the task.
    """

    python = "python"
    ships_files = True

    def __init__(self, options: PodOptions, *, mlflow_conn_id: str) -> None:
        self._options = options
        self._mlflow_conn_id = mlflow_conn_id
        self._pod: WorkloadPodOperator | None = None
        self._is_cancelled = False

    def run(self, workload: Workload, *, log: TaskLog, context: Context | None = None) -> None:
        """Start a pod, or attach to that of an earlier try.

        :raises TaskDeferred: when the pod runs and ``deferrable`` is set.
        :raises WorkloadFailedError: when the pod failed; with pod, exit code, reason and last lines.
        :raises WorkloadTimeoutError: when it ran longer than ``workload.timeout`` seconds.
        :raises WorkloadLostError: when it vanished.
        :raises ClusterUnreachableError: when Kubernetes does not answer.
        """
        known = required_context(context)
        pod = self._operator(workload, known)
        self._guarded(workload, lambda: pod.execute_async(known) if pod.deferrable else pod.execute_sync(known))

    def resume(
        self, workload: Workload, event: Mapping[str, Any], *, log: TaskLog, context: Context | None = None
    ) -> None:
        """Continue after the triggerer: read the rest of the log and how the pod ended, and remove it."""
        known = required_context(context)
        pod = self._operator(workload, known, is_group="failed_rank" in event)
        self._guarded(workload, lambda: pod.trigger_reentry(known, dict(event)))

    def holds(self, identity: str, *, context: Context) -> bool:
        """Return whether a pod of an earlier try at the same work is running or ended well.

        Other pods are removed first: in a group that lost a rank, rank 0 may still run, and it must not finish a run
        that is closed next.
        """
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_pod import find_workload_pod, is_usable  # noqa: PLC0415

        with translated_errors(lambda: "the pod of an earlier try"):
            probe = self._bare_operator(context)
            for pod in find_workload_pod(probe, identity):
                if is_usable(probe, pod):
                    return True
                probe.pod_manager.delete_pod(pod)
        return False

    def forget(self, identity: str, *, context: Context, log: TaskLog) -> None:
        """Copy the logs of finished pods to the task log, and remove the pods as ``on_finish`` says."""
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_pod import find_workload_pod  # noqa: PLC0415

        try:
            with translated_errors(lambda: "the pod of an earlier try"):
                probe = self._bare_operator(context)
                for pod in find_workload_pod(probe, identity):
                    probe.forget(pod)
        except FailedError as error:
            log.warning("The work is done, but its pod may be left over: %s", error)

    def cancel(self) -> None:
        """Delete the pod."""
        self._is_cancelled = True
        if self._pod is not None:
            self._pod.on_kill()

    def _guarded(self, workload: Workload, act: Callable[[], object]) -> None:
        """Act; replace the trigger of a deferral by our own, and translate errors of the Kubernetes clients."""
        from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415

        try:
            with translated_errors(lambda: self._named(workload)):
                act()
        except TaskDeferred as deferred:
            raise self._deferral(workload, deferred) from None
        finally:
            self.image_digest = self._pod.image_digest if self._pod is not None else ""
            self._pod = None
        if self._is_cancelled:
            raise WorkloadFailedError(f"workload {workload.name!r} was cancelled and its pod deleted", -15)

    def _named(self, workload: Workload) -> str:
        started = self._pod.pod if self._pod is not None else None
        return f"pod {started.metadata.name}" if started else f"the pod of {workload.name!r}"

    def _deferral(self, workload: Workload, deferred: TaskDeferred) -> TaskDeferred:
        from airflow_mcp.triggers.pod import WorkloadPodTrigger  # noqa: PLC0415
        from airflow_mcp.triggers.replicas import ReplicasTrigger  # noqa: PLC0415

        _, arguments = deferred.trigger.serialize()
        arguments |= {
            "mlflow_conn_id": self._mlflow_conn_id,
            "mlflow_run_id": workload.env.get(ENV_RUN_ID, "") if workload.owns_run else "",
        }
        started = self._pod.pod if self._pod is not None else None
        replicas = int((started.metadata.annotations or {}).get(ANNOTATION_REPLICAS, "1")) if started else 1
        trigger = ReplicasTrigger(replicas=replicas, **arguments) if replicas > 1 else WorkloadPodTrigger(**arguments)
        return TaskDeferred(trigger=trigger, method_name=deferred.method_name, timeout=deferred.timeout)

    def _operator(self, workload: Workload, context: Context, *, is_group: bool = False) -> WorkloadPodOperator:
        """Build the pod operator; a running group stays a group, even if the option has changed since."""
        from airflow_mcp.workloads.kubernetes_arguments import workload_pod_operator  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_pod import WorkloadPodOperator  # noqa: PLC0415
        from airflow_mcp.workloads.kubernetes_replicas import ReplicatedPodOperator  # noqa: PLC0415

        kind = ReplicatedPodOperator if is_group or self._options.replicas > 1 else WorkloadPodOperator
        name = pod_name(workload.name, workload.labels["identity"], context["ti"].try_number)
        self._pod = workload_pod_operator(
            workload, self._options, name=name, task=cast("BaseOperator", context["task"]), kind=kind
        )
        return self._pod

    def _bare_operator(self, context: Context) -> WorkloadPodOperator:
        from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator  # noqa: PLC0415

        return bare_pod_operator(self._options, task=cast("BaseOperator", context["task"]))


def required_context(context: Context | None) -> Context:
    """Return the context of a task, which pods need.

    :raises InvalidArgumentError: when there is none.
    """
    if context is None:
        raise InvalidArgumentError("runtime='kubernetes' needs the context of a task: nothing was started")
    return context
