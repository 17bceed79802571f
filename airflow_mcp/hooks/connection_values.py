"""Read single values of Airflow connections for the environment of a workload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.core.workload.connection_values import ConnectionValue
from airflow_mcp.exceptions import InvalidArgumentError


def read_connection_values(references: Iterable[ConnectionValue]) -> dict[str, str]:
    """Read values from Airflow connections, and mask them in the task's log from then on.

    :param references: the values to read.
    :return: values by the names of environment variables.
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
            f"connection_env: {reference.variable} needs {reference.place}, but there is no connection "
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
            f"connection_env: {reference.variable} needs {reference.place}, but "
            f"{f'extra key {reference.key!r}' if reference.key else f'field {reference.field!r}'} of connection "
            f"{reference.conn_id!r} {problem}. Nothing was started"
        )
    return str(found)
