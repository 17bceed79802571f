"""Single values of Airflow connections, for the environment of a workload."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.exceptions import InvalidArgumentError

FIELDS = ("login", "password", "host", "port", "schema", "uri")
_REFERENCE = re.compile(rf"(?P<conn_id>.+?)\.(?:(?P<field>{'|'.join(FIELDS)})|extra\.(?P<key>.+))")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class ConnectionValue:
    """Where one value is kept."""

    variable: str
    """Environment variable that it is for."""
    conn_id: str
    field: str
    """One of ``FIELDS``; empty for a key of the extra."""
    key: str
    """Key of the extra; empty for a field."""

    @property
    def place(self) -> str:
        """The reference as it was written."""
        return f"{self.conn_id}.{self.field or f'extra.{self.key}'}"


def connection_values(given: Mapping[str, str] | None) -> tuple[ConnectionValue, ...]:
    """Read references to values of connections, without looking at any connection.

    :param given: environment variable to ``<connection>.<field>``: one of :data:`FIELDS`, or ``extra.<key>``.
    :raises InvalidArgumentError: naming the variable, the reference and what is allowed.
    """
    return tuple(_reference(variable, text) for variable, text in (given or {}).items())


def _reference(variable: Any, text: Any) -> ConnectionValue:
    if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
        raise InvalidArgumentError(
            f"connection_env: {variable!r} is no name for a variable; allowed: letters, digits and _, no digit first"
        )
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        # What was given may be the secret itself, so it is not repeated.
        raise InvalidArgumentError(
            f"connection_env: {variable} does not say where its value is (what was given is not shown); allowed: "
            f"'<connection>.<field>' with a field of {', '.join(FIELDS)}, or '<connection>.extra.<key>'"
        )
    return ConnectionValue(variable, match["conn_id"], match["field"] or "", match["key"] or "")


def read_connection_values(references: Iterable[ConnectionValue]) -> dict[str, str]:
    """Read values from Airflow's connections; they are masked in the task's log from then on.

    :param references: what to read.
    :return: environment variable to value.
    :raises InvalidArgumentError: naming connection and field, when one of them is missing or empty.
    """
    known: dict[str, Connection] = {}
    values = {}
    for reference in references:
        if reference.conn_id not in known:
            known[reference.conn_id] = _connection(reference)
        value = _value(known[reference.conn_id], reference)
        mask_secret(value)
        values[reference.variable] = value
    return values


def _connection(reference: ConnectionValue) -> Connection:
    try:
        connection: Connection = Connection.get(reference.conn_id)
    except AirflowNotFoundException:
        raise InvalidArgumentError(
            f"connection_env: {reference.variable} is to come from {reference.place}, but there is no connection "
            f"{reference.conn_id!r}. Nothing was started"
        ) from None
    return connection


def _value(connection: Connection, reference: ConnectionValue) -> str:
    found: Any
    if reference.key:
        extra: Any = connection.extra_dejson
        found = extra.get(reference.key) if isinstance(extra, dict) else None
    elif reference.field == "uri":
        found = connection.get_uri()
    else:
        found = getattr(connection, reference.field)
    if found in (None, "") or isinstance(found, (dict, list)):
        problem = "is empty or missing" if found in (None, "") else "is an object or a list, not a single value"
        raise InvalidArgumentError(
            f"connection_env: {reference.variable} is to come from {reference.place}, but "
            f"{f'extra key {reference.key!r}' if reference.key else f'field {reference.field!r}'} of connection "
            f"{reference.conn_id!r} {problem}. Nothing was started"
        )
    return str(found)
