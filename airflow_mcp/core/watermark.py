"""The watermark of a watch: what was seen, and which sightings are news."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MAX_SEEN = 200
"""Number of sightings that are remembered."""
MAX_BACKOFF_SECONDS = 900.0


@dataclass(frozen=True)
class Sighting:
    """What is there now."""

    mark: str
    """Changes whenever the watched thing changes, for example the id of a commit."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Payload of the event: plain JSON without secrets."""
    once: str = ""
    """Key of a sighting that is news only once, even if it comes back; empty when coming back is news."""


@dataclass(frozen=True)
class Watermark:
    """What was there at the last look; ``mark`` is empty for nothing."""

    mark: str = ""
    seen: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the watermark as plain JSON."""
        return {"mark": self.mark, "seen": list(self.seen)}


def read_watermark(stored: Any) -> Watermark | None:
    """Read a stored watermark.

    :param stored: the stored value; may be None.
    :return: None when there is none, or another program wrote it.
    """
    if not isinstance(stored, Mapping) or not isinstance(stored.get("mark"), str):
        return None
    seen = stored.get("seen")
    return Watermark(stored["mark"], tuple(str(name) for name in seen) if isinstance(seen, list) else ())


def look_at(before: Watermark | None, found: Sighting | None) -> tuple[Watermark, bool]:
    """Compare what is there with what was there.

    :param before: the last look; None before the first.
    :param found: what is there; None for nothing.
    :return: the new watermark, and whether there is news. The first look is never news, it is the basis of comparison.
        Something that is gone is not news either, and stays remembered.
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
    """Return the wait after failures in a row, in seconds.

    :param failures: number of failures, at least 1.
    :param poll_seconds: the wait without failures.
    :param jitter: a random number from 0 to 1, so that watches do not all look at the same moment.
    :return: the poll time, doubled with each further failure up to 15 minutes, plus or minus a quarter.
    """
    longest = max(MAX_BACKOFF_SECONDS, poll_seconds)
    wait = min(longest, poll_seconds * 2.0 ** min(failures - 1, 20))
    return wait * (0.75 + jitter / 2)
