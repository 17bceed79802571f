"""Hook for the audit log of moves and decisions."""

from __future__ import annotations

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp import settings
from airflow_mcp.audit.settings import AuditSettings, settings_from_connection
from airflow_mcp.core.audit.log import LOG, AuditLog
from airflow_mcp.exceptions import InvalidArgumentError


class AuditLogHook(BaseHook):
    """Hook for an audit log in PostgreSQL, or in SQLite where the environment is not prod.

    :param audit_conn_id: id of a connection of type ``audit_log``.
    """

    conn_name_attr = "audit_conn_id"
    default_conn_name = "audit_log_default"
    conn_type = "audit_log"
    hook_name = "Audit log"

    def __init__(self, audit_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.audit_conn_id = audit_conn_id
        self._opened: AuditLog | None = None

    @property
    def settings(self) -> AuditSettings:
        """Address and login from the connection.

        :raises InvalidArgumentError: when there is no such connection, or a field of it is not usable.
        """
        try:
            connection = self.get_connection(self.audit_conn_id)
        except AirflowNotFoundException:
            raise InvalidArgumentError(
                f"[airflow_mcp] audit_conn_id must be the ID of a connection; got {self.audit_conn_id!r}, and there is "
                "no such connection"
            ) from None
        found = settings_from_connection(connection, settings.environment())
        if found.password:
            mask_secret(found.password)
        return found

    def get_conn(self) -> AuditLog:
        """Return the log, which is opened when it is first used."""
        if self._opened is None:
            from airflow_mcp.audit.stores import open_log  # noqa: PLC0415  (sqlite3, which most tasks do not need)

            self._opened = open_log(self.settings)
        return self._opened

    def close(self) -> None:
        """Close the connection to the log, if one is open."""
        if self._opened is not None:
            self._opened.close()

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection once, without raising; nothing is recorded."""
        try:
            log = self.get_conn()
            try:
                log.facts(LOG, "log.created")
            finally:
                log.close()
        except Exception as error:  # the connection form shows any error
            return False, str(error)
        return True, f"the audit log {log.name} answers"
