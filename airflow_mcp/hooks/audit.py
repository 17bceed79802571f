"""Hook for the audit log of moves and decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp import settings
from airflow_mcp.audit.settings import AuditSettings, settings_from_connection
from airflow_mcp.core.audit.log import LOG, AuditLog
from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from airflow.sdk import Connection

T = TypeVar("T")


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
            return _settings_of(self.get_connection(self.audit_conn_id))
        except AirflowNotFoundException:
            raise self._missing() from None

    def get_conn(self) -> AuditLog:
        """Return the log, which is opened when it is first used."""
        if self._opened is None:
            from airflow_mcp.audit.stores import open_log  # noqa: PLC0415  (sqlite3, which most tasks do not need)

            self._opened = open_log(self.settings)
        return self._opened

    async def ask(self, read: Callable[[AuditLog], T]) -> T:
        """Read from the log without blocking an event loop; its connection is closed afterwards.

        :param read: what to read; called in a thread.
        :raises InvalidArgumentError: when there is no such connection, or a field of it is not usable.
        :raises AuditUnavailableError: when the log does not answer.
        """
        try:
            found = _settings_of(await self.aget_connection(self.audit_conn_id))
        except AirflowNotFoundException:
            raise self._missing() from None

        def ask() -> T:
            from airflow_mcp.audit.stores import open_log  # noqa: PLC0415

            with closing(open_log(found)) as log:
                return read(log)

        return await asyncio.to_thread(ask)

    def _missing(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"[airflow_mcp] audit_conn_id must be the ID of a connection; got {self.audit_conn_id!r}, and there is no "
            "such connection"
        )

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


def _settings_of(connection: Connection) -> AuditSettings:
    found = settings_from_connection(connection, settings.environment())
    if found.password:
        mask_secret(found.password)
    return found
