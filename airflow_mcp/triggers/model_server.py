"""Trigger that waits for the pods of a model server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.triggers.base import TriggerEvent

from airflow_mcp.core.manifests.progress import progress_of
from airflow_mcp.triggers.watch import Patience, PollingTrigger

if TYPE_CHECKING:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

DEFAULT_POLL_SECONDS = 5.0
_GONE = 404


class ModelServerTrigger(PollingTrigger):
    """Look at a Deployment until its rollout has ended, or its time is over; gives one event and ends.

    It changes nothing: the task reads the Deployment again and decides.

    :param deployment: ``name`` and ``namespace``.
    :param connection: ``conn_id``, ``in_cluster``, ``cluster_context`` and ``config_file``, as for pods.
    :param deadline: when the time is over, in Unix time.
    :param poll_seconds: seconds between two looks, at least 1; longer while Kubernetes does not answer.
    """

    def __init__(
        self,
        *,
        deployment: Mapping[str, str],
        connection: Mapping[str, Any],
        deadline: float,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.deployment, self.connection, self.deadline = dict(deployment), dict(connection), deadline

    @property
    def subject(self) -> str:
        """The Deployment in words, for messages."""
        return f"Deployment {self.deployment['name']} in namespace {self.deployment['namespace']!r}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        return {"deployment": self.deployment, "connection": self.connection, "deadline": self.deadline}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the rollout has ended, or the time is over."""
        patience = Patience(self.subject, self.log, self.poll_seconds)
        hook, told = await asyncio.to_thread(self._hook), ""
        while time.time() < self.deadline:
            try:
                found = await self._read(hook)
                progress = progress_of(found) if found is not None else None
                if progress is None or progress.phase != "waiting":
                    break
                if progress.reason != told:
                    told = progress.reason
                    self.log.info("%s: %s", self.subject, told)
                wait = patience.succeeded()
            except Exception as error:
                wait = patience.failed(error)
            await asyncio.sleep(min(wait, max(0.0, self.deadline - time.time())))
        yield TriggerEvent({"status": "due"})  # type: ignore[no-untyped-call]

    def _hook(self) -> AsyncKubernetesHook:
        """Return the hook; importing its module takes seconds, and a kubeconfig is read here, not kept in Airflow."""
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

        arguments = {name: value for name, value in self.connection.items() if name != "config_file"}
        file = self.connection.get("config_file")
        config = yaml.safe_load(Path(file).read_text(encoding="utf-8")) if file else None
        return AsyncKubernetesHook(config_dict=config, **arguments)

    async def _read(self, hook: AsyncKubernetesHook) -> dict[str, Any] | None:
        from kubernetes_asyncio.client import AppsV1Api  # noqa: PLC0415
        from kubernetes_asyncio.client.exceptions import ApiException  # noqa: PLC0415

        async with hook.get_conn() as connection:
            try:
                where = (self.deployment["name"], self.deployment["namespace"])
                found = await AppsV1Api(connection).read_namespaced_deployment(*where)
            except ApiException as error:
                if error.status == _GONE:
                    return None
                raise
            return dict(connection.sanitize_for_serialization(found))
