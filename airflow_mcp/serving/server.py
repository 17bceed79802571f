"""The HTTP server: uvicorn, run in a main of our own so that it drains before it ends and bounds slow callers."""

from __future__ import annotations

import asyncio
import logging
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.app import ServingApp

_log = logging.getLogger(__name__)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which also closes connections whose headers do not arrive in time.

    uvicorn itself bounds only the time between two requests.
    """

    header_seconds = 10.0
    """Longest wait for the first byte of a connection, and from the first byte of a request to its last header."""
    _waits_for_headers = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._waits_for_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that all headers are there."""
        self._waits_for_headers = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read bytes; headers that are not complete with them get a deadline."""
        super().data_received(data)
        if not self._waits_for_headers:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._close)

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
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=int(settings.request_timeout) + 5,
    )
    return DrainingServer(config, app)
