"""References to single values of Airflow connections, for the environment of a workload."""

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
    """A reference to one value of a connection."""

    variable: str
    """Environment variable that receives it."""
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
    """Parse references to values of connections; no connection is read.

    :param given: environment variable to ``<connection>.<field>``: one of :data:`FIELDS`, or ``extra.<key>``.
    :raises InvalidArgumentError: when a variable or a reference is not valid.
    """
    return tuple(_reference(variable, text) for variable, text in (given or {}).items())


def is_reference(text: Any) -> bool:
    """Return whether something is a reference: ``<connection>.<field>``."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


REFERENCE_WORDS = f"'<connection>.<field>' with a field of {', '.join(FIELDS)}, or '<connection>.extra.<key>'"
"""The form of a reference, in words."""


def _reference(variable: Any, text: Any) -> ConnectionValue:
    if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
        raise InvalidArgumentError(
            f"connection_env must map names of variables (letters, digits and _, no digit first); got {variable!r}"
        )
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        # The value may be the secret itself, so the message must not show it.
        raise InvalidArgumentError(
            f"connection_env: {variable} must be {REFERENCE_WORDS}; got a value that is not shown"
        )
    return ConnectionValue(variable, match["conn_id"], match["field"] or "", match["key"] or "")
