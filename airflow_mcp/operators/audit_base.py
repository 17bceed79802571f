"""Base of the operators that keep the audit log."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mcp import settings
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.access.permitted import require_permitted
from airflow_mcp.core.access.requester import Requester, requester_of_actor
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.airflow_people import AirflowApiHook
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.operators.base import ModelControlOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.audit.log import AuditLog


class AuditOperator(ModelControlOperator):
    """Base of the operators that keep the audit log.

    :param audit_conn_id: Airflow connection of type ``audit_log``, with a login that may append ``audit.`` events and
        those that are reconciled; None takes ``[airflow_mcp] audit_conn_id``.
    """

    ui_color = "#e3e0f0"

    def __init__(self, *, audit_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.audit_conn_id = audit_conn_id

    def audit_hook(self) -> AuditLogHook:
        """Return the hook of the log.

        :raises InvalidArgumentError: when no log is configured.
        """
        conn_id = self.audit_conn_id or settings.audit_conn_id()
        if not conn_id:
            raise InvalidArgumentError(
                "audit_conn_id must name the connection of the audit log, here or in [airflow_mcp] audit_conn_id; got "
                "nothing. Nothing was recorded"
            )
        return AuditLogHook(conn_id)

    def require_readers(self, context: Context, log: AuditLog, environment: str) -> None:
        """Check that everybody who made this task run may read the log; for a schedule its login alone decides.

        :param context: context of the task.
        :param log: the log.
        :param environment: dev, test or prod.
        :raises AccessRefusedError: when the policy in force does not permit it.
        """
        if read_in_force(log) is None:
            return
        actor, api_conn_id = self.actor(context), settings.airflow_api_conn_id()
        who = (AirflowApiHook(api_conn_id).requester_of if api_conn_id else requester_of_actor)(actor)
        askers = [Requester(account=each, doubt=who.doubt) for each in (who.account, *who.cleared_by) if each]
        if not (who.account or who.pipeline):
            askers = [Requester(doubt=who.doubt)]
        for each in askers:
            require_permitted(log, partial(replace, each), actor, environment, resource="audit", action="read")
