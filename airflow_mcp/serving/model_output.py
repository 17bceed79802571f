"""What model processes print, copied into the log of the server line by line, and never more than it can take."""

from __future__ import annotations

import asyncio
import logging
import time

_log = logging.getLogger(__name__)
_READ_BYTES = 64 * 1024
_MAX_LINE = 8 * 1024
"""Characters of a line that are kept."""
_MAX_LINES = 200
"""Lines per second; a model that prints for every row would otherwise cost more than it answers."""


async def copy_output(output: asyncio.StreamReader, name: str) -> None:
    """Copy what a process prints until it ends.

    :param output: its standard output and standard error.
    :param name: name and version of the model, for the log.
    """
    waiting, copied, dropped, second = b"", 0, 0, 0
    while data := await output.read(_READ_BYTES):
        *lines, waiting = (waiting + data).split(b"\n")
        waiting = waiting[:_READ_BYTES]
        for line in lines:
            if int(time.monotonic()) != second:
                if dropped:
                    _log.warning("%s: %d lines were left out", name, dropped)
                second, copied, dropped = int(time.monotonic()), 0, 0
            if copied < _MAX_LINES:
                copied += 1
                _log.info("%s: %s", name, line.decode("utf-8", "replace")[:_MAX_LINE])
            else:
                dropped += 1
