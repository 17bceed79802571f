"""Copies a container's log to the task log in parts, by several processes, each line once; without a client."""

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
"""How far the clocks of two Airflow machines may differ."""
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class LogPosition:
    """How far a log has been copied; stored on the pod, where the next process finds it.

    :param read_at: when it was read, in seconds since 1970 by the clock of Airflow.
    :param time: time of the newest copied line, by the clock of the node and as Kubernetes writes it.
    :param count: number of copied lines with that time.
    """

    read_at: float = 0.0
    time: str = ""
    count: int = 0

    @classmethod
    def of(cls, annotations: Mapping[str, str] | None) -> Self:
        """Read the annotation of a pod; without a valid one, nothing has been copied."""
        try:
            read_at, time, count = (annotations or {}).get(ANNOTATION_LOG_POSITION, "").split(" ")
            datetime.fromisoformat(time)
            return cls(float(read_at), time, int(count))
        except ValueError:
            return cls()

    def annotation(self) -> dict[str, str]:
        """Return it as an annotation."""
        return {ANNOTATION_LOG_POSITION: f"{self.read_at:.0f} {self.time} {self.count}"}

    def since_seconds(self, now: float) -> int | None:
        """Return how far back to read to continue from here; None means from the start of the log.

        :param now: seconds since 1970.
        """
        if not self.time:
            return None
        return max(1, math.ceil(now - self.read_at) + _CLOCK_DIFFERENCE_SECONDS)


class FreshLog:
    """The lines of a log after a position; each line of its text begins with a time.

    :param start: what was copied before.
    """

    def __init__(self, start: LogPosition) -> None:
        self._start = start
        self._known = start.count
        self._is_past = not start.time
        self._time, self._count = start.time, start.count
        self._rest = b""

    def position(self, read_at: float) -> LogPosition:
        """Return the position after the lines so far.

        :param read_at: when the log was read, in seconds since 1970.
        """
        return LogPosition(read_at, self._time, self._count)

    def take(self, text: bytes) -> Iterator[str]:
        """Yield the new lines of the next part of the log; an unfinished line waits for the next part."""
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            yield from self._message(line)

    def end(self) -> Iterator[str]:
        """Yield the last line if it has no line end."""
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
        """Return whether a line was not copied before; lines of the last seconds may appear again."""
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
    """Return a sort key for times of any zone; Python keeps microseconds, Kubernetes nanoseconds."""
    return datetime.fromisoformat(time), time
