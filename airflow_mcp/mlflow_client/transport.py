"""Drivers that perform MLflow operations over HTTP, a blocking and an asynchronous one.

They only send and wait; :mod:`airflow_mcp.mlflow_client.outcome` decides what an attempt means.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from airflow_mcp.core.mlflow_versions import why_too_old
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, MlflowProtocolError
from airflow_mcp.mlflow_client.api import API, server_version
from airflow_mcp.mlflow_client.kept_client import LIMITS, kept_client
from airflow_mcp.mlflow_client.outcome import Judge, NextStep, NoAnswer, Received
from airflow_mcp.mlflow_client.settings import MlflowSettings, public_address
from airflow_mcp.mlflow_client.tls import load_tls
from airflow_mcp.mlflow_client.wire import MlflowRequest, MlflowResponse, Operation, T

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Longest wait for a connection, unless the timeout of the Airflow connection is shorter; seconds."""
MAX_ERROR_BYTES = 64 * 1024
"""Longest part of an error answer that is read."""

_Result = MlflowResponse | MlflowError | InvalidArgumentError


class SyncDriver:
    """Driver with one blocking client, which is created at the first request and kept.

    :param settings: address and credentials of the server.
    :param transport: replaces the network, for tests.
    :param sleep: waits a number of seconds.
    """

    def __init__(
        self,
        settings: MlflowSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._sleep = sleep
        self._client: httpx.Client | None = None

    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation.

        :param operation: description from :mod:`airflow_mcp.mlflow_client.api` or registry_api.
        :return: what the operation returns.
        """
        result: _Result | None = None
        try:
            while True:
                request = _advance(operation, result)
                result = self._ask(request)
                if _is_missing_endpoint(request, result):
                    result = _of_version(result, self.perform(server_version()))
        except _Finished as finished:
            value: T = finished.value
            return value
        finally:
            operation.close()

    def close(self) -> None:
        """Close the client; the next request opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, request: MlflowRequest) -> _Result:
        judge = Judge(request, self._settings)
        while True:
            next_step = _judge(judge, self._attempt(request))
            if not isinstance(next_step, float):
                return next_step
            self._sleep(next_step)

    def _attempt(self, request: MlflowRequest) -> Received | NoAnswer:
        if self._client is None:
            self._client = httpx.Client(transport=self._transport, **client_options(self._settings))
        try:
            with self._client.stream(**_request_options(request, self._settings)) as response:
                body = _Body(request, response)
                for chunk in response.iter_bytes():
                    if not body.takes(chunk):
                        break
                return body.answer()
        except httpx.RequestError as error:
            return no_answer(error, self._settings)


