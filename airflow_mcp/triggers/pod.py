"""Wait for the pod of a workload without a worker slot."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

from airflow_mcp.core.contract import TAG_ERROR
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.hooks.mlflow import MlflowHook

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

OUTAGE_TOLERANCE_SECONDS = 300
"""How long Kubernetes may stay silent before the wait ends with an error."""
_OUTAGE_POLL_SECONDS = 5


class WorkloadPodTrigger(KubernetesPodTrigger):
    """Waits for a pod; when a person ends the task, deletes the pod and closes its MLflow run as KILLED.

    :param mlflow_conn_id: connection to close the run with.
    :param mlflow_run_id: run to close; empty when the workload has none of its own.
    """

    def __init__(self, *, mlflow_conn_id: str, mlflow_run_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.mlflow_run_id = mlflow_run_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give class path and arguments for the database."""
        _, arguments = super().serialize()
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**arguments, "mlflow_conn_id": self.mlflow_conn_id, "mlflow_run_id": self.mlflow_run_id},
        )

    async def _get_pod(self) -> V1Pod:  # type: ignore[override]  # the parent's is wrapped in a retry of its own
        """Read the pod; an outage of the API server is waited out, a missing pod is reported at once."""
        deadline = time.monotonic() + OUTAGE_TOLERANCE_SECONDS
        while True:
            try:
                return await self.hook.get_pod(name=self.pod_name, namespace=self.pod_namespace)
            except Exception as error:
                if getattr(error, "status", None) is not None or time.monotonic() > deadline:
                    raise
                self.log.warning("Kubernetes does not answer (%s); asking again", type(error).__name__)
                await asyncio.sleep(_OUTAGE_POLL_SECONDS)

    async def on_kill(self) -> None:
        """Delete the pod and close the MLflow run: a person ended the task."""
        await super().on_kill()
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
