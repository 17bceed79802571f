"""The audit log in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from airflow_mcp.audit.postgresql_schema import (
    CONFLICT,
    MAKE_FUNCTIONS,
    MAKE_OWNER,
    MAKE_TABLES,
    MAKE_TRIGGERS,
    OWNER,
    READER_FUNCTIONS,
    SCHEMA,
    WRITER_FUNCTIONS,
)
from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.core.audit.event import READS, AuditEvent
from airflow_mcp.core.audit.log import Appended
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.exceptions import (
    AuditConflictError,
    AuditUnavailableError,
    InvalidArgumentError,
    ModelControlPlaneError,
)

CONNECT_TIMEOUT = 5
"""Seconds."""
_LIMITS = "-c lock_timeout=2s -c statement_timeout=5s"
"""2 s: 32 writers wait less than 0.1 s for one another, so whoever waits longer waits for something that hangs."""
_PAGE = 5000
"""Records of an export that are in memory at once, about 3 MB."""
_NO_LOG = frozenset({"3F000", "42P01", "42883"})
_NO_RIGHT = "42501"
_WRONG_VALUES = "22"
"""Class of SQLSTATEs of values that the functions refuse."""


class PostgresAuditLog:
    """The log in a database of PostgreSQL, with one connection that is opened when it is first needed.

    :param settings: where it is, and the login.
    """

    def __init__(self, settings: AuditSettings) -> None:
        self.settings = settings
        self._connection: Any = None

    @property
    def name(self) -> str:
        """The store, for messages; without a credential."""
        return self.settings.name

    @property
    def serves_prod(self) -> bool:
        """True: logins have no right on the tables."""
        return True

    def append(self, event: AuditEvent) -> Appended:
        """Append an event, unless the log has it.

        :raises AuditConflictError: when the log has another event of this ID.
        :raises AuditUnavailableError: when the database does not answer, or does not permit writing now.
        :raises InvalidArgumentError: when the login may not append it, or there is no log.
        """
        ((seq, is_new),) = self._rows(f"SELECT * FROM {SCHEMA}.append(%s, %s)", (event.id, event.text))
        return Appended(seq, is_new)

    def facts(self, subject: str, action_prefix: str = "", last: int = 0) -> list[Record]:
        """Return the records of exactly one subject, oldest first."""
        rows = self._rows(f"SELECT * FROM {SCHEMA}.facts(%s, %s, %s)", (subject, action_prefix, last))
        return [read_record(line) for (line,) in rows]

    def erase(self, event: AuditEvent) -> Appended:
        """Record that the content of a record is erased, then erase it."""
        ((seq, is_new),) = self._rows(f"SELECT * FROM {SCHEMA}.erase(%s, %s)", (event.id, event.text))
        return Appended(seq, is_new)

    def read(self, event: AuditEvent) -> Iterator[bytes]:
        """Record a read, then yield the lines that were asked for, oldest first."""
        after = 0
        while True:
            query = f"SELECT * FROM {SCHEMA}.read(%s, %s, %s, %s)"
            rows = self._rows(query, (event.id, event.text, after, _PAGE))
            for after, line in rows:  # noqa: B007  (the last one is where the next page begins)
                yield line.encode()
            if event.action != "audit.exported" or len(rows) < _PAGE:
                return

    def close(self) -> None:
        """Close the connection; the log stays usable."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run one statement, again on a new connection when an old one was lost: every statement may run twice."""
        psycopg2 = _driver()
        was_open = self._connection is not None
        try:
            return self._ask(query, values)
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            is_lost = self._connection is None or bool(self._connection.closed)
            if not (was_open and is_lost):
                raise _translated(error, self.name) from error
        except psycopg2.Error as error:
            raise _translated(error, self.name) from error
        try:
            return self._ask(query, values)
        except psycopg2.Error as error:
            raise _translated(error, self.name) from error

    def _ask(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self.settings, _LIMITS)
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


