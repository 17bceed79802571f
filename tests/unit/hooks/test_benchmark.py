"""Asking a real web server: what it may do wrong, and whom credentials are for."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.gate.rules.benchmark import MAX_ANSWER_BYTES, BenchmarkAnswer, BenchmarkRule, judge_benchmark
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.benchmark import ask_benchmark

GOOD = b'{"regression": false}'


class Service(BaseHTTPRequestHandler):
    asked: list[tuple[str, str]] = []
    hold = threading.Event()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        getattr(self, f"_{self.path.strip('/').partition('?')[0]}")()

    def _say(self, status: int, body: bytes = GOOD, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _good(self) -> None:
        self._say(200)

    def _bad(self) -> None:
        self._say(200, b'{"regression": true}')

    def _broken(self) -> None:
        self._say(500)

    def _html(self) -> None:
        self._say(200, b"<html>sign in</html>")

    def _missing(self) -> None:
        self._say(200, b'{"other": false}')

    def _away(self) -> None:
        self._say(302, Location="/good")

    def _denied(self) -> None:
        self._say(401)

    def _large(self) -> None:
        self._say(200, b" " * (MAX_ANSWER_BYTES + 1))

    def _recovers(self) -> None:
        self._say(503 if len(self.asked) < 3 else 200)

    def _repeats(self) -> None:
        self._say(200, json.dumps({"regression": {"seen": self.asked[-1][1].partition(" ")[2]}}).encode())

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(GOOD)

    def _silent(self) -> None:
        self.hold.wait(10)

    def _drips(self) -> None:
        self.send_response(200)
        self.end_headers()
        for letter in GOOD.decode() * 5:
            try:
                self.wfile.write(letter.encode())
                self.wfile.flush()
            except OSError:
                return
            if self.hold.wait(0.05):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def service() -> Iterator[str]:
    Service.asked.clear()
    Service.hold.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Service.hold.set()
        server.shutdown()


def ask(url: str, **changes: Any) -> tuple[BenchmarkAnswer, str]:
    """Ask without waiting between tries; give the answer and the verdict on it."""
    given = {"url": url, "path": "regression", "expect": False, "retries": 0, "timeout": 5, **changes}
    rule = read_argument(BenchmarkRule, "benchmarks", given)
    answer = ask_benchmark(rule, sleep=lambda _: None)
    return answer, str(judge_benchmark(rule, answer).verdict)


@pytest.mark.parametrize(
    ("path", "status", "verdict"),
    [
        ("good", 200, "passed"),
        ("bad", 200, "failed"),
        ("broken", 500, "inconclusive"),
        ("html", 200, "error"),
        ("missing", 200, "error"),
        ("away", 302, "error"),
        ("denied", 401, "error"),
        ("large", 200, "error"),
        ("cut", None, "inconclusive"),
    ],
)
def test_every_answer_but_the_right_one_closes_the_gate(
    service: str, path: str, status: int | None, verdict: str
) -> None:
    answer, given = ask(f"{service}/{path}")
    assert (answer.status, given) == (status, verdict)


def test_a_redirect_is_not_followed(service: str) -> None:
    ask(f"{service}/away", retries=3)
    assert [path for path, _ in Service.asked] == ["/away"]


@pytest.mark.parametrize("path", ["silent", "drips"])
def test_a_server_that_takes_its_time_is_given_up_at_the_deadline(service: str, path: str) -> None:
    answer, verdict = ask(f"{service}/{path}", timeout=0.3)
    assert (answer.status, answer.problem, verdict) == (None, "no complete answer in 0.3 s", "inconclusive")
    assert answer.milliseconds >= 250


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://no-such-host.invalid/x", "https://127.0.0.1:1/x"])
def test_a_server_that_is_not_there_is_inconclusive(url: str) -> None:
    answer, verdict = ask(url, retries=1)
    assert (answer.status, answer.tries, verdict) == (None, 2, "inconclusive")
    assert answer.problem


def test_a_server_that_recovers_is_asked_again_after_a_growing_wait(service: str) -> None:
    waits: list[float] = []
    rule = BenchmarkRule(url=f"{service}/recovers", path="regression", expect=False)
    answer = ask_benchmark(rule, sleep=waits.append)
    assert (answer.status, answer.tries, waits) == (200, 3, [1.0, 2.0])


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BENCH", json.dumps({"conn_type": "http", "host": "127.0.0.1", **fields}))


def test_credentials_come_from_a_connection_and_are_not_shown(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, login="ada", password="s3cret")
    answer, verdict = ask(f"{service}/good", conn_id="bench")
    assert verdict == "passed"
    assert Service.asked == [("/good", "Basic " + base64.b64encode(b"ada:s3cret").decode())]
    assert answer.secrets == ("s3cret", base64.b64encode(b"ada:s3cret").decode())
    assert "s3cret" not in repr(answer)

    connect(monkeypatch, extra={"token": "t0ken"})
    answer, _ = ask(f"{service}/good", conn_id="bench")
    assert Service.asked[-1] == ("/good", "Bearer t0ken")
    assert answer.secrets == ("t0ken",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "other.example"}, "is for the host 'other.example', but the benchmark is at '127.0.0.1'"),
        ({"host": ""}, "is for the host ''"),
        ({"login": "ada", "password": "s3cret", "extra": {"token": "t0ken"}}, "is not usable"),
        ({"extra": {"token": 5}}, "is not usable"),
        ({"extra": {"token": "s3cret\n"}}, "is not usable. Set login and password, or the extra token (printable"),
        ({"extra": {"token": "s3cret\N{EURO SIGN}"}}, "is not usable"),
    ],
)
def test_credentials_for_somebody_else_are_not_sent(
    service: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    connect(monkeypatch, **fields)
    with pytest.raises(InvalidArgumentError) as caught:
        ask(f"{service}/good", conn_id="bench")
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert Service.asked == []


@pytest.mark.parametrize("made", ["missing", "folder", "text"])
def test_certificates_that_cannot_be_read_are_named_before_anybody_is_asked(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    bundle = tmp_path / "ca.pem"
    if made == "folder":
        bundle.mkdir()
    elif made == "text":
        bundle.write_text("no certificate")
    connect(monkeypatch, extra={"token": "t0ken", "ca_bundle": str(bundle)})
    with pytest.raises(InvalidArgumentError) as caught:
        ask(service.replace("http:", "https:"), conn_id="bench")
    assert f"the extra ca_bundle of connection 'bench' must be a readable PEM file; got '{bundle}'" in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_trust_is_read_once_however_often_is_asked(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles: list[str] = []
    read = ssl.create_default_context

    def create(*, cafile: str) -> ssl.SSLContext:
        bundles.append(cafile)
        return read()

    monkeypatch.setattr(ssl, "create_default_context", create)
    connect(monkeypatch, extra={"token": "t0ken", "ca_bundle": "/ca.pem"})
    answer, verdict = ask(service.replace("http:", "https:"), conn_id="bench", retries=2)
    assert (answer.tries, verdict, bundles) == (3, "inconclusive", ["/ca.pem"])


@pytest.mark.parametrize("host", ["1.2.3.999", "xn--", "\N{SINGLE LOW-9 QUOTATION MARK}.example"])
def test_an_address_that_cannot_be_asked_is_refused_at_once(host: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"benchmarks\.url must be a valid URL; got .*\. Nothing was requested"
    ):
        ask(f"http://{host}/x", retries=3)


@pytest.mark.parametrize(
    "fields", [{"login": "ada", "password": "s3cret-\N{EURO SIGN}"}, {"extra": {"token": 's3cret-"t0ken"'}}]
)
def test_a_service_that_repeats_the_credentials_gives_nobody_away(
    service: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    connect(monkeypatch, **fields)
    rule = BenchmarkRule(url=f"{service}/repeats", path="regression", expect=False, conn_id="bench")
    answer = ask_benchmark(rule)
    result = judge_benchmark(rule, answer)
    sent = Service.asked[-1][1].partition(" ")[2]
    assert json.loads(answer.body)["regression"]["seen"] == sent
    for secret in ("s3cret", "t0ken", sent):
        assert secret not in result.model_dump_json()
    assert result.reason == 'regression is {"seen": "***"}, which is not of the type of false'


def test_a_connection_that_does_not_exist_is_named(service: str) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no connection 'nobody'"):
        ask(f"{service}/good", conn_id="nobody")
