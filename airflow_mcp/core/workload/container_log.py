"""Copying a container's log to the task log in parts, by several processes, each line once: plain text, no client."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from airflow_mcp.core.workload.pod import ANNOTATION_PREFIX

ANNOTATION_LOG_POSITION = f"{ANNOTATION_PREFIX}log-position"
_CLOCK_DIFFERENCE_SECONDS = 10
"""How far the clocks of two machines of Airflow may differ."""
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class LogPosition:
    """How far a log has been copied; written on the pod itself, so that whoever goes on finds it.

    :param read_at: when it was read, in seconds since 1970 by the clock of Airflow.
    :param time: time of the newest copied line, by the clock of the node and as Kubernetes writes it.
    :param count: copied lines of that very time.
    """

    read_at: float = 0.0
    time: str = ""
    count: int = 0

    @classmethod
    def of(cls, annotations: Mapping[str, str] | None) -> Self:
        """Read the annotation of a pod; without a usable one nothing has been copied."""
        try:
            read_at, time, count = (annotations or {}).get(ANNOTATION_LOG_POSITION, "").split(" ")
            datetime.fromisoformat(time)
            return cls(float(read_at), time, int(count))
        except ValueError:
            return cls()

    def annotation(self) -> dict[str, str]:
        """Write it as an annotation."""
        return {ANNOTATION_LOG_POSITION: f"{self.read_at:.0f} {self.time} {self.count}"}

    def since_seconds(self, now: float) -> int | None:
        """How far back to read on from here; None: from the start of the log.

        :param now: seconds since 1970.
        """
        if not self.time:
            return None
        return max(1, math.ceil(now - self.read_at) + _CLOCK_DIFFERENCE_SECONDS)


class FreshLog:
    """Gives the lines after a position from the text of a log, each of which begins with its time.

    :param start: what was copied before.
    """

    def __init__(self, start: LogPosition) -> None:
        self._start = start
        self._known = start.count
        self._is_past = not start.time
        self._time, self._count = start.time, start.count
        self._rest = b""

    def position(self, read_at: float) -> LogPosition:
        """Give the position after the lines given so far.

        :param read_at: when the log was read, in seconds since 1970.
        """
        return LogPosition(read_at, self._time, self._count)

    def take(self, text: bytes) -> Iterator[str]:
        """Give the new lines of the next part of the log; a line without its end waits for the part that has it."""
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            yield from self._message(line)

    def end(self) -> Iterator[str]:
        """Give the last line, should it never have been ended."""
        if self._rest:
            yield from self._message(self._rest)

    def _message(self, line: bytes) -> Iterator[str]:
        stamp, _, message = line.partition(b" ")
        if not _TIME.fullmatch(stamp):  # the rest of a very long line
            message = line
        elif not self._is_fresh(stamp.decode()):
            return
        if self._is_past and message:
            yield message.decode(errors="backslashreplace")

    def _is_fresh(self, time: str) -> bool:
        """Whether a line was not copied before: those before it may come again, from the last seconds."""
        if not self._is_past:
            if _order(time) < _order(self._start.time):
                return False
            if time == self._start.time and self._known:
                self._known -= 1
                return False
            self._is_past = True
        if time == self._time:
            self._count += 1
        elif not self._time or _order(time) > _order(self._time):
            self._time, self._count = time, 1
        return True


def _order(time: str) -> tuple[datetime, str]:
    """Order times across time zones; Python keeps microseconds, Kubernetes nanoseconds."""
    return datetime.fromisoformat(time), time
