"""The bases of polling triggers and event triggers: the loop, and the watermark in the state store of the asset."""

from __future__ import annotations

import asyncio
import math
import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mcp.airflow_private import asset_state_stores
from airflow_mcp.core.watermark import Sighting, Watermark, backoff_seconds, look_at, read_watermark
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError

T = TypeVar("T")

DEFAULT_POLL_SECONDS = 60.0
STATE_KEY = "airflow_mcp.watermark"
"""Key in the state store of the asset; never renamed."""
SETTLE_SECONDS = 5.0
"""Wait between an event and its watermark: the triggerer passes an event on within a second or two."""


def checked_poll_seconds(value: Any) -> float:
    """Check the argument ``poll_seconds``.

    :raises InvalidArgumentError: when it is not a number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e9:
        raise InvalidArgumentError(f"poll_seconds must be a number of seconds, at least 1; got {value!r}")
    return float(value)


class Patience:
    """The wait before the next look, and the log of errors: once per kind until a look succeeds again.

    :param subject: what is watched, in words.
    :param log: the trigger's log.
    :param poll_seconds: the wait after a look that succeeded.
    """

    def __init__(self, subject: str, log: Any, poll_seconds: float) -> None:
        self.subject, self.log, self.poll_seconds = subject, log, poll_seconds
        self._failures = 0
        self._told: set[str] = set()

    def succeeded(self) -> float:
        """Return the wait after a look that succeeded."""
        self._failures = 0
        self.tell_end()
        return self.poll_seconds

    def failed(self, error: Exception) -> float:
        """Log an error, and return the wait after a look that failed: longer each time."""
        self._failures += 1
        wait = backoff_seconds(self._failures, self.poll_seconds, random.random())  # noqa: S311  (spreads the load)
        self.tell(error, wait)
        return wait

    def tell_end(self) -> None:
        """Log that a look has succeeded, if errors were logged before."""
        if self._told:
            self.log.info("%s can be read again", self.subject)
        self._told.clear()

    def tell(self, error: Exception, wait: float) -> None:
        """Log an error, once per kind.

        :param error: the error.
        :param wait: seconds until the next look.
        """
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            is_ours = isinstance(error, ModelControlPlaneError)
            self.log.warning(
                "%s cannot be read. The next look is in %.0f s, and later each time. %s: %s",
                self.subject,
                math.ceil(wait),
                kind,
                error,
                exc_info=None if is_ours else error,
            )


async def read_state(trigger: BaseEventTrigger, read: Callable[[Any], T | None]) -> T | None:
    """Read the watermark in the state stores of the assets that a trigger watches for.

    :param trigger: the trigger; equal triggers of several assets are one, so there may be several stores.
    :param read: function that reads a stored value; None when it is not a watermark.
    :return: the first watermark; None when there is none.
    """
    for store in _stores(trigger):
        watermark = read(await store.aget(STATE_KEY))
        if watermark is not None:
            return watermark
    return None


async def write_state(trigger: BaseEventTrigger, value: dict[str, Any]) -> None:
    """Write a watermark to the state store of every asset that a trigger watches for."""
    for store in _stores(trigger):
        await store.aset(STATE_KEY, value)


def _stores(trigger: BaseEventTrigger) -> list[Any]:
    stores = trigger.asset_state_store
    if stores is None:
        return []
    return asset_state_stores(stores)


class PollingTrigger(BaseTrigger):
    """Base of triggers that look repeatedly: the pace, a name for messages, the serialization for the database.

    :param poll_seconds: seconds between two looks, at least 1; longer while looking fails.
    """

    def __init__(self, *, poll_seconds: float = DEFAULT_POLL_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_seconds = checked_poll_seconds(poll_seconds)

    @property
    @abstractmethod
    def subject(self) -> str:
        """What is watched, in words, for messages."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments for the database."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {**self.arguments(), "poll_seconds": self.poll_seconds}


class WatchTrigger(PollingTrigger, BaseEventTrigger):
    """Base of triggers that watch something outside Airflow and give an event when it has changed.

    The watermark is written after the event: a triggerer that dies in between gives the event again, and none is lost.
    :meth:`run` never raises: an error is logged once per kind, and the next look comes later each time.

    :param poll_seconds: seconds between two looks, at least 1.
    """

    settle_seconds = SETTLE_SECONDS

    @abstractmethod
    async def look(self) -> Sighting | None:
        """Return what is there now; None when there is nothing."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch forever; gives an event for each change."""
        known: Watermark | None = None
        written: Watermark | None = None
        is_read = False
        patience = Patience(self.subject, self.log, self.poll_seconds)
        while True:
            try:
                if not is_read:
                    known = written = await self._read()
                    is_read = True
                found = await self.look()
                before, (known, is_news) = known, look_at(known, found)
                self._tell_first_look(before, found)
                if found is not None and is_news:
                    yield TriggerEvent(dict(found.payload))  # type: ignore[no-untyped-call]
                    await asyncio.sleep(self.settle_seconds)
                if known != written:
                    await self._write(known)
                    written = known
                wait = patience.succeeded()
            except Exception as error:
                wait = patience.failed(error)
            await asyncio.sleep(wait)

    # --- the watermark ---------------------------------------------------------------------------------------------

    async def _read(self) -> Watermark | None:
        return await read_state(self, read_watermark)

    async def _write(self, watermark: Watermark) -> None:
        await write_state(self, watermark.to_json())

    # --- the log ----------------------------------------------------------------------------------------------------

    def _tell_first_look(self, before: Watermark | None, found: Sighting | None) -> None:
        if before is None:
            there = f"it is at {found.mark}" if found else "nothing is there yet"
            self.log.info("First look at %s: %s. The next change gives an event", self.subject, there)
