"""The HTTP server: uvicorn, run in a main of our own so that it drains before it ends and bounds slow callers."""

from __future__ import annotations

import asyncio
import logging
import math
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.app import ServingApp
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import request_id

_log = logging.getLogger(__name__)
MAX_HEADER_BYTES = 64 * 1024
"""64 KiB: longest URL, and longest headers of one request together with its URL; common proxies allow less."""
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1024 * 1024
"""How long, and for how much more data, a refused connection stays open so that its caller can read why."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which also bounds the size of headers and how long headers and unread bodies may take.

    uvicorn itself bounds only the time between two requests, and httptools keeps headers of any length in memory.
    """

    header_seconds = 10.0
    """Longest wait for the first byte of a connection, from the first byte of a request to its last header, and for
    the rest of a body after its request was answered."""
    _waits_for_headers = True
    _is_complete = True
    """Whether the whole body of the last request has arrived."""
    _chunk_bytes = 0
    """Length of the data that is being parsed; 0 once a request has ended in it."""
    _held_bytes = 0
    """Bytes since the request began, or since the last piece of its body: what the parser may hold at most."""
    _refused_bytes = -1
    """Bytes that arrived after the connection was refused; -1 while it is not."""
    _deadline: asyncio.TimerHandle | None = None
    _body_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait."""
        self._cancel_deadline()
        self._cancel_body_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._waits_for_headers, self._is_complete = True, False
        self._held_bytes = self._chunk_bytes
        self._cancel_body_deadline()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that all headers are there, and refuse the request when they are too long."""
        self._waits_for_headers = False
        if self._held_bytes > MAX_HEADER_BYTES and self._header_bytes() > MAX_HEADER_BYTES:
            raise ValueError("the headers are too long")  # the parser stops, and `send_400_response` is called
        self._held_bytes = 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Note that a piece of a body begins."""
        self._held_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._held_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the body is complete."""
        self._is_complete = True
        self._chunk_bytes = self._held_bytes = 0
        self._cancel_body_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit the time for the rest of the body when the answer was sent before the body has arrived."""
        super().on_response_complete()
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and not (self._is_complete or self._waits_for_headers or self.transport.is_closing()):
            self._body_deadline = self.loop.call_later(self.header_seconds, self._close)

    def data_received(self, data: bytes) -> None:
        """Read bytes; headers that are not complete with them get a deadline."""
        if self._refused_bytes >= 0:
            self._discard(len(data))
            return
        self._chunk_bytes = len(data)
        self._held_bytes += len(data)
        super().data_received(data)
        if self._refused_bytes >= 0:
            return
        if self._held_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()
        elif not self._waits_for_headers:
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser has not accepted."""
        if self._held_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()
        else:
            self._refuse(Problem("invalid_http", "the request must be HTTP/1.1; got something that cannot be read"))

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse_headers(self) -> None:
        if not self._is_complete and not self.headers and len(self.url) > MAX_HEADER_BYTES // 2:
            self._refuse(Problem("url_too_long", f"the URL must have at most {MAX_HEADER_BYTES} bytes"))
        else:
            self._refuse(Problem("headers_too_large", f"the headers must have at most {MAX_HEADER_BYTES} bytes"))

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem and close the connection; an answer that is being written is cut off instead."""
        if self.transport.is_closing():
            return
        self._cancel_deadline()
        self._refused_bytes = 0
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        identity = request_id(b"")
        body = problem.body(identity.decode())
        self.transport.write(
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[problem.status], len(body), identity, body)
        )
        # A connection that is closed while bytes are unread is reset, and the caller may then not see the answer.
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self._close)

    def _discard(self, number: int) -> None:
        self._refused_bytes += number
        if self._refused_bytes > _LINGER_BYTES:
            self._close()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_body_deadline(self) -> None:
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which drains at SIGTERM and SIGINT, and ends at once at the second one.

    :param config: uvicorn's settings.
    :param app: the application, which is asked to drain.
    """

    def __init__(self, config: uvicorn.Config, app: ServingApp) -> None:
        super().__init__(config)
        self._app = app
        self._drain_requested = False
        self._drain_task: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._app.drain.is_draining or self.should_exit:
            self.should_exit = self.force_exit = True
        self._drain_requested = True

    async def on_tick(self, counter: int) -> bool:
        """Begin to drain when a signal has asked for it; called ten times a second."""
        if self._drain_requested and self._drain_task is None:
            self._drain_task = asyncio.create_task(self._app.drain.run(self._end))
        return bool(await super().on_tick(counter))

    def _end(self) -> None:
        self.should_exit = True


def create_server(settings: ServingSettings, app: ServingApp) -> DrainingServer:
    """Return the HTTP server of an application.

    :param settings: settings of the server.
    :param app: the application.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="none",
        http=type("Http", (BoundedHttp,), {"header_seconds": settings.body_timeout}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on the address of the caller
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=math.ceil(settings.keep_alive),
        timeout_graceful_shutdown=int(settings.request_timeout) + 5,
    )
    return DrainingServer(config, app)
