"""Trigger that watches one step of a rollout, and wakes the task when something must be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from airflow.triggers.base import TriggerEvent

from airflow_mcp import settings
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.rollout.advance import LEASED, Wait
from airflow_mcp.core.rollout.state import Journal
from airflow_mcp.exceptions import AuditUnavailableError, EvidenceError, ModelControlPlaneError, RefusedError
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.prometheus import PrometheusHook
from airflow_mcp.hooks.rollout_look import RolloutLooks, metrics_source
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.guard import strictest
from airflow_mcp.registry.rollout_control import RolloutControl
from airflow_mcp.registry.rollout_lease import RolloutLease
from airflow_mcp.triggers.watch import Patience, PollingTrigger

DEFAULT_POLL_SECONDS = 15.0
_LONGEST_POLLS = 4
"""A look or a write that fails is repeated after so many poll intervals at most: the canary is answering meanwhile."""
_log = logging.getLogger(__name__)


class RolloutStepTrigger(PollingTrigger):
    """Look until a rollout needs a write; gives one event and ends. It writes nothing but the lease of the split.

    A person who ends the task ends the rollout too: :meth:`on_kill` gives all requests back to the champion.

    :param rollout: ``model_name``, ``identity`` and ``run_id`` of the rollout, and ``on_kill_action``: ``abort``, or
        ``keep`` to leave the split as it is; ``router`` when another one than the servers splits; ``selector`` when
        the metrics of the replicas are read from Prometheus; ``failures`` in a row of the task to write what was due,
        after which the first look comes later.
    :param mlflow_conn_id: connection to MLflow.
    :param serving_conn_id: connection to the model server.
    :param prometheus_conn_id: connection that answers the queries of the plan, and has the metrics if ``selector`` is
        given; empty when there is none.
    :param actor: who the abort is recorded for, as fields of :class:`~airflow_mcp.core.actor.Actor`.
    :param poll_seconds: seconds between two looks, at least 1; up to four times as many while MLflow does not answer.
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
        """Look until something is due; ends early only with an error that waiting cannot fix.

        The event carries what was measured if it could not be kept, so that the decision does not get lost.
        """
        if failures := int(self.rollout.get("failures", 0)):
            await asyncio.sleep(longest_wait(failures, self.poll_seconds))
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
                if looks.is_run_lost or not isinstance(action, Wait):
                    yield self._due(type(action).__name__, looks.unkept)
                    return
                if looks.document is not None:
                    await lease.renew(looks.document)
                wait = min(patience.succeeded(), action.within)
            except EvidenceError as error:  # the task begins the evidence anew, or says what is wrong
                self.log.warning("%s: %s", self.subject, error)
                await asyncio.sleep(self.poll_seconds)
                yield self._due(str(error))
                return
            except RefusedError as error:
                yield _event("failed", str(error))
                return
            except Exception as error:
                wait = min(patience.failed(error), self.poll_seconds * _LONGEST_POLLS, LEASED)
            await asyncio.sleep(wait)

    def _due(self, message: str, unkept: Journal | None = None) -> TriggerEvent:
        journal = dump_document(unkept.model_copy(update={"points": ()}), indent=None) if unkept is not None else ""
        return _event("due", message, rollout=self.rollout, journal=journal)

    async def on_kill(self) -> None:
        """Abort the rollout: a person ended the task."""
        await super().on_kill()
        if self.rollout["on_kill_action"] != "abort":
            return
        mlflow = await MlflowHook(self.mlflow_conn_id).asettings()
        conn_id = settings.audit_conn_id()
        try:
            if not conn_id:
                await asyncio.to_thread(self._abort, mlflow, None)
                return
            try:
                await AuditLogHook(conn_id).ask(lambda log: self._abort(mlflow, lambda: log))
            except AuditUnavailableError as error:
                await asyncio.to_thread(self._abort, mlflow, partial(_raise, error))
        except ModelControlPlaneError as error:
            self.log.warning("%s was not aborted: %s", self.subject, error)

    def _abort(self, mlflow_settings: MlflowSettings, open_log: Callable[[], AuditLog] | None) -> None:
        """End the rollout; what goes back is recorded in the audit log, if there is one."""
        mlflow = DirectMlflow(mlflow_settings)
        governance = Governance(
            environment=strictest(settings.environment(), mlflow_settings.environment),
            open_log=open_log,
            rollback_without_log=settings.rollback_without_audit(),
            off_reason=settings.governance_off(),
        )
        try:
            actor = Actor(**self.actor)  # type: ignore[arg-type]
            name = self.rollout["model_name"]
            control = RolloutControl(mlflow, name, actor=actor, log=_log, governance=governance)
            identity, stable = self.rollout["identity"], self.rollout["stable"]
            control.end("a person ended the task", identity=identity, stable=stable)
        finally:
            mlflow.close()


def longest_wait(failures: int, poll_seconds: float) -> float:
    """Return the wait after failures in a row, in seconds: short, because the canary is answering meanwhile.

    :param failures: number of failures, at least 1.
    :param poll_seconds: seconds between two looks.
    """
    return min(poll_seconds * min(failures, _LONGEST_POLLS), LEASED)


def _raise(error: Exception) -> NoReturn:
    raise error


def _event(status: str, message: str, **fields: Any) -> TriggerEvent:
    return TriggerEvent({"status": status, "message": message, **fields})  # type: ignore[no-untyped-call]
