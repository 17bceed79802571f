"""A real HTTP server on loopback that passes requests on to another server and goes wrong on demand.

::

    with FaultyServer(mlflow_server.url) as server:
        server.fail("runs/create", lost_answer(), times=1)   # upstream creates the run, the client never hears of it
        ...
        assert server.count("runs/create") == 1

Without an upstream every request that no fault answers gets a 599.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of being passed on and answered."""

    status: int | None = None
    """Answer with this status and do not pass the request on; None passes it on."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds to wait first; ends early when the server stops."""
    hang_up: bool = False
    """Close the connection instead of answering (after passing the request on, when status is None)."""


def answer(status: int, body: str = "", **headers: str) -> Fault:
    """An answer of one's own; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(status, body.encode(), {"content-type": "application/json", **named})


def html(status: int = 200) -> Fault:
    """The page of a proxy or of a login."""
    page = b"<!doctype html><html><title>Sign in</title></html>"
    return Fault(status, page, {"content-type": "text/html; charset=utf-8"})


def slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(delay=seconds)


def lost_answer() -> Fault:
    """The request is carried out, and the connection breaks before the answer."""
    return Fault(hang_up=True)


def refused_midway() -> Fault:
    """The connection breaks and nothing is carried out."""
    return Fault(status=0, hang_up=True)


@dataclass(frozen=True)
class Seen:
    """A request that reached the server."""

    method: str
    path: str
    """Path and query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass
class _Rule:
    part: str
    fault: Fault
    method: str | None
    left: int | None


class FaultyServer:
    """The server; use it as a context manager.

    :param upstream: base URL of the server that requests are passed on to; None passes none on.
    :param tls: server-side TLS context, to serve HTTPS.
    """

    def __init__(self, upstream: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self._upstream = upstream
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server = _Server((LOOPBACK, 0), _handler_of(self))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"{'http' if tls is None else 'https'}://{LOOPBACK}:{self._server.server_address[1]}"

    def fail(self, part: str, fault: Fault, *, times: int | None = None, method: str | None = None) -> None:
        """Make requests go wrong; rules are tried in the order they were given.

        :param part: part of the path; an empty text is every path.
        :param fault: what happens.
        :param times: how often; None is for ever.
        :param method: only for this HTTP method.
        """
        with self._lock:
            self._rules.append(_Rule(part, fault, method, times))

    def heal(self) -> None:
        """Forget every fault."""
        with self._lock:
            self._rules.clear()

    def count(self, part: str) -> int:
        """Return how many requests with this part in their path have come so far."""
        return sum(part in request.path for request in self.seen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def handle(self, request: Seen) -> tuple[int, Mapping[str, str], bytes] | None:
        """Return the answer to a request, or None to hang up."""
        self.seen.append(request)
        fault = self._take_fault(request)
        if fault.delay:
            self._stopping.wait(fault.delay)
        if fault.status is not None:
            return None if fault.hang_up else (fault.status, fault.headers, fault.body)
        answered = self._pass_on(request)
        return None if fault.hang_up else answered

    def _take_fault(self, request: Seen) -> Fault:
        path = urlsplit(request.path).path
        with self._lock:
            for rule in self._rules:
                if rule.left != 0 and rule.part in path and rule.method in (None, request.method):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
        return Fault()

    def _pass_on(self, request: Seen) -> tuple[int, Mapping[str, str], bytes]:
        if self._upstream is None:
            return 599, {"content-type": "text/plain"}, b"no upstream"
        url = urlsplit(self._upstream)
        connection = http.client.HTTPConnection(url.hostname or LOOPBACK, url.port, timeout=30)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_HEADERS}
            connection.request(request.method, url.path + request.path, request.body, headers)
            response = connection.getresponse()
            kept = {n.lower(): v for n, v in response.getheaders() if n.lower() not in _HOP_HEADERS}
            return response.status, kept, response.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: a client that hangs up is part of the play."""


def _handler_of(owner: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answered = owner.handle(Seen(self.command, self.path, headers, self.rfile.read(length)))
            if answered is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, answer_headers, body = answered
            self.send_response(status)
            for name, value in answer_headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Write no access log."""

    return Handler
