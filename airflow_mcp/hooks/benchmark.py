"""Request the JSON result of a benchmark from a web service: one deadline, a size limit, no redirects or cookies."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.core.gate.rules.benchmark import MAX_ANSWER_BYTES, BenchmarkAnswer, BenchmarkRule
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.tls import tls_of

_RETRY_SECONDS = 1.0
"""Wait before the first retry; doubles with each further one."""


@dataclass(frozen=True)
class _Access:
    """Credentials and trusted certificates of a connection."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)
    verify: bool | str = True

    @property
    def secrets(self) -> tuple[str, ...]:
        given = [*(value.partition(" ")[2] for value in self.headers.values()), *(self.login or ())[1:]]
        if self.login:
            given.append(base64.b64encode(":".join(self.login).encode()).decode())  # as the service gets it
        return tuple(value for value in given if value)


def ask_benchmark(rule: BenchmarkRule, *, sleep: Callable[[float], None] = time.sleep) -> BenchmarkAnswer:
    """Request the result of a benchmark, with retries while the service does not answer.

    :param rule: the service and how to ask it.
    :param sleep: function that waits a number of seconds.
    :return: the answer; a problem with the request is recorded in it and not raised.
    :raises InvalidArgumentError: when the URL is not valid, or the connection is missing, not usable, or for another
        host.
    """
    access = _access(rule)
    for secret in access.secrets:
        mask_secret(secret)
    options = _options(rule, access)
    answer = BenchmarkAnswer(None)
    for number in range(rule.retries + 1):
        if number:
            sleep(_RETRY_SECONDS * 2 ** (number - 1))
        answer = replace(asyncio.run(_ask(rule, options)), tries=number + 1, secrets=access.secrets)
        if answer.status is not None and answer.status != 429 and answer.status < 500:
            break
    return answer


def _options(rule: BenchmarkRule, access: _Access) -> dict[str, Any]:
    """Return the options of the HTTP client."""
    try:
        httpx.Request("GET", rule.url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidArgumentError(
            f"benchmarks.url must be a valid URL; got {rule.url!r} ({error}). Nothing was requested"
        ) from None
    try:
        verify = tls_of(rule.url, access.verify)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"the extra ca_bundle of connection {rule.conn_id!r} must be a readable PEM file; got {access.verify!r} "
            f"({error}). Nothing was requested"
        ) from None
    return {
        "headers": {"User-Agent": "airflow-mcp", "Accept": "application/json", **access.headers},
        "auth": httpx.BasicAuth(*access.login) if access.login else None,
        "verify": verify,
        "timeout": rule.timeout,
        "follow_redirects": False,
    }


async def _ask(rule: BenchmarkRule, options: Mapping[str, Any]) -> BenchmarkAnswer:
    started = time.monotonic()
    status, body, problem = None, bytearray(), ""
    try:
        async with (
            asyncio.timeout(rule.timeout),  # for the whole answer: a server may send a byte a second
            httpx.AsyncClient(**options) as client,
            client.stream("GET", rule.url) as response,
        ):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    problem = f"the answer is larger than {MAX_ANSWER_BYTES} bytes"
                    break
            status = response.status_code
    except (TimeoutError, httpx.TimeoutException):
        problem = f"no complete answer in {rule.timeout:g} s"
    except (httpx.HTTPError, ssl.SSLError) as error:
        problem = type(error).__name__ + (f": {error}" if str(error) else "")
    took = (time.monotonic() - started) * 1000
    return BenchmarkAnswer(status, bytes(body[:MAX_ANSWER_BYTES]), problem, took)


def _access(rule: BenchmarkRule) -> _Access:
    """Read the credentials, and check that they are for this host."""
    if rule.conn_id is None:
        return _Access()
    where = f"connection {rule.conn_id!r}"
    try:
        connection = Connection.get(rule.conn_id)
    except AirflowNotFoundException:
        raise InvalidArgumentError(f"benchmarks: there is no {where}. Nothing was requested") from None
    parts = urlsplit(rule.url)
    host = (connection.host or "").rpartition("://")[2].partition("/")[0].partition(":")[0].lower()
    if not host or host != parts.hostname:
        raise InvalidArgumentError(
            f"benchmarks: {where} is for the host {host!r}, but the benchmark is at {parts.hostname!r}. Nothing was "
            "requested. Set the connection's host to the one that its credentials are for"
        )
    extra = connection.extra_dejson
    token, verify = extra.get("token") or "", extra.get("ca_bundle") or extra.get("verify", True)
    login = (connection.login or "", connection.password or "")
    is_token = isinstance(token, str) and token.isascii() and token.isprintable()
    if not is_token or not isinstance(verify, bool | str) or (token and any(login)):
        raise InvalidArgumentError(
            f"benchmarks: {where} is not usable. Set login and password, or the extra token (printable ASCII); the "
            "extra verify may be true or false, and ca_bundle a path. Nothing was requested"
        )
    return _Access({"Authorization": f"Bearer {token}"} if token else {}, login if any(login) else None, verify)
