"""Base of the operators that keep the audit log."""

from __future__ import annotations

from typing import Any

from airflow_mcp import settings
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.operators.base import ModelControlOperator


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
