"""What a watch of something outside remembers, and when what it sees is news."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MAX_SEEN = 200
"""How many sightings are remembered; older ones are forgotten."""
MAX_BACKOFF_SECONDS = 900.0


@dataclass(frozen=True)
class Sighting:
    """What is there at this moment."""

    mark: str
    """What differs when something has changed, for example the id of a commit."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What an event says about it: plain JSON without secrets."""
    once: str = ""
    """Name of what may be news only once, also when it comes back later; empty when coming back is news."""


@dataclass(frozen=True)
class Watermark:
    """What was there at the last look; ``mark`` is empty when nothing was."""

    mark: str = ""
    seen: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write it for a store."""
        return {"mark": self.mark, "seen": list(self.seen)}


def read_watermark(stored: Any) -> Watermark | None:
    """Read a watermark from a store.

    :param stored: what the store has, None included.
    :return: None when there is none, or it is not one of ours.
    """
    if not isinstance(stored, Mapping) or not isinstance(stored.get("mark"), str):
        return None
    seen = stored.get("seen")
    return Watermark(stored["mark"], tuple(str(name) for name in seen) if isinstance(seen, list) else ())


def look_at(before: Watermark | None, found: Sighting | None) -> tuple[Watermark, bool]:
    """Compare what is there with what was there.

    :param before: the last look; None before the first.
    :param found: what is there; None for nothing.
    :return: what to remember, and whether it is news. The first look is never news: it is what later ones compare
        with. That something is gone is no news either, and what was there before stays remembered.
    """
    if found is None:
        return before or Watermark(), False
    if before is None:
        return Watermark(found.mark, (found.once,) if found.once else ()), False
    if found.mark == before.mark:
        return before, False
    if not found.once:
        return replace(before, mark=found.mark), True
    if found.once in before.seen:
        return replace(before, mark=found.mark), False
    return Watermark(found.mark, (*before.seen, found.once)[-MAX_SEEN:]), True


def backoff_seconds(failures: int, poll_seconds: float, jitter: float) -> float:
    """Give the wait after failures in a row.

    :param failures: how many, at least 1.
    :param poll_seconds: the wait without failures.
    :param jitter: a random number from 0 to 1, so that many watches do not ask at the same moment.
    :return: the poll time, doubled with each further failure up to 15 minutes, with a quarter more or less.
    """
    longest = max(MAX_BACKOFF_SECONDS, poll_seconds)
    wait = min(longest, poll_seconds * 2.0 ** min(failures - 1, 20))
    return wait * (0.75 + jitter / 2)
