"""Which store an audit log has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_mcp.audit import postgresql
from airflow_mcp.audit.postgresql import PostgresAuditLog
from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.core.audit.event import AuditEvent
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.exceptions import InvalidArgumentError


def open_log(settings: AuditSettings) -> AuditLog:
    """Return the log; nothing is connected or opened before it is used.

    :param settings: where it is.
    """
    return SqliteAuditLog(settings) if settings.sqlite_path else PostgresAuditLog(settings)


def create_log(settings: AuditSettings, first: AuditEvent, rights: Mapping[str, Sequence[str]]) -> bool:
    """Create a log if there is none, and set what each login may append.

    :param settings: where it is; for PostgreSQL with the login of a superuser.
    :param first: the event ``log.created``.
    :param rights: login to beginnings of actions; for PostgreSQL only.
    :return: whether the log is new.
    :raises InvalidArgumentError: when rights are set for SQLite, which has no logins; or the database refuses.
    :raises AuditUnavailableError: when the store does not answer.
    """
    if not settings.sqlite_path:
        return postgresql.create(settings, first, rights)
    if rights:
        raise InvalidArgumentError("logins must be granted rights in PostgreSQL only; got SQLite, which has no logins")
    log = SqliteAuditLog(settings)
    try:
        return log.create(first)
    finally:
        log.close()
