"""Wait for a training that runs as a Job, a TrainJob or a RayJob without a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import TriggerEvent
from kubernetes_asyncio.client import CoreV1Api, CustomObjectsApi
from kubernetes_asyncio.client.exceptions import ApiException

from airflow_mcp.core.workload.pod import LABEL_GROUP
from airflow_mcp.core.workload.replicas import StartLimits
from airflow_mcp.core.workload.target_state import Look, leading_pod, look
from airflow_mcp.core.workload.targets import TARGETS
from airflow_mcp.triggers.pod import OUTAGE_TOLERANCE_SECONDS, WorkloadPodTrigger

_GONE = 404
_DENIED = (401, 403)


class TargetTrigger(WorkloadPodTrigger):
    """Waits for the object, copies the output of rank 0, and logs how it stands, such as its queue.

    When a person ends the task, it deletes the object and closes its MLflow run. ``pod_name`` is the object's name.

    :param target: ``job``, ``train_job`` or ``ray_job``.
    """

    def __init__(self, *, target: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target = target
        self._kind = TARGETS[target]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments for the database."""
        path, arguments = super().serialize()
        return path, {**arguments, "target": self.target}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, with ``status`` ``success``, ``failed``, ``gone``, ``timeout`` or ``error``.

        It has the last lines of the output, because the pods may be gone by then.
        """
        answered, said, copied = time.monotonic(), "", 0.0
        while not self._is_late():
            try:
                seen, leader = await self._look()
            except Exception as error:  # an outage of Kubernetes must not end the wait at once
                if self._is_final(error) or time.monotonic() - answered > OUTAGE_TOLERANCE_SECONDS:
                    yield self._event("error", f"Kubernetes does not answer ({type(error).__name__}: {error})")
                    return
                self.log.warning("Kubernetes does not answer (%s); asking again", type(error).__name__)
                await asyncio.sleep(self.poll_interval)
                continue
            answered = time.monotonic()
            if seen.standing != "waiting":
                yield self._event(seen.standing, seen.says)
                return
            if seen.says != said:
                said = seen.says
                self.log.info("%s", said)
            if leader is not None and self.logging_interval and answered - copied >= self.logging_interval:
                copied = answered
                await self.pod_manager.fetch_container_logs_before_current_sec(leader, self._kind.container)
            await asyncio.sleep(self.poll_interval)
        late = f"{self._kind.kind} {self.pod_name} had not ended when the execution_timeout of its task was over"
        yield self._event("timeout", f"{late}; it is deleted")

    async def on_kill(self) -> None:
        """Delete the object with its pods, and close the MLflow run: a person ended the task."""
        if not self._fired_event:
            self.log.info("Deleting %s %s in namespace %s", self._kind.kind, self.pod_name, self.pod_namespace)
            try:
                await self._delete()
            except Exception:
                self.log.exception("%s %s could not be deleted", self._kind.kind, self.pod_name)
        await self._close_run()

    def _is_late(self) -> bool:
        deadline = self.trigger_kwargs.get("_execution_deadline")
        return deadline is not None and time.time() >= deadline

    @staticmethod
    def _is_final(error: Exception) -> bool:
        return getattr(error, "status", None) in _DENIED

    async def _delete(self) -> None:
        async with self.hook.get_conn() as connection:
            try:
                await CustomObjectsApi(connection).delete_namespaced_custom_object(
                    *self._where, self.pod_name, propagation_policy="Background"
                )
            except ApiException as error:
                if error.status != _GONE:
                    raise

    async def _look(self) -> tuple[Look, Any]:
        """Look at the object and its pods; return what that concludes, and the pod of rank 0."""
        async with self.hook.get_conn() as connection:
            try:
                found = await CustomObjectsApi(connection).get_namespaced_custom_object(*self._where, self.pod_name)
            except ApiException as error:
                if error.status != _GONE:
                    raise
                found = None
            selector = f"{LABEL_GROUP}={self.pod_name}"
            pods = (await CoreV1Api(connection).list_namespaced_pod(self.pod_namespace, label_selector=selector)).items
            plain = [connection.sanitize_for_serialization(pod) for pod in pods]
        limits = StartLimits(schedule=self.schedule_timeout, startup=self.startup_timeout)
        seen = look(self.target, found, plain, now=datetime.now(UTC), limits=limits)
        first = leading_pod(plain)
        name = first["metadata"]["name"] if first and first["status"].get("phase") == "Running" else None
        return seen, next((pod for pod in pods if pod.metadata.name == name), None)

    @property
    def _where(self) -> tuple[str, str, str, str]:
        return self._kind.group, self._kind.version, self.pod_namespace, self._kind.plural

    def _event(self, status: str, message: str) -> TriggerEvent:
        self._fired_event = True
        return TriggerEvent(  # type: ignore[no-untyped-call]  # Airflow's
            {
                "status": status,
                "name": self.pod_name,
                "namespace": self.pod_namespace,
                "message": message,
                "last_lines": list(self.pod_manager.last_lines),
                **self.trigger_kwargs,
            }
        )
