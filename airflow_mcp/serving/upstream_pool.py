"""Versions that another server holds, such as KServe or Triton: requests are routed there, unread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from urllib.parse import unquote, urlsplit

import httpx

from airflow_mcp.core.serving.frames import AnswerKind, FrameKind
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.pool import LoadReport, ModelAnswer, ModelPool, ModelRequest, PoolStartError

_log = logging.getLogger(__name__)
TAG_UPSTREAM = "airflow_mcp.upstream"
"""On a version: address of the model on the server that holds it, such as ``http://triton:8000/v2/models/fraud``."""
_LOOK_SECONDS = 5.0
_MAX_FAILURES = 5
"""After as many failed requests in a row, none is sent until the server says that it is ready."""
_RETRY_AFTER = 1
_MAX_CONNECTIONS = 256


def why_not_allowed(address: str, allowed: Sequence[str]) -> str:
    """Return why requests must not be sent to an address; empty when they may.

    A tag of the registry must not make the server call just any address.

    :param address: value of the tag.
    :param allowed: beginnings of addresses: scheme, host, port and a part of the path.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        return f"tag {TAG_UPSTREAM} must be an http or https address without login and query"
    if not url.path.startswith("/v2/models/") or any(map(_leads_elsewhere, url.path.split("/"))):
        return f"tag {TAG_UPSTREAM} must end in /v2/models/NAME"
    for beginning in allowed:
        wanted = urlsplit(beginning)
        path = wanted.path.rstrip("/")
        is_below = not path or url.path == path or url.path.startswith(f"{path}/")
        if (url.scheme, url.netloc) == (wanted.scheme, wanted.netloc) and is_below:
            return ""
    return f"{url.scheme}://{url.netloc} is not in allowed_upstreams"


def _leads_elsewhere(part: str) -> bool:
    """Return whether a server or proxy may take a part of a path for another folder once it has decoded it."""
    decoded = unquote(part)
    return decoded in (".", "..") or any(character in "/\\%;" or not character.isprintable() for character in decoded)


class PassThrough:
    """Leaves bodies unread."""

    def invocations(self, body: bytes, content_type: str) -> ModelRequest:
        """Refuse a body that the server elsewhere would not understand."""
        raise Problem("invalid_body", "this model is served elsewhere; ask it by `/v2/models/NAME/infer`")

    def infer(self, body: bytes) -> ModelRequest:
        """Pass a body on."""
        return ModelRequest(FrameKind.BODY, body, 1, is_alone=True)


class UpstreamPool(ModelPool):
    """A version on another server, which speaks the Open Inference Protocol.

    :param name: name and version, for the log.
    :param address: address of the model there.
    :param settings: timeouts and limits.
    :param transport: replaces the network, for tests.
    """

    def __init__(
        self,
        name: str,
        address: str,
        settings: ServingSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._name, self._address, self._settings = name, address.rstrip("/"), settings
        self.decoder = PassThrough()
        self.max_queue_rows = settings.max_queue_rows
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
        timeout = httpx.Timeout(settings.request_timeout, connect=min(5.0, settings.request_timeout))
        self._client = httpx.AsyncClient(
            transport=transport, limits=limits, timeout=timeout, follow_redirects=False, trust_env=False
        )
        self._in_flight = self._failures = 0
        self._ready = False
        self._report = LoadReport(flavors=("upstream",))
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask the other server whether the model is ready.

        :raises PoolStartError: when it is not.
        """
        started = time.monotonic()
        reason = await self._why_not_ready()
        if reason:
            await self._client.aclose()
            raise PoolStartError(f"upstream: {reason}")
        self._ready = True
        self._report = LoadReport(seconds=time.monotonic() - started, flavors=("upstream",))
        self._watch = asyncio.create_task(self._keep_looking())

    def submit(self, request: ModelRequest) -> Awaitable[ModelAnswer]:
        """Send a request.

        :raises Problem: when the other server is known to be away.
        """
        if not self._ready:
            raise Problem("not_ready", "the server that holds the model is away", retry_after=_RETRY_AFTER)
        if self._in_flight >= self.max_queue_rows:
            raise Problem("overloaded", "too many requests wait for the model", retry_after=_RETRY_AFTER)
        self._in_flight += 1
        return self._send(request)

    async def _send(self, request: ModelRequest) -> ModelAnswer:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                answer = await self._client.post(
                    f"{self._address}/infer",
                    content=request.payload,
                    headers=((b"content-type", b"application/json"), (b"x-request-id", request.request_id)),
                )
        except (TimeoutError, httpx.TimeoutException):
            self._count_failure()
            seconds = f"{self._settings.request_timeout:g}"
            raise Problem("timeout", f"the model did not answer within {seconds} s") from None
        except httpx.HTTPError as error:
            self._count_failure()
            _log.warning("%s: no answer of the server that holds it: %s", self._name, type(error).__name__)
            raise Problem("upstream_failed", "the server that holds the model did not answer") from None
        finally:
            self._in_flight -= 1
        return self._read(answer, time.monotonic() - started)

    def _read(self, answer: httpx.Response, seconds: float) -> ModelAnswer:
        is_json = "json" in answer.headers.get("content-type", "")
        if answer.status_code == httpx.codes.OK and is_json:
            self._failures = 0
            return ModelAnswer(AnswerKind.UNWRAPPED, answer.content, 1, seconds)
        if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR and answer.status_code >= httpx.codes.BAD_REQUEST:
            self._failures = 0
            raise Problem("invalid_rows", "the server that holds the model refused the request")
        self._count_failure()
        raise Problem("upstream_failed", "the server that holds the model did not answer properly")

    def _count_failure(self) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES and self._ready:
            self._set_ready(False)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            reason = await self._why_not_ready()
            if bool(reason) is self._ready:
                self._failures = 0
                self._set_ready(not reason)

    def _set_ready(self, ready: bool) -> None:
        self._ready = ready
        _log.log(logging.INFO if ready else logging.WARNING, "%s is %s", self._name, "back" if ready else "away")
        if self.on_change is not None:
            self.on_change()

    async def _why_not_ready(self) -> str:
        try:
            answer = await self._client.get(f"{self._address}/ready", timeout=_LOOK_SECONDS)
        except httpx.HTTPError as error:
            return f"no answer: {type(error).__name__}"
        return "" if answer.status_code == httpx.codes.OK else f"it answered {answer.status_code} to /ready"

    async def stop(self) -> None:
        """Wait for requests in flight, and close the connections."""
        if self._watch is not None:
            self._watch.cancel()
        self._ready = False
        deadline = time.monotonic() + self._settings.request_timeout
        while self._in_flight and time.monotonic() < deadline:  # noqa: ASYNC110  (a few times at the end)
            await asyncio.sleep(0.05)
        await self._client.aclose()

    @property
    def ready(self) -> bool:
        """Whether the other server can answer."""
        return self._ready

    @property
    def in_flight(self) -> int:
        """Number of requests that wait for an answer."""
        return self._in_flight

    @property
    def failure(self) -> str:
        """Always empty: a server that is away may come back."""
        return ""

    @property
    def report(self) -> LoadReport:
        """What is known of the model."""
        return self._report
