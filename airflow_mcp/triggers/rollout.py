"""Trigger that watches one step of a rollout, and wakes the task when something must be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.rollout.advance import Wait
from airflow_mcp.exceptions import MlflowAuthError, ModelControlPlaneError, RefusedError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.prometheus import PrometheusHook
from airflow_mcp.hooks.rollout_look import RolloutLooks, metrics_source
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.registry.rollout_control import RolloutControl
from airflow_mcp.registry.rollout_lease import RolloutLease
from airflow_mcp.triggers.watch import Patience, PollingTrigger

DEFAULT_POLL_SECONDS = 15.0
_log = logging.getLogger(__name__)


class RolloutStepTrigger(PollingTrigger):
    """Look until a rollout needs a write; gives one event and ends. It writes nothing but the lease of the split.

    A person who ends the task ends the rollout too: :meth:`on_kill` gives all requests back to the champion.

    :param rollout: ``model_name``, ``identity`` and ``run_id`` of the rollout, and ``on_kill_action``: ``abort``, or
        ``keep`` to leave the split as it is; ``router`` when another one than the servers splits; ``selector`` when
        the metrics of the replicas are read from Prometheus.
    :param mlflow_conn_id: connection to MLflow.
    :param serving_conn_id: connection to the model server.
    :param prometheus_conn_id: connection that answers the queries of the plan, and has the metrics if ``selector`` is
        given; empty when there is none.
    :param actor: who the abort is recorded for, as fields of :class:`~airflow_mcp.core.actor.Actor`.
    :param poll_seconds: seconds between two looks, at least 1; longer while MLflow does not answer.
    """

    def __init__(
        self,
        *,
        rollout: Mapping[str, str],
        mlflow_conn_id: str,
        serving_conn_id: str,
        actor: Mapping[str, str],
        prometheus_conn_id: str = "",
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.rollout, self.actor = dict(rollout), dict(actor)
        self.mlflow_conn_id, self.serving_conn_id = mlflow_conn_id, serving_conn_id
        self.prometheus_conn_id = prometheus_conn_id

    @property
    def subject(self) -> str:
        """The rollout in words, for messages."""
        return f"the rollout of {self.rollout['model_name']!r}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        return {
            "rollout": self.rollout,
            "mlflow_conn_id": self.mlflow_conn_id,
            "serving_conn_id": self.serving_conn_id,
            "prometheus_conn_id": self.prometheus_conn_id,
            "actor": self.actor,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until something is due; ends early only with an error that waiting cannot fix."""
        mlflow = MlflowHook(self.mlflow_conn_id)
        prometheus = PrometheusHook(self.prometheus_conn_id) if self.prometheus_conn_id else None
        name, is_routed = self.rollout["model_name"], bool(self.rollout.get("router"))
        source = metrics_source(self.serving_conn_id, prometheus, name, self.rollout.get("selector"))
        looks = RolloutLooks(mlflow, source, self.rollout["run_id"], prometheus, is_routed=is_routed)
        lease = RolloutLease(mlflow, name)
        patience = Patience(self.subject, self.log, self.poll_seconds)
        while True:
            try:
                _, action = await looks.look()
                if not isinstance(action, Wait):
                    yield _event("due", type(action).__name__)
                    return
                if looks.document is not None:
                    await lease.renew(looks.document)
                wait = min(patience.succeeded(), action.within)
            except (RefusedError, MlflowAuthError) as error:
                yield _event("failed", str(error))
                return
            except Exception as error:
                wait = patience.failed(error)
            await asyncio.sleep(wait)

    async def on_kill(self) -> None:
        """Abort the rollout: a person ended the task."""
        await super().on_kill()
        if self.rollout["on_kill_action"] != "abort":
            return
        settings = await MlflowHook(self.mlflow_conn_id).asettings()
        try:
            await asyncio.to_thread(self._abort, settings)
        except ModelControlPlaneError as error:
            self.log.warning("%s was not aborted: %s", self.subject, error)

    def _abort(self, settings: MlflowSettings) -> None:
        mlflow = DirectMlflow(settings)
        try:
            actor = Actor(**self.actor)  # type: ignore[arg-type]
            control = RolloutControl(mlflow, self.rollout["model_name"], actor=actor, log=_log)
            control.abort("a person ended the task", identity=self.rollout["identity"])
        finally:
            mlflow.close()


def _event(status: str, message: str) -> TriggerEvent:
    return TriggerEvent({"status": status, "message": message})  # type: ignore[no-untyped-call]
