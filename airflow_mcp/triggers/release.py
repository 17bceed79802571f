"""Trigger that ends when people have decided about a release."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import RequestState
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.contract import TAG_PASSPORT
from airflow_mcp.exceptions import MlflowNotFoundError
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.registry.approvals import read_states
from airflow_mcp.triggers.goal import GoalTrigger
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS


class ReleaseDecidedTrigger(GoalTrigger):
    """Wait until the request for a release is granted, or has ended in another way; gives one event and ends.

    :param model_name: registered model.
    :param version: number of the version; it need not exist yet, nor have a passport.
    :param environment: dev, test or prod.
    :param mlflow_conn_id: connection to MLflow, which knows the passport of the version.
    :param audit_conn_id: connection to the audit log.
    :param poll_seconds: seconds between two looks, at least 1; longer while MLflow or the log does not answer.
    """

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        environment: str,
        mlflow_conn_id: str,
        audit_conn_id: str,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.model_name, self.version, self.environment = model_name, version, environment
        self.mlflow_conn_id, self.audit_conn_id = mlflow_conn_id, audit_conn_id

    @property
    def subject(self) -> str:
        """The awaited decision in words, for messages."""
        return f"release of version {self.version} of {self.model_name!r} to {self.environment}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        names = ("model_name", "version", "environment", "mlflow_conn_id", "audit_conn_id")
        return {name: getattr(self, name) for name in names}

    async def find(self) -> dict[str, Any] | None:
        """Look once; None while nobody has asked, or people have not decided.

        :raises InvalidArgumentError: when a connection is missing or not usable.
        :raises MlflowError: when MLflow does not answer.
        :raises AuditUnavailableError: when the log does not answer.
        """
        try:
            version = await MlflowHook(self.mlflow_conn_id).get_model_version.aio(self.model_name, self.version)
        except MlflowNotFoundError:
            return None
        passport = version.tags.get(TAG_PASSPORT, "")
        if not passport:
            return None
        key = ReleaseKey(self.model_name, self.environment, passport)
        state = await AuditLogHook(self.audit_conn_id).ask(lambda log: _state(log, key))
        if state is None or state.status in ("unknown", "open"):
            return None
        return {
            "model_name": key.model_name,
            "version": self.version,
            "environment": key.environment,
            "passport": passport,
            "status": state.status,
            "reason": state.reason,
            "by": list(dict.fromkeys(vote.person for vote in state.approvals)),
        }


def _state(log: AuditLog, key: ReleaseKey) -> RequestState | None:
    """Return where the request stands; None while no policy is in force."""
    in_force = read_in_force(log)
    if in_force is None:
        return None
    (state,) = read_states(log, [key], ApprovalPolicy.of(in_force.policy), datetime.now(UTC))
    return state
