"""The pod operator of the Kubernetes backend. Importing this module takes seconds: see kubernetes.py."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.callbacks import ExecutionMode
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.container import container_is_running
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodPhase
from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout
from kubernetes.client import models
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from airflow_mcp.airflow_private import incluster_namespace
from airflow_mcp.core.workload.pod import CONTAINER, LABEL_IDENTITY, LABEL_RANK
from airflow_mcp.core.workload.pod_ending import ended_well, has_ended, read_ending
from airflow_mcp.core.workload.replicas import group_size
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    WorkloadError,
    WorkloadLostError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.kubernetes_companions import create_companions, delete_companions, own_companions
from airflow_mcp.workloads.kubernetes_errors import API_ERRORS, pod_failure, refused_pod, with_output
from airflow_mcp.workloads.kubernetes_group import delete_followers, failures_of, plain, read_pod
from airflow_mcp.workloads.kubernetes_log import FreshLines, LastLines, last_lines, new_lines

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.workload.definition import Workload


class WorkloadPodManager(PodManager):
    """Copies each log line once, and knows that nothing runs in a pod that has ended.

    Kubernetes may still list a container as running after its log, or its pod, has ended.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._read: defaultdict[str, dict[bytes, None]] = defaultdict(dict)

    def read_pod_logs(self, pod: models.V1Pod, container_name: str, **kwargs: Any) -> FreshLines:
        """Read the log of a container, without the lines that were read before."""
        log = super().read_pod_logs(pod, container_name, **kwargs)
        return FreshLines(log, self._read[container_name])

    def delete_pod(self, pod: models.V1Pod) -> None:
        """Delete a pod and the other ranks of its training."""
        delete_followers(self._client, pod)
        super().delete_pod(pod)

    def container_is_running(self, pod: models.V1Pod, container_name: str) -> bool:
        """Return whether a container runs."""
        current = self.read_pod(pod)
        return not has_ended(plain(current)) and container_is_running(current, container_name)


