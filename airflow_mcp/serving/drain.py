"""The end of the server: it stops being ready, asks callers to leave, and ends when the last answer is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Drain:
    """Whether the server is ending, and for how long it still takes requests.

    :param seconds: how long it takes requests after the signal, while load balancers notice that it is not ready.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_draining = False
        """Every answer then asks the caller to close the connection, and ``/readyz`` is 503."""

    async def run(self, end: Callable[[], None]) -> None:
        """Drain, then end.

        A connection that is closed only after an answer that says so breaks no request. One that is closed while the
        caller writes does.

        :param end: closes the listener; what is in flight still gets its answer.
        """
        if self.is_draining:
            return
        self.is_draining = True
        _log.info("draining for %g s", self._seconds)
        await asyncio.sleep(self._seconds)
        end()
