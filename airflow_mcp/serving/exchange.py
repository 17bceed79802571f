"""One request and its answer, as metrics, logs and the log of predictions see it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from airflow_mcp.core.serving.traffic import Choice
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.pool import ModelAnswer, ModelRequest

Scope: TypeAlias = Mapping[str, Any]
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
_prefix = os.urandom(8).hex().encode()
_numbers = itertools.count(1)


class Headers(Mapping[str, str]):
    """Headers of a request by name in lower case; of a header that is there twice, the last one.

    :param pairs: names and values as the server has read them.
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values = dict(pairs)

    def raw(self, name: bytes) -> bytes:
        """Return a header; empty when it is missing."""
        return self._values.get(name, b"")

    def __getitem__(self, name: str) -> str:
        """Return a header as text."""
        return self._values[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return (name.decode("latin-1") for name in self._values)

    def __len__(self) -> int:
        """Return the number of headers."""
        return len(self._values)


class Exchange:
    """One request and its answer.

    :param scope: ASGI scope of the request.
    :param started: when it arrived, by ``time.perf_counter``: the clock of uvloop counts whole milliseconds.
    """

    __slots__ = (
        *("answer", "choice", "code", "headers", "is_disconnected", "lost", "model", "request", "request_id"),
        *("scope", "seconds", "started", "status", "subject"),
    )

    def __init__(self, scope: Scope, started: float) -> None:
        self.scope = scope
        self.started = started
        self.headers = Headers(scope["headers"])
        self.request_id: bytes = request_id(self.headers.raw(b"x-request-id"))
        self.model = ""
        """Name of the model that was asked; empty when it never came to that."""
        self.subject = ""
        """Subject of the caller's token; empty without one."""
        self.choice: Choice | None = None
        self.lost: ServedVersion | None = None
        """The version that was chosen first and ended before it answered; another one has answered."""
        self.request: ModelRequest | None = None
        self.answer: ModelAnswer | None = None
        self.status = 200
        self.code = ""
        """Code of the error; empty without one."""
        self.seconds = 0.0
        self.is_disconnected = False
        """Whether the caller had closed the connection before the answer was sent."""


Observer: TypeAlias = Callable[[Exchange], None]
"""Called with every exchange after its answer was sent; must be quick and raise nothing."""


def request_id(given: bytes) -> bytes:
    """Return the identity of a request: that of the caller if it is usable, otherwise a new one.

    :param given: header ``X-Request-ID``; kept if it is at most 128 visible ASCII characters.
    """
    if given and _VISIBLE.fullmatch(given):
        return given
    return b"%b-%x" % (_prefix, next(_numbers))
