"""Hook for Prometheus: the result of a query, as one number or as samples."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
from airflow.sdk import BaseHook, Connection

from airflow_mcp.exceptions import InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.tls import tls_of

DEFAULT_PORT = 9090
_DEFAULT_TIMEOUT = 10.0
_MAX_BYTES = 1024 * 1024
"""A query with an answer of this size does not have one number as its result."""


class Sample(NamedTuple):
    """One series of a result."""

    labels: Mapping[str, str]
    value: str
    """The number as Prometheus writes it."""


@dataclass(frozen=True)
class PrometheusAddress:
    """Where a Prometheus answers, and how to ask it."""

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    verify: bool | str = True
    """Whether to check TLS certificates, or the path of a file with the authorities."""
    timeout: float = _DEFAULT_TIMEOUT
    """Seconds for the whole answer."""

    async def number(self, query: str) -> float | None:
        """Return the present result of a query.

        :param query: PromQL.
        :return: None when the result is not exactly one finite number: no data, several series, or NaN.
        :raises ServerUnreachableError: when Prometheus does not answer, or refuses the query.
        """
        response = await self._ask(query)
        return None if len(response.content) > _MAX_BYTES else _number(_data(self.url, query, response))

    async def vector(self, query: str) -> list[Sample]:
        """Return the present series of a query, all or none.

        :param query: PromQL whose result is an instant vector.
        :raises ServerUnreachableError: when Prometheus does not answer, refuses the query, or answers in part.
        """
        return _vector(self.url, query, await self._ask(query))

    async def _ask(self, query: str) -> httpx.Response:
        headers = {"User-Agent": "airflow-mcp", **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        try:
            verify = tls_of(self.url, self.verify)
            async with (
                asyncio.timeout(self.timeout),  # for the whole answer: a server may send a byte a second
                httpx.AsyncClient(verify=verify, timeout=self.timeout, auth=self.auth, headers=headers) as client,
            ):
                return await client.post(f"{self.url}/api/v1/query", data={"query": query})
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            problem = str(error) or f"no complete answer in {self.timeout:g} s"
            raise ServerUnreachableError(f"Prometheus at {self.url} does not answer: {problem}") from None


class PrometheusHook(BaseHook):
    """Ask a Prometheus, or anything that has its HTTP API.

    :param prometheus_conn_id: id of a connection of type ``prometheus``.
    """

    conn_name_attr = "prometheus_conn_id"
    default_conn_name = "prometheus_default"
    conn_type = "prometheus"
    hook_name = "Prometheus"

    def __init__(self, prometheus_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.prometheus_conn_id = prometheus_conn_id

    async def number(self, query: str) -> float | None:
        """Return the present result of a query; None when it is not exactly one finite number.

        :param query: PromQL.
        :raises InvalidArgumentError: when a field of the connection is not usable.
        :raises ServerUnreachableError: when Prometheus does not answer, or refuses the query.
        """
        return await (await self._address()).number(query)

    async def vector(self, query: str) -> list[Sample]:
        """Return the present series of a query, all or none.

        :param query: PromQL whose result is an instant vector.
        :raises InvalidArgumentError: when a field of the connection is not usable.
        :raises ServerUnreachableError: when Prometheus does not answer, refuses the query, or answers in part.
        """
        return await (await self._address()).vector(query)

    async def _address(self) -> PrometheusAddress:
        return address_of(await self.aget_connection(self.prometheus_conn_id))


def address_of(connection: Connection) -> PrometheusAddress:
    """Return where the Prometheus of a connection answers.

    :param connection: a connection of type ``prometheus``.
    :raises InvalidArgumentError: when a field is not usable.
    """
    extra, where = connection.extra_dejson, f"connection {connection.conn_id!r}"
    timeout, verify = extra.get("timeout", _DEFAULT_TIMEOUT), extra.get("ca_bundle") or extra.get("verify", True)
    token = extra.get("token") or ""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 60:
        raise InvalidArgumentError(f"extra timeout of {where} must be seconds, at most 60; got {timeout!r}")
    if not isinstance(verify, bool | str):
        raise InvalidArgumentError(f"extra verify of {where} must be true or false; got {verify!r}")
    if not isinstance(token, str) or (token and connection.login):
        raise InvalidArgumentError(
            f"extra token of {where} must be text, without login and password; got a value that is not shown"
        )
    auth = (connection.login, connection.password or "") if connection.login else None
    return PrometheusAddress(_url(connection, where), auth, token, verify, float(timeout))


def _url(connection: Connection, where: str) -> str:
    host, scheme = (connection.host or "").rstrip("/"), connection.schema or "http"
    if "://" not in host:
        host = f"{scheme}://{host}:{connection.port or DEFAULT_PORT}" if host else ""
    try:
        url = httpx.URL(host)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise InvalidArgumentError(
            f"host of {where} must be a name, or an http or https URL without login and query; got a value that is not "
            "shown"
        )
    return host


def _data(url: str, query: str, response: httpx.Response) -> Mapping[str, Any]:
    try:
        body: Any = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or body.get("status") not in ("success", "error"):
        raise ServerUnreachableError(f"{url} answers {response.status_code}, but not as Prometheus does")
    if body["status"] == "error":
        raise ServerUnreachableError(f"Prometheus at {url} refuses the query {query!r}: {body.get('error', '')}")
    return {"warnings": body.get("warnings"), **(body.get("data") or {})}


def _vector(url: str, query: str, response: httpx.Response) -> list[Sample]:
    data = _data(url, query, response)
    if data["warnings"]:
        raise ServerUnreachableError(f"Prometheus at {url} answers {query!r} in part: {data['warnings']}")
    try:
        if data["resultType"] == "vector":
            return [Sample(dict(each["metric"]), str(each["value"][1])) for each in data["result"]]
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise ServerUnreachableError(f"{url} answers {query!r}, but not with a vector as Prometheus does")


def _number(data: Mapping[str, Any]) -> float | None:
    result, kind = data.get("result"), data.get("resultType")
    if kind == "vector" and isinstance(result, list) and len(result) == 1:
        pair = result[0].get("value")
    else:
        pair = result if kind == "scalar" else None
    return _finite(pair)


def _finite(pair: Any) -> float | None:
    """Return the number of a pair of time and text."""
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    try:
        value = float(pair[1])
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
