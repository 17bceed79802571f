"""Requests that ended a model process twice, and are not asked again for a while."""

from __future__ import annotations

POISON_SECONDS = 600.0
"""How long a request is remembered."""
MAX_POISON = 1000
"""How many are remembered."""


class PoisonousRequests:
    """Digests of requests that ended a model process, and until when they are refused."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        """Return whether any request is remembered, so that most requests need no digest."""
        return bool(self._until)

    def add(self, digest: bytes, now: float) -> None:
        """Remember a request. When too many are remembered, the oldest one is forgotten.

        :param digest: digest of its rows.
        :param now: present time, in seconds.
        """
        self._until.pop(digest, None)  # so that the order is that of the times
        self._until[digest] = now + POISON_SECONDS
        while len(self._until) > MAX_POISON:
            del self._until[next(iter(self._until))]

    def refuses(self, digest: bytes, now: float) -> bool:
        """Return whether a request must not be asked now; forgets it when its time is over.

        :param digest: digest of its rows.
        :param now: present time, in seconds.
        """
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]
        return digest in self._until
