"""The hook against a server that answers as Prometheus does; the bodies are those of its documented HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from airflow.sdk import Connection

from airflow_mcp.exceptions import InvalidArgumentError, ServerUnreachableError
from airflow_mcp.hooks.prometheus import PrometheusAddress, address_of


class Answers(BaseHTTPRequestHandler):
    body: ClassVar[bytes] = b""
    status: ClassVar[int] = 200
    seen: ClassVar[list[tuple[str, str, str]]] = []

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen.append((self.path, parse_qs(text)["query"][0], self.headers.get("Authorization", "")))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=made.serve_forever, daemon=True).start()
    Answers.seen, Answers.status = [], 200
    yield made
    made.shutdown()
    made.server_close()


def ask(server: ThreadingHTTPServer, answer: Any, status: int = 200, **fields: Any) -> float | None:
    Answers.body, Answers.status = answer if isinstance(answer, bytes) else json.dumps(answer).encode(), status
    url = f"http://127.0.0.1:{server.server_port}/prometheus"
    return asyncio.run(PrometheusAddress(url, **fields).number("sum(a) / sum(b)"))


def success(kind: str, result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (success("scalar", [1764460800.1, "0.25"]), 0.25),
        (success("vector", [{"metric": {}, "value": [1764460800.1, "3"]}]), 3.0),
        (success("vector", []), None),
        (success("vector", [{"metric": {"a": "1"}, "value": [1, "3"]}, {"metric": {}, "value": [1, "4"]}]), None),
        (success("vector", [{"metric": {}, "value": [1, "NaN"]}]), None),
        (success("scalar", [1, "+Inf"]), None),
        (success("string", [1, "3"]), None),
        (success("matrix", [{"metric": {}, "values": [[1, "3"]]}]), None),
    ],
)
def test_only_one_finite_number_is_a_result(server: ThreadingHTTPServer, answer: Any, value: float | None) -> None:
    assert ask(server, answer) == value
    assert Answers.seen == [("/prometheus/api/v1/query", "sum(a) / sum(b)", "")]


def test_sends_its_credentials(server: ThreadingHTTPServer) -> None:
    ask(server, success("vector", []), token="t0ken")
    ask(server, success("vector", []), auth=("ada", "pw"))
    assert [each[2] for each in Answers.seen] == ["Bearer t0ken", "Basic YWRhOnB3"]


def test_a_refused_query_and_another_server_are_no_answers(server: ThreadingHTTPServer) -> None:
    refused = {"status": "error", "errorType": "bad_data", "error": "1:3: parse error"}
    with pytest.raises(ServerUnreachableError, match="refuses the query 'sum\\(a\\) / sum\\(b\\)': 1:3: parse error"):
        ask(server, refused, 400)
    with pytest.raises(ServerUnreachableError, match="answers 502, but not as Prometheus does"):
        ask(server, b"<html>", 502)


def test_nobody_there_is_named() -> None:
    with pytest.raises(ServerUnreachableError, match=r"Prometheus at http://127\.0\.0\.1:1 does not answer"):
        asyncio.run(PrometheusAddress("http://127.0.0.1:1").number("up"))


def connection(**fields: Any) -> Connection:
    return Connection(conn_id="p", conn_type="prometheus", **fields)


def test_reads_the_fields_of_the_connection() -> None:
    assert address_of(connection(host="prom")).url == "http://prom:9090"
    full = address_of(connection(host="https://mimir.example.com/prometheus/", login="ada", password="x"))
    assert (full.url, full.auth) == ("https://mimir.example.com/prometheus", ("ada", "x"))
    assert address_of(connection(host="prom", extra='{"ca_bundle": "/ca.pem"}')).verify == "/ca.pem"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "host of connection 'p' must be a name"),
        ({"host": "ftp://x"}, "host of connection 'p' must be a name"),
        ({"host": "http://ada:pw@prom"}, "got a value that is not shown"),
        ({"host": "prom", "extra": '{"timeout": 0}'}, "extra timeout of connection 'p' must be seconds"),
        ({"host": "prom", "extra": '{"verify": 3}'}, "extra verify of connection 'p' must be true or false"),
        ({"host": "prom", "login": "a", "extra": '{"token": "t"}'}, "without login and password"),
    ],
)
def test_refuses_fields_that_are_not_usable(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        address_of(connection(**fields))
