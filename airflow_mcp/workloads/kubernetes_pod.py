"""The pod operator that the Kubernetes backend composes. Importing this module costs seconds: see kubernetes.py."""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.exceptions import KubernetesApiError
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import KubernetesApiException, generic_api_retry
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.cncf.kubernetes.utils.container import container_is_running
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodNotFoundException, PodPhase
from airflow.sdk.exceptions import AirflowException, AirflowTaskTimeout
from kubernetes.client import ApiClient, models
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from airflow_mcp.airflow_private import incluster_namespace
from airflow_mcp.core.contract import ENV_RUN_ID, EXIT_REFUSED
from airflow_mcp.core.workload.pod import (
    CONTAINER,
    LABEL_IDENTITY,
    LABEL_RANK,
    SOURCE_CONTAINER,
    PodEnding,
    PodOptions,
    pod_manifest,
    read_ending,
)
from airflow_mcp.core.workload.replicas import as_leader, group_size
from airflow_mcp.exceptions import (
    ClusterUnreachableError,
    InvalidArgumentError,
    SourceError,
    WorkloadError,
    WorkloadFailedError,
    WorkloadLostError,
    WorkloadTimeoutError,
)
from airflow_mcp.workloads.kubernetes_group import delete_followers, failures_of, read_pod
from airflow_mcp.workloads.kubernetes_log import FreshLines, LastLines, last_lines, new_lines

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_mcp.core.workload.definition import Workload

_MESSAGE_LINES = 20
_GONE = 404
_STARTUP_CHECK_SECONDS = 2
"""Seconds between two looks at a pod that has not started; short pods are otherwise noticed late."""
_ON_FINISH = {"delete": "delete_pod", "keep_failed": "delete_succeeded_pod", "keep": "keep_pod"}
_OWNED = frozenset(
    {
        *("task_id", "name", "namespace", "full_pod_spec", "pod_template_file", "deferrable", "kubernetes_conn_id"),
        *("random_name_suffix", "in_cluster", "config_file", "cluster_context", "do_xcom_push", "get_logs"),
        *("startup_timeout_seconds", "schedule_timeout_seconds", "poll_interval", "on_finish_action"),
        *("base_container_name", "termination_grace_period", "log_pod_spec_on_failure", "durable", "image", "cmds"),
        *("arguments", "reattach_on_restart", "logging_interval"),
    }
)


API_ERRORS = (ApiException, KubernetesApiError, KubernetesApiException, HTTPError, ConnectionError)


