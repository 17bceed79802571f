"""Wait for a group of pods that train together without a worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.providers.cncf.kubernetes.utils.pod_manager import OnKillAction
from airflow.triggers.base import TriggerEvent
from kubernetes_asyncio.client import CoreV1Api

from airflow_mcp.core.workload.pod import LABEL_GROUP
from airflow_mcp.core.workload.pod_ending import ended_well
from airflow_mcp.core.workload.replicas import (
    RankFailure,
    StartLimits,
    describe_failures,
    follower_name,
    group_failures,
    rank_of,
)
from airflow_mcp.triggers.pod import WorkloadPodTrigger


class ReplicasTrigger(WorkloadPodTrigger):
    """Waits for rank 0 as for a single pod, and reports at once when another rank fails, vanishes or does not start.

    :param replicas: number of pods, including rank 0.
    """

    def __init__(self, *, replicas: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replicas = replicas

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments for the database."""
        path, arguments = super().serialize()
        return path, {**arguments, "replicas": self.replicas}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: that of rank 0, or that of a rank that failed before it."""
        events = super().run()
        leader = asyncio.ensure_future(anext(events))
        others = asyncio.create_task(self._failure())
        try:
            done, _ = await asyncio.wait({leader, others}, return_when=asyncio.FIRST_COMPLETED)
            yield leader.result() if leader in done else self._event(others.result())
        finally:
            leader.cancel()
            others.cancel()
            await asyncio.gather(leader, others, return_exceptions=True)

    async def on_kill(self) -> None:
        """Delete every pod of the group and close the MLflow run: a person ended the task."""
        if not self._fired_event and self.on_kill_action != OnKillAction.KEEP_POD:
            try:
                for rank in range(1, self.replicas):
                    await self.hook.delete_pod(follower_name(self.pod_name, rank), self.pod_namespace)
            except Exception as error:
                self.log.warning("Kubernetes deletes the other ranks of %s after it (%s)", self.pod_name, error)
        await super().on_kill()

    async def _failure(self) -> list[RankFailure]:
        """Wait until one of the other ranks has failed; the wait for rank 0 handles an outage of Kubernetes."""
        limits = StartLimits(schedule=self.schedule_timeout, startup=self.startup_timeout)
        done: set[int] = set()
        while True:
            try:
                pods = await self._group()
            except Exception as error:
                self.log.warning("The other ranks of %s cannot be read now (%s)", self.pod_name, type(error).__name__)
            else:
                done |= {rank_of(pod) for pod in pods if ended_well(pod)}
                now = datetime.now(UTC)
                failures = group_failures(pods, self.pod_name, self.replicas, now=now, limits=limits, done=done)
                if failures and failures[0].rank:
                    return failures
            await asyncio.sleep(self.poll_interval)

    async def _group(self) -> list[dict[str, Any]]:
        selector = f"{LABEL_GROUP}={self.pod_name}"
        async with self.hook.get_conn() as connection:
            found = await CoreV1Api(connection).list_namespaced_pod(self.pod_namespace, label_selector=selector)
            return [connection.sanitize_for_serialization(pod) for pod in found.items]

    def _event(self, failures: list[RankFailure]) -> TriggerEvent:
        self._fired_event = True
        return TriggerEvent(  # type: ignore[no-untyped-call]  # Airflow's
            {
                "status": "failed",
                "name": self.pod_name,
                "namespace": self.pod_namespace,
                "message": describe_failures(failures, self.replicas),
                "failed_rank": failures[0].rank,
                **self.trigger_kwargs,
            }
        )
