"""The pod operator of a training on several pods, which starts, watches and ends them together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.utils.pod_manager import OnFinishAction, OnKillAction, PodManager
from kubernetes.client import models

from airflow_mcp.core.workload.pod import LABEL_GROUP
from airflow_mcp.core.workload.pod_ending import ended_well, read_ending
from airflow_mcp.core.workload.replicas import (
    RankFailure,
    StartLimits,
    describe_failures,
    group_size,
)
from airflow_mcp.exceptions import SourceError, WorkloadError, WorkloadFailedError
from airflow_mcp.workloads.kubernetes_errors import API_ERRORS, pod_failure
from airflow_mcp.workloads.kubernetes_group import (
    delete_followers,
    failures_of,
    plain,
    read_pod,
    release,
    start_followers,
)
from airflow_mcp.workloads.kubernetes_pod import WorkloadPodManager, WorkloadPodOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_JOIN_SECONDS = 60


class _GroupPodManager(WorkloadPodManager):
    """Creates the other ranks with the pod of rank 0: all of them or none."""

    def create_pod(self, pod: models.V1Pod) -> models.V1Pod:
        """Create rank 0, the Service, and the other ranks."""
        leader = super().create_pod(pod)
        try:
            start_followers(self._client, pod, leader)
        except API_ERRORS:
            self.delete_pod(leader)
            raise
        return leader


class ReplicatedPodOperator(WorkloadPodOperator):
    """Runs rank 0 like a single pod, and the other ranks beside it: when one of them fails, all are stopped.

    Rank 0 is followed like a single pod. The others are checked every ``poll_interval`` seconds: by a thread here, by
    the trigger if the task is deferred.
    """

    group_error: WorkloadError | SourceError | None = None
    _watcher: threading.Thread | None = None

    @cached_property
    def pod_manager(self) -> PodManager:
        """The client that follows rank 0 and its log."""
        return _GroupPodManager(kube_client=self.client, callbacks=self.callbacks)

    def get_or_create_pod(self, pod_request_obj: models.V1Pod, context: Context) -> models.V1Pod:
        """Attach to the group of an earlier try, or start one."""
        pod = super().get_or_create_pod(pod_request_obj, context)
        self.log.info(
            "Output of all ranks: kubectl --namespace %s logs --prefix --selector %s=%s",
            *(pod.metadata.namespace, LABEL_GROUP, pod.metadata.labels[LABEL_GROUP]),
        )
        if self._killed:  # while the group was being created
            self.pod_manager.delete_pod(pod)
        return pod

    def execute_sync(self, context: Context) -> Any:
        """Follow rank 0 to its end, and watch the others."""
        self._stop = threading.Event()
        try:
            return super().execute_sync(context)
        finally:
            self._stop.set()

    def await_pod_start(self, pod: models.V1Pod) -> None:
        """Wait for rank 0, and start to watch the others."""
        self._watcher = threading.Thread(target=self._watch, args=(pod,), name="ranks", daemon=True)
        self._watcher.start()
        super().await_pod_start(pod)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Resume after a deferral; end the group if another rank failed."""
        if "failed_rank" in event:
            self._end_after(event)
            event = {**event, "status": "success"}
        return super().trigger_reentry(context, event)

    def finish(self, remote_pod: models.V1Pod | None, reason: BaseException | None, context: Context) -> None:
        """Raise what ended the group, if it failed; otherwise finish as for a single pod."""
        if self._killed or remote_pod is None:
            return
        if self._watcher is not None:  # it may be about to remove the group
            self._stop.set()
            self._watcher.join(_JOIN_SECONDS)
        if self.group_error is None and (failures := failures_of(self.client, remote_pod)):
            self._end_group(remote_pod, failures)
        if self.group_error is not None:
            raise self.group_error
        super().finish(remote_pod, reason, context)

    def on_kill(self) -> None:
        """Delete every pod of the group."""
        super().on_kill()
        if self.pod and self.on_kill_action != OnKillAction.KEEP_POD:
            try:
                delete_followers(self.client, self.pod)
            except API_ERRORS as error:
                self.log.warning("Kubernetes deletes the other ranks of %s after it: %s", self.pod.metadata.name, error)

    def _watch(self, leader: models.V1Pod) -> None:
        """Watch the other ranks until rank 0 has ended; end the group when one of them fails."""
        while not self._stop.wait(self.poll_interval):
            try:
                failures = failures_of(self.client, leader, self._limits())
                if failures and failures[0].rank:
                    self._end_group(leader, failures)
                    return
            except API_ERRORS as error:
                self.log.warning("The other ranks of %s cannot be read now: %s", leader.metadata.name, error)

    def _end_after(self, event: dict[str, Any]) -> None:
        """End the group after the trigger saw a rank fail; return if rank 0 ended well before that."""
        leader = read_pod(self.client, event["name"], event["namespace"])
        if leader is None:
            raise WorkloadFailedError(event["message"], -1)
        self.pod = leader
        failures = failures_of(self.client, leader, self._limits())
        if failures:
            self.copy_log(leader)
            raise self._end_group(leader, failures)
        if not ended_well(plain(leader)):
            self.pod_manager.delete_pod(leader)
            raise WorkloadFailedError(event["message"], -1)

    def _end_group(self, leader: models.V1Pod, failures: Sequence[RankFailure]) -> WorkloadError | SourceError:
        """Read why the group failed and remove it; failed pods stay if ``on_finish`` keeps them."""
        first, size = failures[0], group_size(plain(leader))
        lines = self.last_lines(first.ending.name, leader.metadata.namespace, first.ending.container)
        if first.rank == 0:
            lines = lines or tuple(self.seen.lines)
        self.group_error = pod_failure(first.ending, lines, describe_failures(failures, size))
        self.log.error("%s", describe_failures(failures, size))
        if self.on_finish_action != OnFinishAction.DELETE_POD:
            release(self.client, leader, {failure.rank for failure in failures if failure.has_ended} - {0})
        current = read_pod(self.client, leader.metadata.name, leader.metadata.namespace)
        self.image_digest = read_ending(plain(current or leader)).image_digest
        if first.rank == 0 and current is not None:
            self.remove(current)
        else:
            self.pod_manager.delete_pod(leader)
        return self.group_error

    def _limits(self) -> StartLimits:
        return StartLimits(schedule=self.schedule_timeout_seconds, startup=self.startup_timeout_seconds)
