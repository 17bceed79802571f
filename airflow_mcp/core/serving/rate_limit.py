"""How many requests a server accepts: token buckets, for everybody together or for each caller."""

from __future__ import annotations

import math
from collections import OrderedDict

MAX_BUCKETS = 10_000
"""Callers that are remembered; the one that was seen longest ago is forgotten first."""
SHARED = ""
"""Subject of the bucket that everybody shares."""


class TokenBucket:
    """A bucket that holds one second of requests: after a quiet second the burst may be as large as the rate.

    :param rate: requests per second.
    :param now: present time, in seconds, by a clock that does not go back.
    """

    __slots__ = ("_capacity", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = max(rate, 1.0)  # a rate below one request per second still lets one request pass
        self._tokens = self._capacity
        self._updated = now

    def take(self, now: float) -> float:
        """Take one token.

        :param now: present time, in seconds.
        :return: 0 when the request is accepted; otherwise the seconds until the next one will be.
        """
        self._refill(now)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def change(self, rate: float, now: float) -> None:
        """Count with another rate from now on.

        :param rate: requests per second.
        :param now: present time, in seconds.
        """
        self._refill(now)
        self._rate, self._capacity = rate, max(rate, 1.0)
        self._tokens = min(self._tokens, self._capacity)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._capacity, self._tokens + max(now - self._updated, 0.0) * self._rate)
        self._updated = max(now, self._updated)


class RateLimiter:
    """Buckets of one policy.

    :param rate: requests per second of each bucket; with ``replicas``, of all servers together.
    :param per_subject: whether each caller has a bucket of its own.
    """

    def __init__(self, rate: float, *, per_subject: bool = False) -> None:
        self._whole = rate
        self._rate = rate
        self.per_subject = per_subject
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def set_replicas(self, replicas: int, now: float) -> None:
        """Divide the rate among the servers of a service.

        :param replicas: number of servers, at least 1.
        :param now: present time, in seconds.
        """
        rate = self._whole / max(replicas, 1)
        if rate != self._rate:
            self._rate = rate
            for bucket in self._buckets.values():
                bucket.change(rate, now)

    def take(self, now: float, subject: str = SHARED) -> float:
        """Count a request.

        :param now: present time, in seconds.
        :param subject: the caller; ignored unless each caller has a bucket.
        :return: 0 when the request is accepted; otherwise the seconds until the next one will be.
        """
        name = subject if self.per_subject else SHARED
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._rate, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        elif self.per_subject:
            self._buckets.move_to_end(name)
        return bucket.take(now)


def retry_after(seconds: float) -> int:
    """Return the value of ``Retry-After``: whole seconds, at least 1."""
    return max(1, math.ceil(seconds))
