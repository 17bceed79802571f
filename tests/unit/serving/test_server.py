"""The HTTP server on a real socket: what it bounds before the application sees a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving import server as module
from airflow_mcp.serving.app import create_app
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.server import MAX_HEADER_BYTES, create_server
from tests.support.services import free_port

BODY_TIMEOUT = 0.3
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _no_pool(*_: Any) -> Any:
    raise AssertionError("nothing is loaded here")


def with_server(then: Callable[[int], Awaitable[Any]], body_timeout: float = BODY_TIMEOUT) -> Any:
    """Run something while a server without models listens on the port that it is called with."""

    async def run() -> Any:
        settings = ServingSettings(
            host="127.0.0.1", port=free_port(), body_timeout=body_timeout, drain_seconds=0, max_body_bytes=2048
        )
        models = ServedModels(_no_pool)
        server = create_server(settings, create_app(settings, models, Metrics(models)))
        task = asyncio.create_task(server._serve())  # without the handlers of signals, which only a main may have
        try:
            async with asyncio.timeout(20):
                while not server.started:  # noqa: ASYNC110  (a test may poll)
                    await asyncio.sleep(0.01)
                return await then(settings.port)
        finally:
            server.should_exit = True
            await task

    return uvloop.run(run())


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def refused(port: int, sent: bytes) -> tuple[int, str]:
    """Return status and code of the answer to something, after which the connection must be closed."""
    async with connected(port) as (reader, writer):
        writer.write(sent)
        status, headers, body = await answer(reader)
        assert (headers["content-type"], headers["connection"]) == ("application/json", "close")
        error = json.loads(body)["error"]
        assert error["request_id"] == headers["x-request-id"]
        assert await reader.read() == b""
        return status, error["code"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GET + b"x-long: " + b"a" * 4 * MAX_HEADER_BYTES, (431, "headers_too_large")),
        (GET + b"x-many: aaaaaaaaaa\r\n" * 20_000, (431, "headers_too_large")),
        (GET + b"x-long: " + b"a" * MAX_HEADER_BYTES + b"\r\n\r\n", (431, "headers_too_large")),
        (b"GET /" + b"a" * 4 * MAX_HEADER_BYTES, (414, "url_too_long")),
        (b"\r\n" * 4 * MAX_HEADER_BYTES, (431, "headers_too_large")),
        (b"this is not HTTP\r\n\r\n", (400, "invalid_http")),
    ],
    ids=["one long header", "many headers", "complete headers", "URL", "empty lines", "not HTTP"],
)
def test_what_is_too_long_or_not_http_is_answered_in_json_and_the_connection_closed(
    sent: bytes, expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER_SECONDS", 0.1)
    assert with_server(lambda port: refused(port, sent)) == expected


def test_headers_without_end_are_not_kept_in_memory() -> None:
    async def flood(port: int) -> int:
        async with connected(port) as (_, writer):
            writer.write(GET + b"x-long: ")
            sent = 0
            try:
                while sent < 64 * 1024 * 1024:
                    writer.write(b"a" * 65_536)
                    await writer.drain()
                    sent += 65_536
            except ConnectionError:
                pass
            return sent

    sent = with_server(flood, body_timeout=15)
    assert sent < 32 * 1024 * 1024  # what sockets hold, and what is thrown away before the end


def test_headers_below_the_limit_and_long_bodies_are_read() -> None:
    async def ask(port: int) -> list[int]:
        async with connected(port) as (reader, writer):
            begun = b"POST /hooks HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
            writer.write(GET + b"x-long: " + b"a" * (MAX_HEADER_BYTES - 100) + b"\r\n\r\n")
            found = [(await answer(reader))[0]]
            writer.write(begun + b"b" * 300_000 + GET)  # the next request begins in the last piece of a body
            found.append((await answer(reader))[0])
            writer.write(b"\r\n")
            found.append((await answer(reader))[0])
            return found

    assert with_server(ask) == [200, 405, 200]


def test_trailers_without_end_close_the_connection() -> None:
    async def ask(port: int) -> bool:
        async with connected(port) as (reader, writer):
            writer.write(
                b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx-end: "
            )
            try:
                for _ in range(64):
                    writer.write(b"a" * 65_536)
                    await writer.drain()
                return await reader.read() == b""
            except ConnectionError:
                return True

    assert with_server(ask)


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n", 413),
        (GET + b"content-length: 50000000\r\n\r\n", 200),
        (GET + b"transfer-encoding: chunked\r\n\r\n", 200),
    ],
    ids=["too long", "of a page", "of a page, in chunks"],
)
def test_a_body_that_trickles_in_after_its_answer_does_not_hold_the_connection(begun: bytes, status: int) -> None:
    async def ask(port: int) -> int:
        async with connected(port) as (reader, writer):
            writer.write(begun)
            found = (await answer(reader))[0]
            chunked = b"chunked" in begun
            end = asyncio.create_task(reader.read())
            try:
                while not end.done():
                    writer.write(b"1\r\na\r\n" if chunked else b"a")
                    await asyncio.sleep(BODY_TIMEOUT / 10)
                await end
            except ConnectionError:
                pass
            return found

    assert with_server(ask) == status


def test_a_connection_whose_body_arrives_after_its_answer_is_used_again() -> None:
    async def ask(port: int) -> list[int]:
        async with connected(port) as (reader, writer):
            writer.write(GET + b"content-length: 5\r\n\r\n")
            found = [(await answer(reader))[0]]
            writer.write(b"12345")
            await asyncio.sleep(2 * BODY_TIMEOUT)
            writer.write(GET + b"\r\n")
            found.append((await answer(reader))[0])
            return found

    assert with_server(ask) == [200, 200]


@pytest.mark.parametrize(("given", "used"), [(0.5, 1), (1.5, 2), (75.0, 75)])
def test_a_fraction_of_a_second_of_keep_alive_is_never_none(given: float, used: int) -> None:
    settings, models = ServingSettings(keep_alive=given), ServedModels(_no_pool)

    async def keep_alive() -> int:
        return create_server(settings, create_app(settings, models, Metrics(models))).config.timeout_keep_alive

    assert asyncio.run(keep_alive()) == used


def test_a_page_that_is_posted_to_names_the_methods_that_it_takes() -> None:
    async def ask(port: int) -> tuple[int, str]:
        async with connected(port) as (reader, writer):
            writer.write(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            status, headers, _ = await answer(reader)
            return status, headers["allow"]

    assert with_server(ask) == (405, "get, head")
