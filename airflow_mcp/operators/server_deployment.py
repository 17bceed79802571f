"""The base of the operators that change the Deployment of a model server and wait for its pods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow_mcp import settings
from airflow_mcp.cluster.model_server import ServerDeployment
from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.identity import canonical_json, content_hash, identity
from airflow_mcp.core.manifests.progress import Progress
from airflow_mcp.core.workload.pod_options import PodOptions, pod_options
from airflow_mcp.exceptions import AuditUnavailableError, InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator, is_deferrable, no_result
from airflow_mcp.registry.recording import (
    DEPLOYMENT_ENDED,
    DEPLOYMENT_INTENDED,
    DeploymentChange,
    deployment_event,
)
from airflow_mcp.triggers.model_server import DEFAULT_POLL_SECONDS, ModelServerTrigger
from airflow_mcp.triggers.watch import checked_poll_seconds

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

_TIMEOUT = timedelta(seconds=300)


class ModelServerOperator(ModelControlOperator):
    """Base of the operators that change the Deployment of a model server and wait for its pods.

    :param namespace: namespace; empty takes that of ``kubernetes`` (templated).
    :param kubernetes: options for the cluster, as for workloads (templated).
    :param timeout: how long the pods may take to become ready.
    :param dry_run: let Kubernetes check everything, change nothing, and skip (templated).
    :param poll_interval: seconds between two looks, at least 1.
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    def __init__(
        self,
        *,
        namespace: str = "",
        kubernetes: Mapping[str, Any] | None = None,
        timeout: timedelta = _TIMEOUT,
        dry_run: bool | str = False,
        poll_interval: float = DEFAULT_POLL_SECONDS,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.namespace = namespace
        self.kubernetes = kubernetes
        self.timeout = timeout
        self.dry_run = dry_run
        self.poll_interval = checked_poll_seconds(poll_interval)
        self.deferrable = is_deferrable(deferrable)
        if timeout <= timedelta(0):
            raise InvalidArgumentError(f"timeout must be longer than zero; got {timeout!r}")

    def conclude(self, context: Context, progress: Progress) -> dict[str, Any]:
        """End the task when the pods are ready, or will not be in time.

        :param progress: how the rollout stands.
        """
        raise TypeError(f"{type(self).__name__} does not implement conclude()")

    def resume(self, context: Context, event: Mapping[str, Any] | None, deadline: float) -> dict[str, Any]:
        """Go on from what the cluster says, which may have changed since the event.

        :raises FailedError: when the trigger failed or ended without an event; a retry goes on.
        """
        with self.at_the_edge():
            if event is None or event.get("status") != "due":
                raise no_result(event)
            return self.finish(self.wait_for_pods(context, deadline))

    def wait_for_pods(self, context: Context, deadline: float) -> dict[str, Any]:
        """Wait for the pods, in the triggerer or here, and end the task.

        :param deadline: when the time is over, in Unix time.
        """
        server, told = self.server_deployment(context), ""
        while (progress := server.progress()).phase == "waiting":
            if time.time() >= deadline:
                seconds = round(self.timeout.total_seconds())
                progress = Progress("failed", f"not ready after {seconds} s: {progress.reason}")
                break
            if self.deferrable:
                self.defer(trigger=self._trigger(server, deadline), method_name="resume", kwargs={"deadline": deadline})
            if progress.reason != told:
                told = progress.reason
                self.log.info("%s", told)
            time.sleep(self.poll_interval)
        return self.conclude(context, progress)

    def begun(self, context: Context) -> dict[str, Any]:
        """Wait for the pods of a change that was made just now."""
        return self.wait_for_pods(context, time.time() + self.timeout.total_seconds())

    def deployment_name(self) -> str:
        """Return the name of the Deployment."""
        raise TypeError(f"{type(self).__name__} does not implement deployment_name()")

    def inputs(self) -> dict[str, Any]:
        """Return what decides the result of the task, besides the task itself."""
        raise TypeError(f"{type(self).__name__} does not implement inputs()")

    def server_deployment(self, context: Context) -> ServerDeployment:
        """Return the Deployment."""
        key = identity(self.task_key(context), self.inputs())
        return ServerDeployment(self.cluster, self.deployment_name(), key, log=self.log)

    def record_intent(self, context: Context, facts: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> None:
        """Record a change in the audit log before anything is applied.

        :param facts: what is wanted.
        :param objects: what is applied; empty for a change back.
        :raises AuditUnavailableError: when the log does not answer; nothing was changed, and a retry goes on.
        """
        inputs = {"objects": content_hash(canonical_json(list(objects)).encode())} if objects else {}
        self._record(context, DEPLOYMENT_INTENDED, facts, inputs=inputs)

    def record_end(self, context: Context, result: Mapping[str, Any], **facts: str) -> None:
        """Record in the audit log what runs now.

        :param result: result of the task.
        :param facts: further facts.
        :raises AuditUnavailableError: when the log does not answer; a retry finds the change and records it.
        """
        known = {name: result[name] for name in ("phase", "revision", "replica_set", "image", "image_digest")}
        self._record(context, DEPLOYMENT_ENDED, {**facts, **known}, reason=result["reason"])

    def record_failed_end(self, context: Context, result: Mapping[str, Any], **facts: str) -> None:
        """Record that the pods are not ready; a log that does not answer does not hide why.

        A retry would apply the same change once more, so none is asked for. The intent stays without an end.
        """
        try:
            self.record_end(context, result, **facts)
        except AuditUnavailableError as error:
            self.log.warning("the end of this deployment is not in the audit log: %s", error)

    def _record(self, context: Context, action: str, facts: Mapping[str, Any], **more: Any) -> None:
        server = self.server_deployment(context)
        named = {"deployment": server.name, "namespace": server.cluster.namespace, **facts}
        self.record(context, partial(deployment_event, action, DeploymentChange(server.identity, named, **more)))

    def _options(self) -> PodOptions:
        named = {"namespace": self.namespace} if self.namespace else {}
        return pod_options(settings.kubernetes_defaults(), self.kubernetes, named)

    @cached_property
    def cluster(self) -> ClusterObjects:
        """The namespace, connected as for workloads."""
        return cluster_of(self._options(), self)

    def _trigger(self, server: ServerDeployment, deadline: float) -> ModelServerTrigger:
        options = self._options()
        return ModelServerTrigger(
            deployment={"name": server.name, "namespace": server.cluster.namespace},
            connection={
                "conn_id": options.kubernetes_conn_id,
                "in_cluster": options.in_cluster,
                "cluster_context": options.cluster_context,
                "config_file": options.config_file,
            },
            deadline=deadline,
            poll_seconds=self.poll_interval,
        )


def found(server: ServerDeployment) -> dict[str, Any]:
    """Return what runs, as the beginning of a task's result."""
    return {"deployment": server.name, "namespace": server.cluster.namespace, **server.deployed()._asdict()}


def cluster_of(options: PodOptions, task: BaseOperator) -> ClusterObjects:
    """Return the namespace of some options, connected as for workloads.

    :param options: the options.
    :param task: the operator that asks.
    :raises ClusterUnreachableError: when there is no usable connection.
    """
    from airflow_mcp.workloads.kubernetes_arguments import bare_pod_operator  # noqa: PLC0415
    from airflow_mcp.workloads.kubernetes_errors import translated_errors  # noqa: PLC0415
    from airflow_mcp.workloads.kubernetes_pod import namespace_of  # noqa: PLC0415

    with translated_errors(lambda: "the connection to Kubernetes"):
        pod = bare_pod_operator(options, task=task)
        return ClusterObjects(pod.client.api_client, namespace_of(pod))
