"""One JSON line per request on standard output, written by a thread so that a slow reader never delays an answer."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

import msgspec

from airflow_mcp.core.trace import trace_id_of
from airflow_mcp.serving.exchange import Exchange

_FLUSH_SECONDS = 0.2
_MAX_WAITING_LINES = 20_000
"""About 6 MB of lines wait for a reader that does not read; further lines are dropped and counted."""


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    logger: str
    message: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    model: str = ""
    version: str = ""
    role: str = ""
    rows: int = 0
    error: str = ""
    trace_id: str = ""


class AccessLog:
    """Writer of the lines.

    :param descriptor: file descriptor that they are written to.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._encode = msgspec.json.Encoder().encode
        self._lines: deque[bytes] = deque()
        self._second, self._second_text = 0, ""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write_until_the_end, name="access-log", daemon=True)
        self.dropped = 0
        """Lines that were not written because nobody read them."""
        self._thread.start()

    def record(self, exchange: Exchange) -> None:
        """Queue the line of an exchange."""
        scope, choice, answer = exchange.scope, exchange.choice, exchange.answer
        status = 499 if exchange.is_disconnected else exchange.status
        line = _Line(
            self._now(),
            "info" if status < 500 else "error",
            __name__,
            "request",
            exchange.request_id.decode(),
            scope["method"],
            scope["path"],
            status,
            round(exchange.seconds * 1000, 3),
            exchange.model,
            "" if choice is None else choice.version.version,
            "" if choice is None else choice.role,
            0 if answer is None else answer.rows,
            exchange.code,
            trace_id_of(traceparent.decode("latin-1")) if (traceparent := exchange.headers.raw(b"traceparent")) else "",
        )
        if len(self._lines) >= _MAX_WAITING_LINES:
            self.dropped += 1
        else:
            self._lines.append(self._encode(line))

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._ends.set()
        self._thread.join(timeout=2.0)

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _write_until_the_end(self) -> None:
        while not self._ends.wait(_FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if not lines:
            return
        text = memoryview(b"\n".join(lines) + b"\n")
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:
            self.dropped += len(lines)
