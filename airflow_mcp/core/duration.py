"""Durations as people write them: a whole number and a unit."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d{1,6})([smhd])")


def seconds_of(duration: str) -> int:
    """Convert a duration to seconds.

    :param duration: a whole number and ``s``, ``m``, ``h`` or ``d``.
    :raises ValueError: for anything else.
    """
    match = DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(
            f"must be a duration: a whole number followed by s, m, h or d, for example 30m; got {duration!r}"
        )
    return int(match[1]) * _SECONDS[match[2]]
