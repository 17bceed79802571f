"""Wait for the pod of a workload without a worker slot."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.providers.cncf.kubernetes.utils.pod_manager import AsyncPodManager
from airflow.triggers.base import TriggerEvent
from kubernetes_asyncio.client import CoreV1Api

from airflow_mcp.core.contract import TAG_ERROR
from airflow_mcp.core.workload.container_log import FreshLog, LogPosition
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.hooks.mlflow import MlflowHook

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

OUTAGE_TOLERANCE_SECONDS = 300
"""How long Kubernetes may fail to answer before the wait ends with an error."""
_OUTAGE_POLL_SECONDS = 5
LOOK_BYTES = 256 * 1024
"""Most bytes of a log that are read at once, so that one triggerer can watch many pods."""
_LAST_LINES = 20
_LAST_LINE_CHARACTERS = 1000


class _LogCopier(AsyncPodManager):
    """Reads the pod, also through an outage of the API server, and copies new lines of its log to the task log.

    The position is stored on the pod before the lines are logged, so that no line is logged twice when a triggerer
    dies.
    """

    def __init__(self, hook: Any) -> None:
        super().__init__(async_hook=hook)
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._is_flooded = False

    async def read_pod(self, pod: V1Pod) -> V1Pod:
        """Read a pod again while it starts."""
        return await self.get_pod(pod.metadata.name, pod.metadata.namespace)

    async def get_pod(self, name: str, namespace: str) -> V1Pod:
        """Read a pod; wait during an outage of the API server, but report a missing pod at once."""
        deadline = time.monotonic() + OUTAGE_TOLERANCE_SECONDS
        while True:
            try:
                return await self._hook.get_pod(name=name, namespace=namespace)
            except Exception as error:
                if getattr(error, "status", None) is not None or time.monotonic() > deadline:
                    raise
                self.log.warning("Kubernetes does not answer (%s); asking again", type(error).__name__)
                await asyncio.sleep(_OUTAGE_POLL_SECONDS)

    async def fetch_container_logs_before_current_sec(
        self, pod: V1Pod, container_name: str, since_time: object = None
    ) -> None:
        """Copy the new lines; after a failure they are copied next time or when the pod has ended."""
        if self._is_flooded:
            return
        try:
            lines = await self._new_lines(pod, container_name)
        except Exception as error:  # a missing line must not end the wait for the pod
            self.log.warning("The log of pod %s cannot be read now (%s)", pod.metadata.name, type(error).__name__)
            return
        self.last_lines.extend(line[:_LAST_LINE_CHARACTERS] for line in lines[-_LAST_LINES:])
        await asyncio.to_thread(self._write, lines)

    async def _new_lines(self, pod: V1Pod, container_name: str) -> list[str]:
        """Return the new lines, after storing on the pod that they were read."""
        start, now = LogPosition.of(pod.metadata.annotations), time.time()
        where = (pod.metadata.name, pod.metadata.namespace)
        asked: dict[str, Any] = {"container": container_name, "timestamps": True, "limit_bytes": LOOK_BYTES}
        since = start.since_seconds(now)
        if since is not None:
            asked["since_seconds"] = since
        async with self._hook.get_conn() as connection:
            api: Any = CoreV1Api(connection)
            answer = await api.read_namespaced_pod_log(*where, _preload_content=False, **asked)
            text = await answer.read()
            log = FreshLog(start)
            lines = list(log.take(text))
            self._is_flooded = len(text) >= LOOK_BYTES
            if lines:
                position = log.position(start.read_at if self._is_flooded else now)
                await api.patch_namespaced_pod(*where, {"metadata": {"annotations": position.annotation()}})
        return lines

    def _write(self, lines: list[str]) -> None:
        for line in lines:
            self.log.info("%s", line)
        if self._is_flooded:
            self.log.warning("The pod writes more than is copied while it runs; the rest is copied when it has ended")


class WorkloadPodTrigger(KubernetesPodTrigger):
    """Waits for a pod and copies its log; when a person ends the task, deletes the pod and closes its MLflow run.

    :param mlflow_conn_id: connection to close the run with.
    :param mlflow_run_id: run to close; empty when the workload does not own one.
    """

    def __init__(self, *, mlflow_conn_id: str, mlflow_run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.mlflow_run_id = mlflow_run_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments for the database."""
        _, arguments = super().serialize()
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**arguments, "mlflow_conn_id": self.mlflow_conn_id, "mlflow_run_id": self.mlflow_run_id},
        )

    @cached_property
    def pod_manager(self) -> _LogCopier:
        """The client that follows the pod and its log."""
        return _LogCopier(self.hook)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the end of the pod; the event has the last lines, because the pod may be gone by then.

        :return: one event of :class:`KubernetesPodTrigger`.
        """
        async for event in super().run():
            event.payload["last_lines"] = list(self.pod_manager.last_lines)
            yield event

    async def _get_pod(self) -> V1Pod:  # the parent's is wrapped in a retry of its own
        return await self.pod_manager.get_pod(self.pod_name, self.pod_namespace)

    async def on_kill(self) -> None:
        """Delete the pod and close the MLflow run: a person ended the task."""
        await super().on_kill()
        await self._close_run()

    async def _close_run(self) -> None:
        if not self.mlflow_run_id:
            return
        hook = MlflowHook(self.mlflow_conn_id)
        try:
            run = await hook.get_run.aio(self.mlflow_run_id)
            if run.is_live:
                await hook.set_tag.aio(run.run_id, TAG_ERROR, "the task was ended by a person while its pod ran")
                await hook.update_run.aio(run.run_id, "KILLED", int(time.time() * 1000))
        except ModelControlPlaneError as error:
            self.log.warning("MLflow run %s could not be closed: %s", self.mlflow_run_id, error)