class WorkloadPodManager(PodManager):
    """Copies no line twice, and knows that nothing runs in a pod that has ended.

    Kubernetes may still list a container as running after its log, or its pod, has ended.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._read: defaultdict[str, dict[bytes, None]] = defaultdict(dict)

    def read_pod_logs(self, pod: models.V1Pod, container_name: str, **kwargs: Any) -> FreshLines:
        """Read the log of a container, without what was read before."""
        log = super().read_pod_logs(pod, container_name, **kwargs)
        return FreshLines(log, self._read[container_name])

    def delete_pod(self, pod: models.V1Pod) -> None:
        """Delete a pod, and with it those that train with it."""
        delete_followers(self._client, pod)
        super().delete_pod(pod)

    def container_is_running(self, pod: models.V1Pod, container_name: str) -> bool:
        """Whether a container runs."""
        current = self.read_pod(pod)
        return current.status.phase not in PodPhase.terminal_states and container_is_running(current, container_name)


class WorkloadPodOperator(KubernetesPodOperator):
    """A pod operator that attaches by the identity of the work, and says precisely how a pod ended."""

    workload: Workload | None = None
    replicas: int = 1
    """How many pods the work is to have; a group of another size is not taken up."""

    def __init__(self, *, callbacks: Any = None, **kwargs: Any) -> None:
        self.seen = LastLines()
        self.image_digest = ""
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        super().__init__(callbacks=[self.seen, *given], **kwargs)  # type: ignore[list-item]  # an instance serves too

    @cached_property
    def pod_manager(self) -> PodManager:
        """Follows pods and their logs."""
        return WorkloadPodManager(kube_client=self.client, callbacks=self.callbacks)

    def get_or_create_pod(self, pod_request_obj: models.V1Pod, context: Context) -> models.V1Pod:
        """Attach to the pod of an earlier try that is at work or ended well; otherwise create one."""
        workload = self._workload()
        for pod in find_workload_pod(self, workload.labels["identity"]):
            if is_usable(self, pod):
                self.log.info("Attaching to pod %s, which an earlier try of this task started", pod.metadata.name)
                return pod
            self.log.info("Removing pod %s of an earlier try (%s)", pod.metadata.name, pod.status.phase)
            self.pod_manager.delete_pod(pod)
        companions = _create_companions(self, workload, pod_request_obj)
        try:
            created = self.pod_manager.create_pod(pod=pod_request_obj)
        except ApiException as error:
            _delete_companions(self, companions, pod_request_obj)
            raise _refused_pod(pod_request_obj, error) from error
        _own_companions(self, companions, created)
        return created

    @generic_api_retry  # type: ignore[untyped-decorator]  # Airflow's
    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> models.V1Pod | None:
        """Find the pod by name: this operator knows it."""
        name: str = self.pod.metadata.name if self.pod else self.name  # type: ignore[assignment]  # every pod is named
        return read_pod(self.client, name, namespace)

    def is_istio_enabled(self, pod: models.V1Pod) -> bool:
        """Whether the pod has containers that may outlive the workload: then the workload's own ends the wait."""
        return bool(pod) and len(pod.spec.containers) > 1

    def cleanup(
        self,
        pod: models.V1Pod,
        remote_pod: models.V1Pod,
        xcom_result: dict[str, Any] | None = None,
        context: Context | None = None,
    ) -> None:
        """Read how the pod ended and its last lines, remove it as asked, and raise if it failed."""
        if self._killed or not remote_pod:
            return
        current = self.find_pod(remote_pod.metadata.namespace, context)
        ending = read_ending(ApiClient().sanitize_for_serialization(current or remote_pod))
        self.image_digest = ending.image_digest
        if current is None:
            gone = f"pod {remote_pod.metadata.name} was deleted while it ran"
            raise WorkloadLostError(with_output(gone, tuple(self.seen.lines)))
        is_late = isinstance(sys.exception(), AirflowTaskTimeout) and current.status.phase == PodPhase.PENDING
        if is_late or _is_at_work(current):
            self._stop_waiting(current, sys.exception())
            return
        failed = not _ended_well(current)
        where = (current.metadata.name, current.metadata.namespace, ending.container)
        lines = self.last_lines(*where) if failed else ()
        self.remove(current)
        if failed:
            raise pod_failure(ending, lines or tuple(self.seen.lines))

    def process_pod_deletion(self, pod: models.V1Pod, *, reraise: bool = True) -> bool:
        """Remove the pod as asked; where it stays, those that train with it have nothing left to do."""
        is_removed = bool(super().process_pod_deletion(pod, reraise=reraise))
        if not is_removed and pod is not None:
            try:
                delete_followers(self.client, pod, only_at_work=True)
            except API_ERRORS as error:
                self.log.warning("Pods that belong to %s may be left: %s", pod.metadata.name, error)
        return is_removed

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after a deferral; a pod that is gone, or whose time was up, is reported as that."""
        self.seen.lines.extend(event.get("last_lines", ()))
        try:
            return super().trigger_reentry(context, event)
        except PodNotFoundException as error:
            raise self._lost(event["name"]) from error
        except (AirflowException, WorkloadError) as error:
            if event["status"] != "timeout" or time.time() < event.get("_execution_deadline", math.inf):
                raise
            late = f"pod {event['name']} had not ended when the execution_timeout of its task was over; it was deleted"
            raise WorkloadTimeoutError(with_output(late, tuple(self.seen.lines))) from error

    def forget(self, pod: models.V1Pod) -> None:
        """Copy the log of a pod whose work is done to the task log, and remove the pod as asked."""
        self.copy_log(pod)
        if _is_at_work(pod):
            self.pod_manager.delete_pod(pod)
        else:
            self.remove(pod)

    def remove(self, pod: models.V1Pod) -> None:
        """Remove a pod as asked; one that has not started goes always: it might start when nobody waits for it."""
        if pod.status.phase == PodPhase.PENDING:
            self.pod_manager.delete_pod(pod)
        else:
            self.process_pod_deletion(pod, reraise=False)

    def copy_log(self, pod: models.V1Pod) -> None:
        """Copy the log of a pod, as far as it goes, to the task log."""
        try:
            self._write_logs(pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("The log of pod %s cannot be read: %s", pod.metadata.name, type(error).__name__)

    def _stop_waiting(self, pod: models.V1Pod, error: BaseException | None) -> None:
        """Leave a pod at work where only Kubernetes is in trouble; otherwise (the task's time is up) delete it."""
        if isinstance(error, API_ERRORS):
            self.log.warning("Pod %s is at work and goes on", pod.metadata.name)
            return
        self.log.info("Deleting pod %s, which has not ended", pod.metadata.name)
        self.pod_manager.delete_pod(pod)

    def _clean(self, event: dict[str, Any], result: dict[str, Any] | None, context: Context) -> None:
        """Clean up after a deferral; a failed pod that vanished meanwhile is reported as lost."""
        super()._clean(event, result, context)
        if self.pod is None and event["status"] != "success" and isinstance(sys.exception(), AirflowException):
            raise self._lost(event["name"])

    def _write_logs(  # type: ignore[override]  # the parent's is wrapped in a retry that would repeat lines
        self, pod: models.V1Pod, follow: bool = False, since_time: object = None
    ) -> None:
        """Copy to the task log what the triggerer has not copied; what a pod at work still writes is not awaited."""
        for line in new_lines(self.client, pod):
            self.seen.lines.append(line)
            self.log.info("%s", line)

    def last_lines(self, name: str, namespace: str, container: str = CONTAINER) -> tuple[str, ...]:
        """Read the last lines of a pod's log; none when it cannot be read."""
        return last_lines(self.client, name, namespace, container)

    def _lost(self, name: str) -> WorkloadLostError:
        gone = f"pod {name} is gone: deleted, or lost with its node"
        return WorkloadLostError(with_output(gone, tuple(self.seen.lines)))

    def _workload(self) -> Workload:
        if self.workload is None:
            raise InvalidArgumentError("this pod operator has no workload")
        return self.workload


def workload_pod_operator(
    workload: Workload,
    options: PodOptions,
    *,
    name: str,
    task: BaseOperator,
    kind: type[WorkloadPodOperator] = WorkloadPodOperator,
) -> WorkloadPodOperator:
    """Build the pod operator of one workload.

    :param workload: what runs.
    :param options: how it runs.
    :param name: name of a new pod; also that of its ConfigMap and Secret.
    :param task: the task it runs for.
    :param kind: class of the operator.
    """
    run_id = workload.env.get(ENV_RUN_ID, "")
    manifest = pod_manifest(workload, options, name=name, run_id=run_id, companion=name)
    manifest = as_leader(manifest, workload, options)
    operator = _build(kind, options, task, name=name, full_pod_spec=PodGenerator.deserialize_model_dict(manifest))
    operator.workload = workload
    return operator


def bare_pod_operator(options: PodOptions, *, task: BaseOperator) -> WorkloadPodOperator:
    """Build a pod operator that only looks."""
    return _build(WorkloadPodOperator, options, task, name="probe")


def _build(
    kind: type[WorkloadPodOperator], options: PodOptions, task: BaseOperator, **arguments: Any
) -> WorkloadPodOperator:
    _check_pod_kwargs(options.pod_kwargs)
    operator = kind(
        task_id=task.task_id,
        namespace=options.namespace,
        kubernetes_conn_id=options.kubernetes_conn_id,
        in_cluster=options.in_cluster,
        config_file=options.config_file,
        cluster_context=options.cluster_context,
        random_name_suffix=False,
        deferrable=options.deferrable,
        durable=False,  # find_workload_pod attaches by identity
        execution_timeout=task.execution_timeout,
        startup_timeout_seconds=options.startup_timeout,
        schedule_timeout_seconds=options.schedule_timeout,
        poll_interval=options.poll_interval,
        logging_interval=options.log_interval,
        pod_template_file=options.pod_template_file,
        on_finish_action=_ON_FINISH[options.on_finish],
        termination_grace_period=options.termination_grace_period,
        log_pod_spec_on_failure=False,  # it would print the environment
        container_name_log_prefix_enabled=False,
        **arguments,
        **{"startup_check_interval_seconds": _STARTUP_CHECK_SECONDS, **options.pod_kwargs},
    )
    operator.replicas = options.replicas
    return operator


def _check_pod_kwargs(given: dict[str, Any]) -> None:
    known = set(inspect.signature(KubernetesPodOperator.__init__).parameters) - {"self", "kwargs"}
    unknown, owned = sorted(given.keys() - known), sorted(given.keys() & _OWNED)
    if unknown or owned:
        raise InvalidArgumentError(
            "kubernetes.pod_kwargs: "
            + "; ".join(
                part
                for part in (
                    f"KubernetesPodOperator does not know {', '.join(unknown)}" if unknown else "",
                    f"{', '.join(owned)} are set by other options" if owned else "",
                )
                if part
            )
        )


def find_workload_pod(operator: WorkloadPodOperator, identity: str) -> list[models.V1Pod]:
    """Find the pods of a piece of work that are not being deleted, newest first; of several ranks only rank 0."""
    namespace = namespace_of(operator)
    found = operator.client.list_namespaced_pod(namespace, label_selector=f"{LABEL_IDENTITY}={identity}").items
    leaders = [pod for pod in found if pod.metadata.labels.get(LABEL_RANK, "0") == "0"]
    alive = [pod for pod in leaders if pod.metadata.deletion_timestamp is None]
    return sorted(alive, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)


def is_usable(operator: WorkloadPodOperator, pod: models.V1Pod) -> bool:
    """Whether a pod is under way or has ended well, and so do as many others as are to train with it."""
    ended = _terminated(pod)
    is_sound = pod.status.phase != PodPhase.FAILED and (ended is None or ended.exit_code == 0)
    has_size = group_size(ApiClient().sanitize_for_serialization(pod)) == operator.replicas
    return bool(is_sound and has_size and not failures_of(operator.client, pod))


def _terminated(pod: models.V1Pod) -> models.V1ContainerStateTerminated | None:
    """Give how the workload's container ended; None while it has not."""
    statuses = [status for status in pod.status.container_statuses or [] if status.name == CONTAINER]
    return statuses[0].state.terminated if statuses else None


def _ended_well(pod: models.V1Pod) -> bool:
    ended = _terminated(pod)
    return bool(
        pod.status.phase == PodPhase.SUCCEEDED
        or (pod.status.phase != PodPhase.FAILED and ended is not None and ended.exit_code == 0)
    )


def _is_at_work(pod: models.V1Pod) -> bool:
    return bool(
        pod.status.phase == PodPhase.RUNNING and pod.metadata.deletion_timestamp is None and _terminated(pod) is None
    )


def namespace_of(operator: WorkloadPodOperator) -> str:
    """Give the namespace that an operator's pods are in."""
    return operator.namespace or operator.hook.get_namespace() or incluster_namespace(operator) or "default"


def _create_companions(operator: WorkloadPodOperator, workload: Workload, pod: models.V1Pod) -> list[str]:
    """Create the ConfigMap and the Secret of a pod, as far as it needs them; one that is there is replaced."""
    namespace = pod.metadata.namespace
    body: dict[str, Any]
    metadata = {"name": pod.metadata.name, "labels": dict(pod.metadata.labels)}
    created = []
    if workload.files:
        body = {"metadata": metadata, "data": {file.name: file.content for file in workload.files}}
        _create_or_replace(operator.client, "config_map", namespace, body)
        created.append("config_map")
    if workload.all_secrets:
        body = {"metadata": metadata, "type": "Opaque", "stringData": workload.all_secrets}
        _create_or_replace(operator.client, "secret", namespace, body)
        created.append("secret")
    return created


def _create_or_replace(client: Any, kind: str, namespace: str, body: dict[str, Any]) -> None:
    try:
        getattr(client, f"create_namespaced_{kind}")(namespace, body)
    except ApiException as error:
        if error.status != 409:
            raise
        getattr(client, f"replace_namespaced_{kind}")(body["metadata"]["name"], namespace, body)


def _own_companions(operator: WorkloadPodOperator, kinds: list[str], pod: models.V1Pod) -> None:
    """Make the pod the owner of its ConfigMap and Secret: Kubernetes removes them with it."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
    for kind in kinds:
        getattr(operator.client, f"patch_namespaced_{kind}")(
            pod.metadata.name, pod.metadata.namespace, {"metadata": {"ownerReferences": [owner]}}
        )


def _delete_companions(operator: WorkloadPodOperator, kinds: list[str], pod: models.V1Pod) -> None:
    for kind in kinds:
        try:
            getattr(operator.client, f"delete_namespaced_{kind}")(pod.metadata.name, pod.metadata.namespace)
        except ApiException as error:
            operator.log.warning("%s %s could not be removed: %s", kind, pod.metadata.name, error.reason)


def _refused_pod(pod: Any, error: Exception) -> Exception:
    if getattr(error, "status", None) in (400, 403, 422):
        return InvalidArgumentError(
            f"Kubernetes refuses pod {pod.metadata.name} in namespace {pod.metadata.namespace!r} "
            f"({getattr(error, 'reason', '')}): {getattr(error, 'body', '')}. Nothing was started."
        )
    return error


def pod_failure(ending: PodEnding, lines: tuple[str, ...], says: str = "") -> WorkloadError | SourceError:
    """Make the error of a pod that did not end well.

    :param ending: how it ended.
    :param lines: the last lines of its output.
    :param says: what to say; empty describes the ending.
    """
    message = with_output(says or ending.describe(), lines)
    if ending.is_timeout:
        return WorkloadTimeoutError(message)
    if ending.is_lost:
        return WorkloadLostError(message)
    if ending.container == SOURCE_CONTAINER and ending.exit_code == EXIT_REFUSED:
        return SourceError(message)
    return WorkloadFailedError(message, -1 if ending.exit_code is None else ending.exit_code, lines)


def with_output(message: str, lines: tuple[str, ...]) -> str:
    """Add the last lines of an output to a message."""
    tail = "\n".join(lines[-_MESSAGE_LINES:])
    return message + (f"\nLast lines of its output:\n{tail}" if tail else "\nIts output cannot be read.")


@contextmanager
def translated_errors(what: Callable[[], str]) -> Iterator[None]:
    """Turn what the clients of Kubernetes raise into our own errors.

    :param what: says what this is about, for the message.
    """
    try:
        yield
    except PodNotFoundException as error:
        raise WorkloadLostError(f"{what()} is gone: deleted, or lost with its node ({error})") from error
    except API_ERRORS as error:
        if getattr(error, "status", None) == _GONE:
            raise WorkloadLostError(f"{what()} is gone: deleted, or lost with its node") from error
        how = f"answered {error}" if getattr(error, "status", None) else f"does not answer ({type(error).__name__})"
        raise ClusterUnreachableError(f"{what()}: Kubernetes {how}; a retry attaches to it again") from error
    except AirflowException as error:
        raise WorkloadFailedError(f"{what()} failed: {error}", -1) from error
