"""What all polling triggers share; and event triggers: the loop, and the watermark in Airflow's state of the asset."""

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
"""Key in the state of the asset; never renamed."""
SETTLE_SECONDS = 5.0
"""Wait between an event and its watermark: the triggerer hands an event on within a second or two."""


def checked_poll_seconds(value: Any) -> float:
    """Check an argument ``poll_seconds``.

    :raises InvalidArgumentError: when it is no number of seconds, at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e9:
        raise InvalidArgumentError(f"poll_seconds is {value!r}; allowed: a number of seconds, at least 1")
    return float(value)


class Patience:
    """Says how long to wait for the next look, and an error once per kind until a look succeeds again.

    :param subject: what is looked at, in words.
    :param log: the trigger's log.
    :param poll_seconds: the wait after a look that succeeded.
    """

    def __init__(self, subject: str, log: Any, poll_seconds: float) -> None:
        self.subject, self.log, self.poll_seconds = subject, log, poll_seconds
        self._failures = 0
        self._told: set[str] = set()

    def succeeded(self) -> float:
        """Give the wait after a look that succeeded."""
        self._failures = 0
        self.tell_end()
        return self.poll_seconds

    def failed(self, error: Exception) -> float:
        """Give the wait after a look that failed: longer each time."""
        self._failures += 1
        wait = backoff_seconds(self._failures, self.poll_seconds, random.random())  # noqa: S311  (spreads the load)
        self.tell(error, wait)
        return wait

    def tell_end(self) -> None:
        """Say that a look has succeeded, when errors were said before."""
        if self._told:
            self.log.info("%s can be looked at again", self.subject)
        self._told.clear()

    def tell(self, error: Exception, wait: float) -> None:
        """Say an error, once per kind.

        :param error: what is wrong.
        :param wait: seconds to the next look.
        """
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            is_ours = isinstance(error, ModelControlPlaneError)
            self.log.warning(
                "%s cannot be looked at; next try in %.0f s, then later each time. %s: %s",
                self.subject,
                math.ceil(wait),
                kind,
                error,
                exc_info=None if is_ours else error,
            )


async def read_state(trigger: BaseEventTrigger, read: Callable[[Any], T | None]) -> T | None:
    """Read what was kept in Airflow's state of the assets that a trigger watches for.

    :param trigger: equal triggers of several assets are one, so there may be several states.
    :param read: makes a watermark of what is stored, or None when it is none.
    :return: the first watermark; None when there is none.
    """
    for store in _stores(trigger):
        watermark = read(await store.aget(STATE_KEY))
        if watermark is not None:
            return watermark
    return None


async def write_state(trigger: BaseEventTrigger, value: dict[str, Any]) -> None:
    """Keep a watermark in the state of every asset that a trigger watches for."""
    for store in _stores(trigger):
        await store.aset(STATE_KEY, value)


def _stores(trigger: BaseEventTrigger) -> list[Any]:
    stores = trigger.asset_state_store
    if stores is None:
        return []
    return asset_state_stores(stores)


class PollingTrigger(BaseTrigger):
    """What all triggers share that look again and again: the pace, a name for people, the way through the database.

    :param poll_seconds: seconds between two looks, at least 1; longer while looking fails.
    """

    def __init__(self, *, poll_seconds: float = DEFAULT_POLL_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_seconds = checked_poll_seconds(poll_seconds)

    @property
    @abstractmethod
    def subject(self) -> str:
        """What is looked at, in words."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor, without ``poll_seconds``."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give class path and arguments for the database."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {**self.arguments(), "poll_seconds": self.poll_seconds}


class WatchTrigger(PollingTrigger, BaseEventTrigger):
    """Look at something outside again and again, and give an event when it has changed.

    The watermark is written after an event was handed on: a triggerer that dies in between gives the event again, and
    none is lost. :meth:`run` never raises: an error is logged once per kind and tried again, later each time.

    :param poll_seconds: seconds between two looks, at least 1.
    """

    settle_seconds = SETTLE_SECONDS

    @abstractmethod
    async def look(self) -> Sighting | None:
        """Look once; None when there is nothing."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch for ever; gives an event for each change."""
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

    # --- what is said ----------------------------------------------------------------------------------------------

    def _tell_first_look(self, before: Watermark | None, found: Sighting | None) -> None:
        if before is None:
            there = f"it is at {found.mark}" if found else "nothing is there yet"
            self.log.info("First look at %s: %s; the next change starts a run", self.subject, there)
