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
from typing import Any

import httpx

from airflow_mcp.exceptions import InvalidArgumentError, MlflowError
from airflow_mcp.mlflow_client.outcome import Judge, NextStep, NoAnswer, Received
from airflow_mcp.mlflow_client.settings import MlflowSettings
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
                result = self._ask(_advance(operation, result))
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
            self._client = httpx.Client(transport=self._transport, **_client_options(self._settings))
        try:
            with self._client.stream(**_request_options(request, self._settings)) as response:
                body = _Body(request, response)
                for chunk in response.iter_bytes():
                    if not body.takes(chunk):
                        break
                return body.answer()
        except httpx.RequestError as error:
            return _no_answer(error, self._settings)


class AsyncDriver:
    """Driver with one asynchronous client per operation, so it does not belong to an event loop.

    The TLS context, the costly part of a client, is created once.

    :param settings: address and credentials of the server.
    :param transport: replaces the network, for tests.
    :param sleep: waits a number of seconds.
    """

    def __init__(
        self,
        settings: MlflowSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._sleep = sleep
        self._options: dict[str, Any] | None = None

    async def perform(self, operation: Operation[T]) -> T:
        """Perform an operation.

        :param operation: description from :mod:`airflow_mcp.mlflow_client.api` or registry_api.
        :return: what the operation returns.
        """
        self._options = self._options or _client_options(self._settings)
        result: _Result | None = None
        try:
            async with httpx.AsyncClient(transport=self._transport, **self._options) as client:
                while True:
                    result = await self._ask(client, _advance(operation, result))
        except _Finished as finished:
            value: T = finished.value
            return value
        finally:
            operation.close()

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
            return _no_answer(error, self._settings)


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


def _client_options(settings: MlflowSettings) -> dict[str, Any]:
    headers = {"User-Agent": "airflow-mcp"}
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
    if settings.verify is False or not settings.base_url.startswith("https:"):
        return False
    if isinstance(settings.verify, str):
        return ssl.create_default_context(cafile=settings.verify)
    return httpx.create_ssl_context()


def _request_options(request: MlflowRequest, settings: MlflowSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": request.method,
        "url": f"{settings.base_url}/{request.path}",
        "params": list(request.params) or None,
    }
    if request.content is not None:
        return {**options, "content": request.content, "headers": {"Content-Type": request.content_type}}
    return options if request.json is None else {**options, "json": dict(request.json)}


def _no_answer(error: httpx.RequestError, settings: MlflowSettings) -> NoAnswer:
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return NoAnswer("not_sent", f"no connection in {min(settings.timeout, CONNECT_TIMEOUT):g} s")
    if isinstance(error, httpx.TimeoutException):
        return NoAnswer("lost", f"silent for {settings.timeout:g} s (the connection's timeout)")
    if isinstance(error, httpx.ConnectError):
        hopeless = "CERTIFICATE_VERIFY_FAILED" in reason
        hint = "; set extra 'ca_bundle' to the CA that signed the server's certificate" if hopeless else ""
        return NoAnswer("hopeless" if hopeless else "not_sent", f"{reason}{hint}")
    return NoAnswer("lost", f"{type(error).__name__}: {reason}")
