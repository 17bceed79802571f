"""All replicas of a model server are read at the same time; each is a real HTTP server here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from airflow.sdk import Connection

from airflow_mcp.exceptions import InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.replica_metrics import ReplicaAddresses, read_addresses
from airflow_mcp.hooks.serving import addresses_of


class _Metrics(BaseHTTPRequestHandler):
    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        status = 503 if self.connection.getsockname()[0] == "127.0.0.3" else 200
        body = f"me {self.headers['Host']}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A port on which 127.0.0.1 and 127.0.0.2 answer, and 127.0.0.3 answers 503."""
    first = ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    number = first.server_address[1]
    servers = [first, *(ThreadingHTTPServer((f"127.0.0.{last}", number), _Metrics) for last in (2, 3))]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield number
    for server in servers:
        server.shutdown()
        server.server_close()


def read(*hosts: tuple[str, int], timeout: float = 5.0) -> dict[str, str]:
    found = asyncio.run(ReplicaAddresses(hosts, timeout=timeout).read())
    return {each.replica: each.text for each in found}


def test_reads_every_replica_once(port: int) -> None:
    found = read(("127.0.0.1", port), ("127.0.0.2", port), ("127.0.0.1", port))
    assert found == {f"127.0.0.{last}:{port}": f"me 127.0.0.{last}:{port}\n" for last in (1, 2)}
    assert set(_Metrics.paths) == {"/metrics"}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("127.0.0.3", "/metrics answers 503"),
        ("127.0.0.4", "does not answer"),
        ("no-such-host.invalid", "has no address"),
    ],
)
def test_a_replica_that_does_not_answer_is_named(port: int, host: str, message: str) -> None:
    with pytest.raises(ServerUnreachableError, match=message) as caught:
        read(("127.0.0.1", port), (host, port))
    assert host in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("fraud-headless.ml.svc", (("fraud-headless.ml.svc", 8000),)),
        ("a:1, b", (("a", 1), ("b", 8000))),
        ("[::1]:9,[::2]", (("::1", 9), ("::2", 8000))),
    ],
)
def test_reads_hosts_with_and_without_ports(text: str, wanted: tuple[tuple[str, int], ...]) -> None:
    assert read_addresses(text) == wanted


@pytest.mark.parametrize("text", ["", " , ", "a:b", "a:0", "a:70000", "http://a", ":8000"])
def test_refuses_what_is_no_host(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="host must"):
        read_addresses(text)


def test_reads_a_connection() -> None:
    extra = '{"ca_bundle": "/ca.pem", "timeout": 2}'
    made = addresses_of(Connection(conn_id="c", conn_type="model_server", host="a,b:9", schema="https", extra=extra))
    assert made == ReplicaAddresses((("a", 8000), ("b", 9)), "https", "/ca.pem", 2.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": "ftp"}, "schema of connection 'c' must be one of http, https; got 'ftp'"),
        ({"extra": '{"timeout": "5"}'}, "extra timeout of connection 'c' must be seconds"),
        ({"extra": '{"verify": 1.5}'}, "extra verify of connection 'c' must be true or false"),
        ({"host": ""}, "host must name at least one model server"),
    ],
)
def test_refuses_a_connection_that_is_not_usable(fields: dict[str, str], message: str) -> None:
    given: dict[str, Any] = {"conn_id": "c", "conn_type": "model_server", "host": "a", **fields}
    with pytest.raises(InvalidArgumentError, match=message):
        addresses_of(Connection(**given))
