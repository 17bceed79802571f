"""The HTTP side of the scoring routes: a bounded body in, an answer with the version's headers out.

A plain ASGI callable without a framework: what a request costs here is what the server can do at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping, Sequence
from time import perf_counter
from typing import Any, TypeAlias

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.decoding import CSV, JSON
from airflow_mcp.serving.drain import Drain
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange, Headers, Observer
from airflow_mcp.serving.handlers import Admission, Handlers, version_headers

_log = logging.getLogger(__name__)
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Coroutine[Any, Any, Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Route: TypeAlias = Callable[[Exchange, Receive], Awaitable[bytes]]
_CONTENT_TYPE = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")
_MAX_DISCARDED_BYTES = 64 * 1024 * 1024
"""64 MiB: a body up to this length is read to its end and thrown away, since many callers read no answer before."""
_MAX_REMEMBERED = 256
"""Different values of a header whose meaning is remembered."""


class ScoringRoutes:
    """The routes that ask a model.

    :param handlers: what the routes do.
    :param settings: limits of the body.
    :param drain: whether the server is ending.
    :param observers: called with every exchange after its answer.
    :param admission: decides whether a caller may ask; None admits everybody.
    """

    def __init__(
        self,
        handlers: Handlers,
        settings: ServingSettings,
        drain: Drain,
        observers: Sequence[Observer],
        admission: Admission | None = None,
    ) -> None:
        self._handlers = handlers
        self._drain = drain
        self._observers = tuple(observers)
        self._admission = admission
        self._max_body_bytes = settings.max_body_bytes
        self._body_timeout = settings.body_timeout
        self._content_types: dict[bytes, str] = {b"": JSON, b"application/json": JSON, b"text/csv": CSV}
        self._accepted: set[bytes] = {b"", b"*/*", b"application/json"}

    def find(self, path: str) -> Route | None:
        """Return the route of a path; None when there is none."""
        if path == "/invocations":
            return self._invocations
        parts = path.split("/")
        if path.startswith("/v2/models/") and parts[-1] == "infer" and len(parts) in (5, 7):
            model = parts[3]
            if len(parts) == 5:
                return lambda exchange, receive: self._infer(exchange, receive, model, "")
            if parts[4] == "versions":
                return lambda exchange, receive: self._infer(exchange, receive, model, parts[5])
        return None

    async def answer(self, route: Route, exchange: Exchange, receive: Receive, send: Send) -> None:
        """Answer a request.

        :param route: its route, from :meth:`find`.
        :param exchange: the request.
        """
        further: tuple[tuple[bytes, bytes], ...] = ()
        try:
            body = await self._admitted(route, exchange, receive)
        except Problem as problem:
            exchange.status, exchange.code, further = problem.status, problem.code, problem.headers
            body = problem.body(exchange.request_id.decode())
        except _DisconnectedError:
            exchange.is_disconnected = True
            self._observe(exchange)
            return
        except Exception:
            _log.exception("a request could not be answered; id %s", exchange.request_id.decode())
            defect = Problem("internal", "a defect of the server; its log has the details")
            exchange.status, exchange.code = defect.status, defect.code
            body = defect.body(exchange.request_id.decode())
        headers = [
            _CONTENT_TYPE,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", exchange.request_id),
            *further,
        ]
        if exchange.choice is not None:
            headers += version_headers(exchange.choice)
        if self._drain.is_draining:
            headers.append(_CLOSE)
        exchange.seconds = perf_counter() - exchange.started
        await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._observe(exchange)

    def _observe(self, exchange: Exchange) -> None:
        for observer in self._observers:
            observer(exchange)

    async def _admitted(self, route: Route, exchange: Exchange, receive: Receive) -> bytes:
        if exchange.scope["method"] != "POST":
            raise Problem("method_not_allowed", "this path takes POST only", headers=((b"allow", b"POST"),))
        if self._admission is not None:
            problem = self._admission.admit(exchange)
            if problem is not None:
                raise problem
        return await route(exchange, receive)

    async def _invocations(self, exchange: Exchange, receive: Receive) -> bytes:
        content_type = self._content_type(exchange.headers)
        body = await self._body(exchange.headers, receive)
        return await self._handlers.invocations(exchange, body, content_type)

    async def _infer(self, exchange: Exchange, receive: Receive, model: str, version: str) -> bytes:
        if self._content_type(exchange.headers) != JSON:
            raise Problem("unsupported_media_type", "the body must be JSON; got another type")
        return await self._handlers.infer(exchange, model, version, await self._body(exchange.headers, receive))

    # --- headers and body --------------------------------------------------------------------------------------------

    def _content_type(self, headers: Headers) -> str:
        accept = headers.raw(b"accept")
        if accept not in self._accepted:
            if not accepts_json(accept):
                raise Problem("not_acceptable", "answers are application/json; the caller accepts none")
            if len(self._accepted) < _MAX_REMEMBERED:
                self._accepted.add(accept)
        written = headers.raw(b"content-type")
        known = self._content_types.get(written)
        if known is None:
            known = read_content_type(written.decode("latin-1"))
            if len(self._content_types) < _MAX_REMEMBERED:
                self._content_types[written] = known
        return known

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Read the body, at most as much of it as is allowed and for at most so long.

        :raises Problem: when it is too long or too slow.
        """
        length = headers.raw(b"content-length")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large(() if int(length) <= _MAX_DISCARDED_BYTES else (_CLOSE,))
        waiting = receive().__await__()
        try:
            pending = next(waiting)
        except StopIteration as done:  # nearly always: the body arrived with the headers
            message = done.value
            if not message.get("more_body") and message["type"] == "http.request":
                body = message.get("body", b"")
                if len(body) > self._max_body_bytes:
                    raise self._too_large() from None
                return bytes(body)
            return await self._in_time(self._rest_of_body(message, receive))
        return await self._in_time(self._rest_of_body(_Resumed(waiting, pending), receive))

    async def _in_time(self, body: Coroutine[Any, Any, bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._body_timeout):
                return await body
        except TimeoutError:
            text = f"the body did not arrive within {self._body_timeout:g} s"
            raise Problem("timeout_body", text, headers=(_CLOSE,)) from None

    async def _rest_of_body(self, first: Message | _Resumed, receive: Receive) -> bytes:
        parts, size = [], 0
        message = await first if isinstance(first, _Resumed) else first
        while True:
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()

    def _too_large(self, headers: tuple[tuple[bytes, bytes], ...] = (_CLOSE,)) -> Problem:
        return Problem("too_large", f"the body must have at most {self._max_body_bytes} bytes", headers=headers)


class _Resumed:
    """A coroutine that has begun to wait, to be awaited from where it is.

    A timeout costs 8 µs, a quarter of a request; this lets a body that is there already do without.
    """

    def __init__(self, waiting: Generator[Any, None, Message], pending: Any) -> None:
        self._waiting = waiting
        self._pending = pending

    def __await__(self) -> Generator[Any, Any, Message]:
        """Wait for the rest."""
        yield self._pending
        return (yield from self._waiting)


class _DisconnectedError(Exception):
    """The caller has closed the connection before its body was complete."""


def accepts_json(accept: bytes) -> bool:
    """Return whether a header ``Accept`` allows JSON."""
    types = {part.split(b";")[0].strip().lower() for part in accept.split(b",")}
    return not types.isdisjoint({b"*/*", b"application/*", b"application/json"})


def read_content_type(written: str) -> str:
    """Return the type of a body.

    :param written: header ``Content-Type``.
    :raises Problem: when it is not one that is understood.
    """
    kind, *parameters = (part.strip().lower() for part in written.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise Problem("unsupported_media_type", "the body must be UTF-8; got another charset")
    if kind not in (JSON, CSV):
        raise Problem("unsupported_media_type", f"the body must be {JSON} or {CSV}; got another type")
    return kind
