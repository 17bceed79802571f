"""Copies a workload's output to the log: whole lines, secrets masked, bounded in size and memory."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow_mcp.core.ports import TaskLog

LINE_LIMIT = 8192
"""Characters of one line that are kept."""
TAIL_LINES = 50
"""Lines that are kept for an error message, regardless of the log limit."""
MASK = "***"

_LINE_END = re.compile(rb"\r\n|\n|\r")
_SHORTEST_MASKED_PART = 4


class OutputLog:
    """Takes bytes as they arrive and logs each finished line.

    :param log: receives the lines.
    :param limit_bytes: bytes after which one notice is logged and nothing more.
    :param secrets: values that are replaced by ``***`` wherever they appear, URL-quoted and line by line too.
    """

    def __init__(self, log: TaskLog, *, limit_bytes: int, secrets: Iterable[str] = ()) -> None:
        self._log = log
        self._limit_bytes = limit_bytes
        forms = _forms_of(secrets)
        self._pattern = re.compile("|".join(re.escape(form) for form in forms)) if forms else None
        self._longest = max((len(form.encode(errors="replace")) for form in forms), default=0)
        self._pending = bytearray()
        self._dropped = 0
        self._after_carriage_return = False
        self._logged_bytes = 0
        self._is_full = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first, secrets masked."""
        return tuple(self._tail)

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a carriage return ends a line as a line feed does (progress bars)."""
        if self._after_carriage_return and data.startswith(b"\n"):
            data = data[1:]
        elif not data:
            return
        self._after_carriage_return = data.endswith(b"\r")
        *finished, rest = _LINE_END.split(data)
        for piece in finished:
            self._extend(piece)
            self._finish_line()
        self._extend(rest)

    def close(self) -> None:
        """Log the last line if it has no line end."""
        if self._pending:
            self._finish_line()

    def mask(self, text: str) -> str:
        """Return the text with every secret replaced."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def _extend(self, piece: bytes) -> None:
        room = LINE_LIMIT + self._longest - len(self._pending)
        self._pending += piece[:room]
        self._dropped += max(0, len(piece) - room)

    def _finish_line(self) -> None:
        text = self.mask(self._pending.decode(errors="replace"))
        dropped, self._dropped = self._dropped, 0
        self._pending.clear()
        if dropped:  # the end may be the first part of a secret whose rest was dropped: drop it too
            text = text[: len(text) - self._longest]
        if dropped or len(text) > LINE_LIMIT:
            text = f"{text[:LINE_LIMIT]} [line cut: only its first {LINE_LIMIT} characters are kept]"
        self._emit(text)

    def _emit(self, text: str) -> None:
        self._tail.append(text)
        if self._is_full:
            return
        self._logged_bytes += len(text.encode(errors="replace")) + 1
        if self._logged_bytes <= self._limit_bytes:
            self._log.info("%s", text)
            return
        self._is_full = True
        self._log.warning(
            "The output is longer than log_limit_bytes=%d; the rest is not copied to this log. "
            "The workload continues; its last %d lines are shown if it fails",
            *(self._limit_bytes, TAIL_LINES),
        )


def _forms_of(secrets: Iterable[str]) -> list[str]:
    forms: set[str] = set()
    for secret in secrets:
        parts = [part.strip() for part in secret.splitlines()]
        long_parts = [part for part in parts if len(part) >= _SHORTEST_MASKED_PART]
        forms.update((secret, secret.strip(), quote(secret, safe=""), *long_parts))
    forms.discard("")
    return sorted(forms, key=len, reverse=True)