class WorkloadPodOperator(KubernetesPodOperator):
    """A pod operator that attaches by the identity of the work, and reports precisely how a pod ended."""

    workload: Workload | None = None
    replicas: int = 1
    """How many pods the work must have; a group of another size is not attached to."""
    _unfinished: tuple[models.V1Pod, models.V1Pod] | None = None
    """The pod as it was requested, and as it was last seen, that :meth:`finish` is still to be called for."""

    def __init__(self, *, callbacks: Any = None, **kwargs: Any) -> None:
        self.seen = LastLines()
        self.image_digest = ""
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        super().__init__(callbacks=[self.seen, *given], **kwargs)  # type: ignore[list-item]  # an instance serves too

    @cached_property
    def pod_manager(self) -> PodManager:
        """The client that follows pods and their logs."""
        return WorkloadPodManager(kube_client=self.client, callbacks=self.callbacks)

    def get_or_create_pod(self, pod_request_obj: models.V1Pod, context: Context) -> models.V1Pod:
        """Attach to the pod of an earlier try that is running or ended well; otherwise create one."""
        if self.workload is None:
            raise InvalidArgumentError("this pod operator has no workload")
        for pod in find_workload_pod(self, self.workload.labels["identity"]):
            if is_usable(self, pod):
                self.log.info("Attaching to pod %s, which an earlier try of this task started", pod.metadata.name)
                return pod
            self.log.info("Removing pod %s of an earlier try (%s)", pod.metadata.name, pod.status.phase)
            self.pod_manager.delete_pod(pod)
        companions = create_companions(self.client, self.workload, pod_request_obj)
        try:
            created = self.pod_manager.create_pod(pod=pod_request_obj)
        except ApiException as error:
            delete_companions(self.client, companions, pod_request_obj, self.log)
            raise refused_pod(pod_request_obj, error) from error
        own_companions(self.client, companions, created)
        return created

    @generic_api_retry  # type: ignore[untyped-decorator]  # Airflow's
    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> models.V1Pod | None:
        """Find the pod by its name, which this operator knows."""
        name: str = self.pod.metadata.name if self.pod else self.name  # type: ignore[assignment]  # every pod is named
        return read_pod(self.client, name, namespace)

    def is_istio_enabled(self, pod: models.V1Pod) -> bool:
        """Return whether containers may outlive the workload: then the end of its own container ends the wait."""
        return bool(pod) and len(pod.spec.containers) > 1

    def execute_sync(self, context: Context) -> Any:
        """Start the pod and follow it to its end."""
        with self._finished(context):
            return super().execute_sync(context)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Resume after a deferral; report a pod that is gone, or whose time was up, as such."""
        self.seen.lines.extend(event.get("last_lines", ()))
        try:
            with self._finished(context):
                return super().trigger_reentry(context, event)
        except (AirflowException, WorkloadError) as error:
            if self.pod is None:  # it was gone already, or vanished while its end was awaited
                raise self._lost(event["name"]) from error
            if event["status"] != "timeout" or time.time() < event.get("_execution_deadline", math.inf):
                raise
            late = f"pod {event['name']} had not ended when the execution_timeout of its task was over; it was deleted"
            raise WorkloadTimeoutError(with_output(late, tuple(self.seen.lines))) from error

    def post_complete_action(
        self, *, pod: models.V1Pod, remote_pod: models.V1Pod, context: Context, result: Any, **kwargs: Any
    ) -> None:
        """Leave the pod to :meth:`finish`: the parent calls this without the error that ended the wait."""
        self._unfinished = (pod, remote_pod)

    @contextmanager
    def _finished(self, context: Context) -> Iterator[None]:
        """Finish the pod after the wait for it, and call the callbacks of the parent's ``post_complete_action``."""
        reason: BaseException | None = None
        try:
            yield
        except BaseException as error:
            reason = error
            raise
        finally:
            if self._unfinished is not None:
                (pod, remote_pod), self._unfinished = self._unfinished, None
                self.finish(remote_pod, reason, context)
                about = {"client": self.client, "mode": ExecutionMode.SYNC, "operator": self, "context": context}
                for callback in self.callbacks:
                    callback.on_pod_cleanup(pod=pod, **about)

    def finish(self, remote_pod: models.V1Pod | None, reason: BaseException | None, context: Context) -> None:
        """Read how the pod ended and its last lines, remove it as ``on_finish`` says, and raise if it failed.

        :param remote_pod: the pod as it was last seen; None when none was created.
        :param reason: the error that ended the wait; None when the wait ended by itself.
        :param context: context of the task.
        """
        if self._killed or remote_pod is None:
            return
        current = self.find_pod(remote_pod.metadata.namespace, context)
        state = plain(current or remote_pod)
        ending = read_ending(state)
        self.image_digest = ending.image_digest
        if current is None:
            gone = f"pod {remote_pod.metadata.name} was deleted while it ran"
            raise WorkloadLostError(with_output(gone, tuple(self.seen.lines)))
        is_late = isinstance(reason, AirflowTaskTimeout) and _is_pending(current)
        if is_late or _is_running(current):
            self._stop_waiting(current, reason)
            return
        failed = not ended_well(state)
        where = (current.metadata.name, current.metadata.namespace, ending.container)
        lines = self.last_lines(*where) if failed else ()
        self.remove(current)
        if failed:
            raise pod_failure(ending, lines or tuple(self.seen.lines))

    def process_pod_deletion(self, pod: models.V1Pod, *, reraise: bool = True) -> bool:
        """Remove the pod as ``on_finish`` says; if it stays, remove the other ranks that still run."""
        is_removed = bool(super().process_pod_deletion(pod, reraise=reraise))
        if not is_removed and pod is not None:
            try:
                delete_followers(self.client, pod, only_at_work=True)
            except API_ERRORS as error:
                self.log.warning("Pods that belong to %s may be left: %s", pod.metadata.name, error)
        return is_removed

    def forget(self, pod: models.V1Pod) -> None:
        """Copy the log of a pod whose work is done to the task log, and remove the pod as ``on_finish`` says."""
        self.copy_log(pod)
        if _is_running(pod):
            self.pod_manager.delete_pod(pod)
        else:
            self.remove(pod)

    def remove(self, pod: models.V1Pod) -> None:
        """Remove a pod as ``on_finish`` says; always if it has not started, since nobody would wait for it."""
        if _is_pending(pod):
            self.pod_manager.delete_pod(pod)
        else:
            self.process_pod_deletion(pod, reraise=False)

    def copy_log(self, pod: models.V1Pod) -> None:
        """Copy the log of a pod so far to the task log."""
        try:
            self._write_logs(pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("The log of pod %s cannot be read: %s", pod.metadata.name, type(error).__name__)

    def _stop_waiting(self, pod: models.V1Pod, error: BaseException | None) -> None:
        """Leave a running pod alone if Kubernetes did not answer; delete it if the task's time is up."""
        if isinstance(error, API_ERRORS):
            self.log.warning("Pod %s keeps running; a retry attaches to it", pod.metadata.name)
            return
        self.log.info("Deleting pod %s, which has not ended", pod.metadata.name)
        self.pod_manager.delete_pod(pod)

    def _write_logs(  # the parent's is wrapped in a retry that would repeat lines
        self, pod: models.V1Pod, follow: bool = False, since_time: object = None
    ) -> None:
        """Copy to the task log what the triggerer has not copied; lines that are written later are not awaited."""
        for line in new_lines(self.client, pod):
            self.seen.lines.append(line)
            self.log.info("%s", line)

    def last_lines(self, name: str, namespace: str, container: str = CONTAINER) -> tuple[str, ...]:
        """Read the last lines of a pod's log; return none when it cannot be read."""
        return last_lines(self.client, name, namespace, container)

    def _lost(self, name: str) -> WorkloadLostError:
        gone = f"pod {name} is gone: deleted, or lost with its node"
        return WorkloadLostError(with_output(gone, tuple(self.seen.lines)))


def find_workload_pod(operator: WorkloadPodOperator, identity: str) -> list[models.V1Pod]:
    """Return the pods of a piece of work that are not being deleted, newest first; of a group only rank 0."""
    namespace = namespace_of(operator)
    found = operator.client.list_namespaced_pod(namespace, label_selector=f"{LABEL_IDENTITY}={identity}").items
    leaders = [pod for pod in found if pod.metadata.labels.get(LABEL_RANK, "0") == "0"]
    alive = [pod for pod in leaders if pod.metadata.deletion_timestamp is None]
    return sorted(alive, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)


def is_usable(operator: WorkloadPodOperator, pod: models.V1Pod) -> bool:
    """Return whether a pod is running or ended well, and with it a whole group of the size that is asked for."""
    state = plain(pod)
    is_sound = ended_well(state) or not has_ended(state)
    return is_sound and group_size(state) == operator.replicas and not failures_of(operator.client, pod)


def _is_pending(pod: models.V1Pod) -> bool:
    return pod.status.phase == PodPhase.PENDING and not has_ended(plain(pod))


def _is_running(pod: models.V1Pod) -> bool:
    is_deleted = pod.metadata.deletion_timestamp is not None
    return pod.status.phase == PodPhase.RUNNING and not is_deleted and not has_ended(plain(pod))


def namespace_of(operator: WorkloadPodOperator) -> str:
    """Return the namespace of an operator's pods."""
    return operator.namespace or operator.hook.get_namespace() or incluster_namespace(operator) or "default"