def _driver() -> Any:
    """Return PostgreSQL's driver: 9 ms, and a library that only a governed installation has.

    :raises InvalidArgumentError: when it is not installed.
    """
    try:
        import psycopg2  # noqa: PLC0415
    except ImportError:
        raise InvalidArgumentError(
            "the audit log in PostgreSQL needs psycopg2, which is not installed here: pip install 'airflow-mcp[audit]'"
        ) from None
    return psycopg2


def connect(settings: AuditSettings, options: str = "") -> Any:
    """Return a connection on which every statement is a transaction of its own."""
    connection = _driver().connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.database,
        user=settings.login,
        password=settings.password,
        connect_timeout=CONNECT_TIMEOUT,
        options=options,
        application_name="airflow-mcp audit",
        **settings.ssl,
    )
    connection.autocommit = True
    return connection


def create(settings: AuditSettings, first: AuditEvent, rights: Mapping[str, Sequence[str]]) -> bool:
    """Create the log if there is none, and set what each login may append.

    :param settings: the database, with the login of a superuser.
    :param first: the event ``log.created``.
    :param rights: login to beginnings of actions. ``audit.read`` is the right to list, ``audit.exported`` to export.
    :return: whether the log is new.
    :raises AuditUnavailableError: when the database does not answer; nothing was changed.
    :raises InvalidArgumentError: when a login does not exist, or this one may not create the log; nothing was changed.
    """
    psycopg2 = _driver()
    try:
        with closing(connect(settings)) as connection:
            connection.autocommit = False
            with connection, connection.cursor() as cursor:
                cursor.execute(MAKE_OWNER)
                cursor.execute(f"SET LOCAL ROLE {OWNER}")
                for statement in (MAKE_TABLES, MAKE_TRIGGERS, MAKE_FUNCTIONS):
                    cursor.execute(statement)
                cursor.execute(f"SELECT seq FROM {SCHEMA}.head FOR UPDATE")
                is_new = bool(cursor.fetchone() == (0,))
                if is_new:
                    cursor.execute(f"SELECT {SCHEMA}.store(%s, %s)", (first.id, first.text))
                for login, prefixes in rights.items():
                    _grant(cursor, login, prefixes)
            return is_new
    except psycopg2.Error as error:
        raise _translated(error, settings.name) from error


def _grant(cursor: Any, login: str, prefixes: Sequence[str]) -> None:
    """Replace the rights of one login."""
    from psycopg2.extensions import quote_ident  # noqa: PLC0415

    name = quote_ident(login, cursor)
    cursor.execute(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {SCHEMA} FROM {name}")
    cursor.execute(f"DELETE FROM {SCHEMA}.may_append WHERE login = %s", (login,))
    reads = any(read.startswith(prefix) for prefix in prefixes for read in READS)
    writes = any(prefix not in READS for prefix in prefixes)
    functions = [*(READER_FUNCTIONS if reads else ()), *(WRITER_FUNCTIONS if writes else ())]
    if functions:
        cursor.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name}")
    for function in functions:
        cursor.execute(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.{function} TO {name}")
    for prefix in dict.fromkeys(prefixes):
        cursor.execute(f"INSERT INTO {SCHEMA}.may_append VALUES (%s, %s)", (login, prefix))


def _translated(error: Any, name: str) -> ModelControlPlaneError:
    """Return what an error of the database means for the caller."""
    code = error.pgcode or ""
    said = " ".join((error.diag.message_primary or str(error)).split())
    if code == CONFLICT:
        return AuditConflictError(f"the audit log {name} refuses an event: {said}. Nothing was recorded")
    if code == _NO_RIGHT:
        return InvalidArgumentError(
            f"the audit log {name} refuses this login: {said}. Nothing was recorded or read; a superuser grants rights "
            "with airflow-mcp audit init"
        )
    if code in _NO_LOG:
        return InvalidArgumentError(f"there is no audit log at {name}: {said}. Create it with airflow-mcp audit init")
    if code.startswith(_WRONG_VALUES) or code == "42704":
        return InvalidArgumentError(f"the audit log {name} refuses a value: {said}. Nothing was recorded")
    return AuditUnavailableError(
        f"the audit log {name} does not answer: {said}. Nothing is known to be recorded; a retry adds nothing twice"
    )
