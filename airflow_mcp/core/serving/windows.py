"""Sliding windows over answers, by the time when their requests arrived: the order of the answers does not matter.

An answer that takes longer comes later, and logs of several replicas are not in order at all. A window is therefore
closed only when the watermark has passed its end: the newest time that is known, less the lateness that is allowed.
Nothing here knows the time: every call has it, in seconds of one clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from airflow_mcp.exceptions import InvalidArgumentError

WINDOW_SECONDS, EVERY_SECONDS = 10, 5
"""A window of 10 s ends every 5 s, so each request is in two of them."""
LATENESS_SECONDS = 5.0
"""An answer may come this much later than the newest one; a window is closed this long after its end."""
LATENCY_EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper edges, in seconds, by which latencies are counted."""


@dataclass(frozen=True)
class Window:
    """What was answered to the requests that arrived within one window."""

    start: float
    end: float
    answered: int
    """Predictions, and errors that the model is to blame for."""
    failed: int
    """Those that were errors."""
    refused: int
    """Requests that were refused because too many waited."""
    counts: tuple[int, ...]
    """Answers by latency: one number for each edge, and one for all that took longer."""
    edges: tuple[float, ...] = LATENCY_EDGES

    def slower_than(self, edge: float) -> float:
        """Return the share of the answers that took longer than an edge; NaN without answers.

        :param edge: seconds; must be one of the edges.
        """
        if not self.answered:
            return math.nan
        return sum(self.counts[self.edges.index(edge) + 1 :]) / self.answered

    def quantile(self, share: float) -> float:
        """Return the edge below which a share of the answers lies: seconds, infinite beyond the last edge.

        :param share: above 0 and at most 1.
        :return: NaN without answers.
        """
        if not self.answered:
            return math.nan
        reached, wanted = 0, share * self.answered
        for edge, count in zip((*self.edges, math.inf), self.counts, strict=True):
            reached += count
            if reached >= wanted:
                return edge
        return math.inf


@dataclass
class _Pane:
    """Counts of the requests that arrived between the ends of two windows."""

    counts: list[int]
    answered: int = 0
    failed: int = 0
    refused: int = 0


class SlidingWindows:
    """Counts answers into windows, and closes each window once.

    Only whole numbers are added up, so the same answers in another order give the same windows, as long as none is
    later than allowed.

    :param seconds: length of a window; a multiple of ``every``.
    :param every: seconds between the ends of two windows.
    :param lateness: seconds by which an answer may come later than the newest one.
    :param edges: upper edges, in seconds, by which latencies are counted; rising.
    :raises InvalidArgumentError: when the lengths do not fit.
    """

    def __init__(
        self,
        *,
        seconds: int = WINDOW_SECONDS,
        every: int = EVERY_SECONDS,
        lateness: float = LATENESS_SECONDS,
        edges: tuple[float, ...] = LATENCY_EDGES,
    ) -> None:
        if every < 1 or seconds < every or seconds % every:
            raise InvalidArgumentError(f"seconds must be a multiple of every, at least 1; got {seconds} and {every}")
        if not 0 <= lateness < math.inf:
            raise InvalidArgumentError(f"lateness must be 0 or more seconds; got {lateness}")
        self._every, self._panes_each = every, seconds // every
        self._lateness, self._edges = lateness, edges
        self._panes: dict[int, _Pane] = {}
        self._newest = -math.inf
        self._closed: int | None = None
        """End of the latest closed window, in panes; panes before it take no more answers. None before the first."""

    @property
    def closed_until(self) -> float:
        """End of the latest window that was closed; minus infinity before the first."""
        return -math.inf if self._closed is None else float(self._closed * self._every)

    def add(self, at: float, seconds: float, *, failed: bool) -> bool:
        """Count an answer.

        :param at: when its request arrived.
        :param seconds: how long it took.
        :param failed: whether it was an error that the model is to blame for.
        :return: False when a window that it belongs to is closed already; it is then not counted.
        """
        pane = self._pane(at)
        if pane is None:
            return False
        pane.answered += 1
        pane.failed += failed
        pane.counts[bisect_left(self._edges, seconds)] += 1
        return True

    def refuse(self, at: float) -> bool:
        """Count a request that was refused because too many waited.

        :param at: when it arrived.
        :return: as for :meth:`add`.
        """
        pane = self._pane(at)
        if pane is None:
            return False
        pane.refused += 1
        return True

    def close(self, now: float = -math.inf) -> list[Window]:
        """Close the windows that the watermark has passed, and return those with requests, in order.

        :param now: present time, when there is a clock; without one, only newer answers close a window.
        """
        return self._close_before(max(self._newest, now) - self._lateness)

    def close_all(self) -> list[Window]:
        """Close every window that has requests, at the end of a log, and return them in order."""
        return self._close_before(self._newest + self._every * (self._panes_each + 1)) if self._panes else []

    def _pane(self, at: float) -> _Pane | None:
        self._newest = max(self._newest, at)
        number = math.floor(at / self._every)
        if self._closed is not None and number < self._closed:
            return None
        found = self._panes.get(number)
        if found is None:
            found = self._panes[number] = _Pane([0] * (len(self._edges) + 1))
        return found

    def _close_before(self, watermark: float) -> list[Window]:
        if not math.isfinite(watermark):
            return []
        last = math.floor(watermark / self._every)
        found = []
        for end in sorted({pane + later for pane in self._panes for later in range(1, self._panes_each + 1)}):
            if end <= last and (self._closed is None or end > self._closed):
                found.append(self._window(end))
        self._closed = last if self._closed is None else max(self._closed, last)
        for number in [number for number in self._panes if number + self._panes_each <= self._closed]:
            del self._panes[number]
        return found

    def _window(self, end: int) -> Window:
        first = end - self._panes_each
        panes = [self._panes[number] for number in range(first, end) if number in self._panes]
        return Window(
            start=float(first * self._every),
            end=float(end * self._every),
            answered=sum(pane.answered for pane in panes),
            failed=sum(pane.failed for pane in panes),
            refused=sum(pane.refused for pane in panes),
            counts=tuple(map(sum, zip(*(pane.counts for pane in panes), strict=True))),
            edges=self._edges,
        )