class AsyncDriver:
    """Driver that shares one asynchronous client with all others of its event loop and settings; it belongs to no loop.

    :param settings: address and credentials of the server.
    :param sleep: waits a number of seconds.
    """

    def __init__(
        self,
        settings: MlflowSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._sleep = sleep

    async def perform(self, operation: Operation[T]) -> T:
        """Perform an operation.

        :param operation: description from :mod:`airflow_mcp.mlflow_client.api` or registry_api.
        :return: what the operation returns.
        """
        result: _Result | None = None
        try:
            async with kept_client(self._settings, self._create) as client:
                while True:
                    request = _advance(operation, result)
                    result = await self._ask(client, request)
                    if _is_missing_endpoint(request, result):
                        result = _of_version(result, await self.perform(server_version()))
        except _Finished as finished:
            value: T = finished.value
            return value
        finally:
            operation.close()

    def _create(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(limits=LIMITS, **client_options(self._settings))

    async def _ask(self, client: httpx.AsyncClient, request: MlflowRequest) -> _Result:
        judge = Judge(request, self._settings)
        while True:
            next_step = _judge(judge, await self._attempt(client, request))
            if not isinstance(next_step, float):
                return next_step
            await self._sleep(next_step)

    async def _attempt(self, client: httpx.AsyncClient, request: MlflowRequest) -> Received | NoAnswer:
        try:
            async with client.stream(**_request_options(request, self._settings)) as response:
                body = _Body(request, response)
                async for chunk in response.aiter_bytes():
                    if not body.takes(chunk):
                        break
                return body.answer()
        except httpx.RequestError as error:
            return no_answer(error, self._settings)


class _Finished(Exception):  # noqa: N818  (not an error: an operation has returned)
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def _advance(operation: Operation[T], result: _Result | None) -> MlflowRequest:
    """Send the last result to the operation and return its next request.

    :raises _Finished: with the operation's result.
    """
    try:
        if result is None:
            return next(operation)
        return operation.throw(result) if isinstance(result, Exception) else operation.send(result)
    except StopIteration as stop:
        raise _Finished(stop.value) from None


def _is_missing_endpoint(request: MlflowRequest, result: _Result) -> bool:
    return (
        isinstance(result, MlflowProtocolError)
        and result.status == HTTPStatus.NOT_FOUND
        and request.path.startswith(API)
    )


def _of_version(error: _Result, version: str) -> _Result:
    """Return the error of a missing endpoint, with the reason when the server is too old to have it."""
    reason = why_too_old(version)
    return MlflowProtocolError(f"{error}. {reason}", HTTPStatus.NOT_FOUND) if reason else error


def _judge(judge: Judge, result: Received | NoAnswer) -> NextStep:
    next_step = judge.judge(result, now=datetime.now(UTC), jitter=random.random())  # noqa: S311  (not cryptography)
    if isinstance(next_step, float):
        log.warning("%s; asking again in %.1f s", judge.describe(result), next_step)
    return next_step


class _Body:
    """The body of an answer, collected up to the limit of its request."""

    def __init__(self, request: MlflowRequest, response: httpx.Response) -> None:
        self._response = response
        self._limit = request.max_bytes if response.is_success else MAX_ERROR_BYTES
        self._content = bytearray()

    def takes(self, chunk: bytes) -> bool:
        self._content += chunk
        return len(self._content) <= self._limit

    def answer(self) -> Received:
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        content = bytes(self._content[: self._limit])
        return Received(self._response.status_code, headers, content, len(self._content) > self._limit)


def client_options(settings: MlflowSettings) -> dict[str, Any]:
    """Return the options of a client: credentials, TLS and timeouts."""
    headers = {"User-Agent": "airflow-mcp"}
    if settings.workspace:
        headers["X-MLFLOW-WORKSPACE"] = settings.workspace
    if settings.token:
        headers["Authorization"] = f"Bearer {settings.token}"
    return {
        "headers": headers,
        "auth": httpx.BasicAuth(settings.username, settings.password) if settings.username else None,
        "verify": _tls(settings),
        "timeout": httpx.Timeout(settings.timeout, connect=min(settings.timeout, CONNECT_TIMEOUT)),
        "follow_redirects": False,
    }


def _tls(settings: MlflowSettings) -> ssl.SSLContext | bool:
    try:
        return load_tls(settings.base_url, settings.verify)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgumentError(
            f"{settings.source}: {settings.where('ca_bundle')} must be the path of a readable PEM file with "
            f"certificates; got {settings.verify!r}: {error}. No request was sent"
        ) from error


def _proxy(settings: MlflowSettings) -> str:
    """Return which proxy of the environment a connection goes through, as the end of a message."""
    url = urlsplit(settings.base_url)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc):
        return ""
    names = f"{url.scheme.upper()}_PROXY or ALL_PROXY"
    return f"; the connection goes through the proxy {public_address(proxy)} of {names}, unless NO_PROXY has the server"


def _request_options(request: MlflowRequest, settings: MlflowSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": request.method,
        "url": f"{settings.base_url}/{request.path}",
        "params": list(request.params) or None,
    }
    if request.content is not None:
        return {**options, "content": request.content, "headers": {"Content-Type": request.content_type}}
    return options if request.json is None else {**options, "json": dict(request.json)}


def no_answer(error: httpx.RequestError, settings: MlflowSettings) -> NoAnswer:
    """Return what a failed attempt means."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return NoAnswer("not_sent", f"no connection in {min(settings.timeout, CONNECT_TIMEOUT):g} s{_proxy(settings)}")
    if isinstance(error, httpx.TimeoutException):
        named = "" if settings.is_command_line else " (extra 'timeout')"
        return NoAnswer("lost", f"silent for {settings.timeout:g} s{named}")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        hopeless = "CERTIFICATE_VERIFY_FAILED" in reason
        ca_bundle = f"; set {settings.where('ca_bundle')} to the CA that signed the server's certificate"
        return NoAnswer(
            "hopeless" if hopeless else "not_sent", f"{reason}{ca_bundle if hopeless else _proxy(settings)}"
        )
    return NoAnswer("lost", f"{type(error).__name__}: {reason}")
