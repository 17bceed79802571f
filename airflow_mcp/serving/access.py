"""Who may ask: the rate limit and the tokens of a TrafficPolicy."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.core import CounterMetricFamily, Metric

from airflow_mcp.core.pipeline.file.policies import Auth, RateLimit, TrafficPolicy
from airflow_mcp.core.serving.rate_limit import SHARED, RateLimiter, retry_after
from airflow_mcp.core.serving.tokens import Caller, TokenError, bearer_token, check_token, read_header
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.metrics import PREFIX

_log = logging.getLogger(__name__)
_REFRESH_SECONDS = 3600.0
_UNKNOWN_KEY_SECONDS = 60.0
"""Seconds between two reads of the keys because a token names an unknown one."""
_RETRY_SECONDS = 5.0
"""Seconds between two tries while the issuer is away and no key is known."""
_REMEMBERED_SECONDS = 60.0
"""Longest time for which a verified token is believed without being verified again, so that it can be revoked."""
_MAX_REMEMBERED = 10_000
_READ_SECONDS = 10.0
"""How long one read of the keys may take as a whole; the client's own timeout starts anew with every byte."""
_MAX_DOCUMENT_BYTES = 1024 * 1024
_MAX_KEYS = 100
_LOOK_UP_SECONDS = 15.0
_CHALLENGE = (b"www-authenticate", b"Bearer")
ClientMaker = Callable[[], httpx.AsyncClient]


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=10.0, follow_redirects=False)


