"""The breakers of the versions that answer: counted after each answer, looked at every second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from airflow_mcp.core.serving.breaker import Breaker
from airflow_mcp.core.serving.traffic import BreakerRule
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.exchange import Exchange

_log = logging.getLogger(__name__)
BLAMED = frozenset({"model_failed", "model_crashed", "timeout", "upstream_failed"})
"""Codes of errors that the model is to blame for."""


@dataclass(frozen=True)
class Watched:
    """A version with a breaker."""

    rule: BreakerRule
    is_canary: bool
    since: str
    """What the registry said when it was watched first. An open breaker closes when this changes."""


class Breakers:
    """The breakers of all versions.

    :param clock: returns seconds that do not go back.
    :param on_open: called when one opens.
    """

    def __init__(self, clock: Callable[[], float], on_open: Callable[[], None]) -> None:
        self._clock = clock
        self._on_open = on_open
        self._breakers: dict[ServedVersion, tuple[Watched, Breaker]] = {}

    @property
    def open(self) -> frozenset[ServedVersion]:
        """Versions whose breaker is open."""
        return frozenset(key for key, (_, breaker) in self._breakers.items() if breaker.is_open)

    def reason(self, key: ServedVersion) -> str:
        """Return why the breaker of a version is open; empty when it is not."""
        found = self._breakers.get(key)
        return found[1].state.reason if found is not None else ""

    def watch(self, wanted: dict[ServedVersion, Watched]) -> None:
        """Have breakers for these versions and no others.

        :param wanted: what is watched. A breaker that is closed keeps its counts as long as its rule stays the same.
        """
        kept: dict[ServedVersion, tuple[Watched, Breaker]] = {}
        for key, watched in wanted.items():
            old, breaker = self._breakers.get(key, (None, None))
            is_same = old is not None and (old.rule, old.is_canary) == (watched.rule, watched.is_canary)
            if breaker is None or not is_same or (breaker.is_open and old is not None and old.since != watched.since):
                breaker = Breaker(watched.rule, is_canary=watched.is_canary)
            kept[key] = (watched, breaker)
        self._breakers = kept

    def record(self, exchange: Exchange) -> None:
        """Count an exchange after its answer."""
        if not self._breakers:
            return
        now = self._clock()
        lost = self._breakers.get(exchange.lost) if exchange.lost is not None else None
        if lost is not None:
            lost[1].add(now, exchange.seconds, failed=True)
        choice = exchange.choice
        found = self._breakers.get(choice.version) if choice is not None else None
        if found is not None and (exchange.status < 400 or exchange.code in BLAMED):
            found[1].add(now, exchange.seconds, failed=exchange.status >= 500)

    def look(self) -> None:
        """Look at every breaker; called every second."""
        now = self._clock()
        opened = [key for key, (_, breaker) in self._breakers.items() if breaker.look(now)]
        for key in opened:
            _log.error("the breaker of %s opens: %s", key, self.reason(key))
        if opened:
            self._on_open()
