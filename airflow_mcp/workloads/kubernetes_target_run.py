"""Creates, follows and ends the object that a training runs as. Importing this module takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferred
from kubernetes.client import models
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from airflow_mcp.core.contract import ENV_RUN_ID
from airflow_mcp.core.workload.pod import CONTAINER
from airflow_mcp.core.workload.pod_ending import read_ending
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.replicas import StartLimits, group_size
from airflow_mcp.core.workload.target_state import (
    Look,
    as_workload_pod,
    failed_endings,
    leading_pod,
    look,
    read_state,
)
from airflow_mcp.core.workload.targets import object_name, target_manifest, with_entrypoint
from airflow_mcp.exceptions import (
    SourceError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadLostError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.kubernetes_errors import pod_failure, with_output
from airflow_mcp.workloads.kubernetes_group import plain
from airflow_mcp.workloads.kubernetes_log import copied_lines, last_lines, new_lines
from airflow_mcp.workloads.kubernetes_objects import TargetObjects
from airflow_mcp.workloads.kubernetes_pod import WorkloadPodOperator, namespace_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload


class TargetRun:
    """One training that runs as an object of Kubernetes, for one task try.

    :param probe: a pod operator for its connection; it starts nothing.
    :param options: options of the pods; ``target`` is not ``pods``.
    :param log: log of the task.
    """

    def __init__(self, probe: WorkloadPodOperator, options: PodOptions, log: TaskLog) -> None:
        self._probe, self._options, self._log = probe, options, log
        self._objects = TargetObjects(probe.client, namespace_of(probe), options.target)
        self._container = self._objects.kind.container
        self._cancelled = threading.Event()
        self.name = ""
        self.image_digest = ""

    @property
    def is_cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Delete the object, and prevent the creation of another."""
        self._cancelled.set()
        if self.name:
            self._objects.delete(self.name)

    def start(self, workload: Workload, try_number: int) -> None:
        """Attach to the object of an earlier try, or create one.

        :param workload: what runs.
        :param try_number: try of the task.
        :raises InvalidArgumentError: when the cluster cannot run it; nothing was created.
        """
        complete = with_entrypoint(workload, self._options)
        identity = workload.labels["identity"]
        name, run_id = object_name(workload.name, identity, try_number), workload.env.get(ENV_RUN_ID, "")
        manifest = target_manifest(complete, self._options, name=name, run_id=run_id)
        found = self.usable(identity)
        if found is not None:
            self.name = found["metadata"]["name"]
            self._log.info("Attaching to %s, which an earlier try of this task started", self._named)
            self._objects.complete(found, self._options)
        elif not self.is_cancelled:
            self.name = name
            self._objects.create(complete, manifest, self._options, self._log)
            self._log.info("Created %s in namespace %s", self._named, self._objects.namespace)
        if self.is_cancelled and self.name:  # while it was being created
            self._objects.delete(self.name)

    def usable(self, identity: str) -> dict[str, Any] | None:
        """Return the newest object of a piece of work that has not failed; delete the others."""
        usable = None
        for found in self._objects.of_identity(identity):
            is_sound = read_state(self._options.target, found).phase != "failed"
            if usable is None and is_sound and group_size(found) == self._options.replicas:
                usable = found
            else:
                self._objects.delete(found["metadata"]["name"])
        return usable

    def forget(self, identity: str) -> None:
        """Copy the logs of what an earlier try left of work that is done, and remove it as ``on_finish`` says."""
        for found in self._objects.of_identity(identity):
            self.name = found["metadata"]["name"]
            self._copy_rest(self._objects.pods(self.name))
            self._remove(has_succeeded=True)

    def deferral(self, workload: Workload, context: Context, mlflow_conn_id: str) -> TaskDeferred:
        """Return the deferral, with the connection and the time limit that a single pod's would have.

        :param workload: what runs.
        :param context: context of the task.
        :param mlflow_conn_id: connection to close the run with, when a person ends the task.
        """
        from airflow_mcp.triggers.target import TargetTrigger  # noqa: PLC0415

        where = models.V1ObjectMeta(name=self.name, namespace=self._objects.namespace)
        self._probe.pod = models.V1Pod(metadata=where)
        try:
            self._probe.invoke_defer_method(context=context)
        except TaskDeferred as deferred:
            _, arguments = deferred.trigger.serialize()
            arguments |= {
                "base_container_name": self._container,
                "mlflow_conn_id": mlflow_conn_id,
                "mlflow_run_id": workload.env.get(ENV_RUN_ID, "") if workload.owns_run else "",
                "target": self._options.target,
            }
            trigger = TargetTrigger(**arguments)
            return TaskDeferred(trigger=trigger, method_name=deferred.method_name, timeout=deferred.timeout)
        raise TypeError("KubernetesPodOperator.invoke_defer_method() has not deferred")

    def wait(self) -> Look:
        """Look at the object until it has ended; log when its state changes, and copy its output."""
        said = ""
        try:
            while True:
                pods = self._objects.pods(self.name)
                seen = self._look(pods)
                if seen.standing != "waiting" or self.is_cancelled:
                    return seen
                if seen.says != said:
                    said = seen.says
                    self._log.info("%s", said)
                self._copy_new(pods)
                self._cancelled.wait(self._options.poll_interval)
        except AirflowTaskTimeout:
            self._objects.delete(self.name)
            raise

    def finish_after(self, event: Mapping[str, Any]) -> None:
        """Finish after the triggerer has waited.

        :param event: its event.
        """
        self.name = event["name"]
        message, lines = str(event["message"]), tuple(event.get("last_lines", ()))
        if event["status"] == "timeout":
            self._objects.delete(self.name)
            raise WorkloadTimeoutError(with_output(message, lines))
        self.finish(Look(event["status"], message), lines)

    def finish(self, seen: Look, lines: tuple[str, ...] = ()) -> None:
        """Copy the rest of the log, remove the object as ``on_finish`` says, and raise if the training failed.

        :param seen: how it ended.
        :param lines: the last lines that were copied before.
        """
        if self.is_cancelled:
            raise WorkloadFailedError(f"{self._named} was deleted because its task was cancelled", -15)
        pods = self._objects.pods(self.name)
        lines += self._copy_rest(pods)
        leader = self._leader(pods)
        if leader is not None:
            self.image_digest = read_ending(as_workload_pod(self._options.target, plain(leader))).image_digest
        if seen.standing == "gone":
            raise WorkloadLostError(with_output(f"{self._named} is gone: {seen.says}", lines))
        failure = None if seen.standing == "success" else self._failure(pods, seen, lines)
        self._remove(has_succeeded=failure is None)
        if failure is not None:
            raise failure

    @property
    def _named(self) -> str:
        return f"{self._objects.kind.kind} {self.name}"

    def _look(self, pods: Sequence[models.V1Pod]) -> Look:
        options = self._options
        limits = StartLimits(schedule=options.schedule_timeout, startup=options.startup_timeout)
        found, now = self._objects.find(self.name), datetime.now(UTC)
        return look(options.target, found, [plain(pod) for pod in pods], now=now, limits=limits)

    def _failure(self, pods: Sequence[models.V1Pod], seen: Look, lines: tuple[str, ...]) -> WorkloadError | SourceError:
        """Return the error of a training that failed, with the pod that failed first."""
        target, found = self._options.target, self._objects.find(self.name)
        if found is not None and read_state(target, found).is_timeout:
            return WorkloadTimeoutError(with_output(f"{seen.says}: it ran longer than workload_timeout", lines))
        endings = failed_endings(target, [plain(pod) for pod in pods])
        if not endings:
            return WorkloadFailedError(with_output(seen.says, lines), -1, lines)
        first = endings[0]
        container = self._container if first.container == CONTAINER else first.container
        said = last_lines(self._objects.core, first.name, self._objects.namespace, container)
        return pod_failure(first, said or lines, f"{seen.says}. Its first failure: {first.describe()}")

    def _remove(self, *, has_succeeded: bool) -> None:
        """Remove the object as ``on_finish`` says; always if it has not ended, since nobody would wait for it."""
        found, rule = self._objects.find(self.name), self._options.on_finish
        if found is None:
            return
        has_ended = read_state(self._options.target, found).phase in ("succeeded", "failed")
        is_kept = rule == "keep" or (rule == "keep_failed" and not has_succeeded)
        if not (has_ended and is_kept):
            self._objects.delete(self.name)

    def _leader(self, pods: Sequence[models.V1Pod]) -> models.V1Pod | None:
        """Return the pod whose output is the log of the task."""
        leader = leading_pod([plain(pod) for pod in pods])
        return next((pod for pod in pods if leader and pod.metadata.name == leader["metadata"]["name"]), None)

    def _copy_new(self, pods: Sequence[models.V1Pod]) -> None:
        leader = self._leader(pods)
        if leader is not None and leader.status.phase == "Running":
            for line in copied_lines(self._objects.core, leader, self._container):
                self._log.info("%s", line)

    def _copy_rest(self, pods: Sequence[models.V1Pod]) -> tuple[str, ...]:
        """Copy to the task log what nobody has copied, and return it."""
        leader, copied = self._leader(pods), []
        if leader is None:
            return ()
        try:
            for line in new_lines(self._objects.core, leader, self._container):
                copied.append(line)
                self._log.info("%s", line)
        except (ApiException, HTTPError) as error:
            self._log.warning("The log of pod %s cannot be read: %s", leader.metadata.name, type(error).__name__)
        return tuple(copied)
