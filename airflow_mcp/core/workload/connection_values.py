"""Where single values of Airflow connections are kept, for the environment of a workload."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def is_reference(text: Any) -> bool:
    """Whether something says where a value is: ``<connection>.<field>``."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


REFERENCE_WORDS = f"'<connection>.<field>' with a field of {', '.join(FIELDS)}, or '<connection>.extra.<key>'"
"""What is allowed as a reference, in words."""


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
            f"{REFERENCE_WORDS}"
        )
    return ConnectionValue(variable, match["conn_id"], match["field"] or "", match["key"] or "")