class IssuerKeys:
    """The public keys of an issuer, read again every hour.

    Keys stay when the issuer is away.

    :param auth: the issuer.
    :param make_client: makes the HTTP client.
    """

    def __init__(self, auth: Auth, make_client: ClientMaker = _client) -> None:
        self._auth, self._make_client = auth, make_client
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._wanted = asyncio.Event()
        self._asked_at = 0.0

    @property
    def are_known(self) -> bool:
        """Whether any key is known; without one no token can be checked."""
        return bool(self._keys)

    def find(self, key_id: str) -> Mapping[str, Any] | None:
        """Return a key; an unknown one has the keys read again, at most once a minute.

        :param key_id: its id.
        """
        key = self._keys.get(key_id)
        if key is None and time.monotonic() - self._asked_at > _UNKNOWN_KEY_SECONDS:
            self._wanted.set()
        return key

    async def run(self) -> None:
        """Read the keys again and again, until cancelled."""
        while True:
            self._asked_at = time.monotonic()
            try:
                await self.read()
            except (httpx.HTTPError, ValueError, TimeoutError) as error:
                _log.warning("the keys of %s cannot be read: %s", self._auth.issuer, error or type(error).__name__)
            self._wanted.clear()
            pause = _REFRESH_SECONDS if self._keys else _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def read(self) -> None:
        """Read the keys once.

        :raises ValueError: when the issuer's documents are not what they should be.
        :raises httpx.HTTPError: when it does not answer.
        :raises TimeoutError: when it takes longer than :data:`_READ_SECONDS`.
        """
        issuer = self._auth.issuer
        async with asyncio.timeout(_READ_SECONDS), self._make_client() as client:
            described = await _document(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if described.get("issuer") != issuer:
                raise ValueError("its configuration names another issuer")
            address = self._checked(described.get("jwks_uri"))
            keys = (await _document(client, address)).get("keys")
        if not isinstance(keys, list):
            raise ValueError("its set of keys holds no list")  # noqa: TRY004
        found: dict[str, Mapping[str, Any]] = {
            key["kid"]: key for key in keys[:_MAX_KEYS] if isinstance(key, dict) and isinstance(key.get("kid"), str)
        }
        if not found:
            raise ValueError("its set of keys names no key")
        self._keys = found

    def _checked(self, address: Any) -> str:
        """Return the address of the keys, which must be on the issuer's host or on one that the policy allows."""
        url = urlsplit(address if isinstance(address, str) else "")
        allowed = {urlsplit(self._auth.issuer).netloc, *self._auth.allowed_key_hosts}
        if url.scheme != "https" or url.netloc not in allowed:
            raise ValueError("its keys are at an address that is not https, or on a host that is not allowed")
        return str(address)


async def _document(client: httpx.AsyncClient, address: str) -> Mapping[str, Any]:
    """Read a JSON object of bounded size, which must not be compressed: a few bytes could become gigabytes."""
    async with client.stream("GET", address, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ValueError("its answer is compressed, which this server did not ask for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _MAX_DOCUMENT_BYTES:
                raise ValueError("its answer is too long")
    found = httpx.Response(200, content=bytes(body)).json()
    if not isinstance(found, dict):
        raise ValueError("its answer is not a JSON object")  # noqa: TRY004
    return found


class Access:
    """Admits callers.

    :param policies: policies of the settings; each of their rates and issuers counts.
    :param service: name of the headless Service, for rates of all replicas together.
    :param make_client: makes the HTTP client that reads the keys.
    """

    def __init__(
        self, policies: Sequence[TrafficPolicy], service: str = "", make_client: ClientMaker = _client
    ) -> None:
        self._limits = [(limit, _limiter(limit)) for policy in policies if (limit := policy.rate_limit) is not None]
        self._auth = next((policy.auth for policy in policies if policy.auth is not None), None)
        self._keys = IssuerKeys(self._auth, make_client) if self._auth is not None else None
        self._service = service
        self._remembered: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._limited = 0
        self._failures: dict[str, int] = {}

    def admit(self, exchange: Exchange) -> Problem | None:
        """Return why a caller may not ask; None admits it, and its subject is then in the exchange.

        :param exchange: the request.
        """
        if self._auth is not None and self._keys is not None:
            problem = self._check(exchange, self._auth, self._keys)
            if problem is not None:
                return problem
        return self._limit(exchange, time.monotonic())  # after the token: strangers must not use up the callers' rate

    def why_incomplete(self) -> str:
        """Return why nobody can be admitted yet; empty when somebody can."""
        if self._keys is not None and not self._keys.are_known and self._auth is not None:
            return f"the keys of {self._auth.issuer} have not been read yet"
        return ""

    # --- rates -------------------------------------------------------------------------------------------------------

    def _limit(self, exchange: Exchange, now: float) -> Problem | None:
        """Count a request whose token, where one is needed, has been accepted."""
        for limit, limiter in self._limits:
            wait = limiter.take(now, self._subject(exchange, limit))
            if wait:
                self._limited += 1
                seconds = retry_after(wait)
                return Problem("rate_limited", "more requests than the policy allows", retry_after=seconds)
        return None

    def _subject(self, exchange: Exchange, limit: RateLimit) -> str:
        if not limit.key:
            return SHARED
        return exchange.subject if limit.key == "sub" else exchange.headers.get(limit.key.lower(), "")

    # --- tokens ------------------------------------------------------------------------------------------------------

    def _check(self, exchange: Exchange, auth: Auth, keys: IssuerKeys) -> Problem | None:
        now = time.time()
        try:
            token = bearer_token(exchange.headers.get("authorization", ""))
            name = hashlib.sha256(token.encode()).digest()
            known = self._remembered.get(name)
            if known is not None and known[1] > now:
                exchange.subject = known[0].subject
                return None
            if not keys.are_known:
                return Problem("not_ready", "the keys of the issuer have not been read yet", retry_after=1)
            key = keys.find(read_header(token, auth.tokens).key_id)
            if key is None:
                raise TokenError("key", "the token names a key that is not known")
            caller = check_token(token, key, auth.tokens, now)
        except TokenError as error:
            self._failures[error.reason] = self._failures.get(error.reason, 0) + 1
            return Problem("unauthorized", str(error), headers=(_CHALLENGE,))
        self._remember(name, caller, now)
        exchange.subject = caller.subject
        return None

    def _remember(self, name: bytes, caller: Caller, now: float) -> None:
        self._remembered[name] = (caller, min(caller.expires_at, now + _REMEMBERED_SECONDS))
        self._remembered.move_to_end(name)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    # --- what goes on beside the requests ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Read keys and count replicas, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._keys is not None:
                group.create_task(self._keys.run())
            if self._service and any(limit.scope == "service" for limit, _ in self._limits):
                group.create_task(self._count_replicas())

    async def _count_replicas(self) -> None:
        while True:
            found = await addresses_of(self._service)
            if found:  # while the lookup fails, the last number counts
                for limit, limiter in self._limits:
                    if limit.scope == "service":
                        limiter.set_replicas(len(found), time.monotonic())
            await asyncio.sleep(_LOOK_UP_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """Return its metrics."""
        limited = CounterMetricFamily(f"{PREFIX}_rate_limited", "Requests beyond the rate of the policy")
        limited.add_metric([], self._limited)
        failures = CounterMetricFamily(
            f"{PREFIX}_auth_failures", "Requests without a token that is accepted, by reason", labels=["reason"]
        )
        for reason, count in self._failures.items():
            failures.add_metric([reason], count)
        yield from (limited, failures)


def _limiter(limit: RateLimit) -> RateLimiter:
    return RateLimiter(limit.requests_per_second, per_subject=bool(limit.key))


async def addresses_of(service: str) -> frozenset[str]:
    """Return the addresses of a headless Service; empty when they cannot be looked up.

    :param service: its name.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(service, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]) for entry in found)
