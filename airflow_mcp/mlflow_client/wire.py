"""Requests and answers, exchanged by the description of an MLflow operation and the driver that performs it.

An operation is a generator: it yields :class:`MlflowRequest`, is sent :class:`MlflowResponse`, and returns its
result. A failed request is thrown into it as one of the errors of :mod:`airflow_mcp.exceptions`. So every
operation is written once and performed by two drivers, a blocking and an asynchronous one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

T = TypeVar("T")

MEBIBYTE = 1024 * 1024
MAX_ANSWER_BYTES = 64 * MEBIBYTE
"""Longest answer that is read when the operation sets no other limit."""


ANSWER_TOO_LONG = "ANSWER_TOO_LONG"
"""Error code of a JSON answer that is longer than the request allows: smaller pages help."""


@dataclass(frozen=True)
class MlflowRequest:
    """One HTTP request to MLflow."""

    what: str
    """Short text of the request for messages: ``get run 'abc'``."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """Path below the server's base URL, without a leading slash, already percent-encoded."""
    params: tuple[tuple[str, str], ...] = ()
    json: Mapping[str, Any] | None = None
    content: bytes | None = None
    """Raw body; excludes ``json``."""
    content_type: str = "application/octet-stream"
    """Type of the raw body."""
    repeatable: bool = True
    """Whether sending it twice does the same as sending it once."""
    expects: Literal["json", "bytes", "attachment"] = "json"
    """An attachment is a body that the server declares to be a file."""
    max_bytes: int = MAX_ANSWER_BYTES
    """A longer answer is refused; bytes."""


@dataclass(frozen=True)
class MlflowResponse:
    """A successful answer."""

    asked: str
    """Short text of the request and the server, for messages."""
    data: Mapping[str, Any]
    """The JSON object; empty when bytes were expected."""
    content: bytes = b""
    """The body when bytes were expected."""


Operation: TypeAlias = Generator[MlflowRequest, MlflowResponse, T]
