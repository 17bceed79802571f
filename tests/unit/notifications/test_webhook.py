"""WebhookNotifier against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_mcp.exceptions import GateRejectedError, InvalidArgumentError
from airflow_mcp.notifications.webhook import WebhookNotifier
from airflow_mcp.operators.base import ModelControlOperator
from tests.support.task_harness import TaskOutcome, run_task

SECRET = "T0S3CRETxyz"


class Webhook:
    """A server that keeps what it was sent and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, bytes]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.requests.append((self.path, dict(self.headers), body))
                status, answer = webhook.answers.pop(0) if webhook.answers else (200, b"ok")
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    made = Webhook()
    connection = {"conn_type": "http", "host": f"{made.url}/hook", "password": SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps(connection))
    monkeypatch.setattr(WebhookNotifier, "backoff", 0.0)
    yield made
    made.close()


class Broken(ModelControlOperator):
    """A task that fails for a given reason."""

    def __init__(self, *, error: Exception | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def act(self, context: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {}


def fail(error: Exception | None, *notifiers: WebhookNotifier, **more: Any) -> TaskOutcome:
    with DAG("fraud", schedule=None):
        task = Broken(error=error, task_id="gate", on_failure_callback=list(notifiers), **more)
    return run_task(task)


def test_a_failed_task_is_told_with_every_fact(webhook: Webhook) -> None:
    outcome = fail(ValueError("out of memory"), WebhookNotifier(webhook_conn_id="ops"))
    assert outcome.state == "failed"
    ((path, headers, body),) = webhook.requests
    assert (path, headers["Authorization"]) == ("/hook", f"Bearer {SECRET}")
    assert {name: body[name] for name in ("event", "dag_id", "run_id", "task_id", "state", "reason")} == {
        "event": "failure",
        "dag_id": "fraud",
        "run_id": "run-1",
        "task_id": "gate",
        "state": "failed",
        "reason": "out of memory",
    }
    assert "/dags/fraud/runs/run-1/tasks/gate" in body["url"]
    assert body["text"].startswith("Failed: fraud.gate (run-1)\nout of memory\n")


@pytest.mark.parametrize(
    ("shape", "path", "body"),
    [
        ("slack", f"/hook/{SECRET}", {"text": "fraud says run-1"}),
        ("wecom", f"/hook?key={SECRET}", {"msgtype": "text", "text": {"content": "fraud says run-1"}}),
    ],
)
def test_chats_get_their_own_shape_and_the_secret_in_the_address(
    webhook: Webhook, shape: Any, path: str, body: Any
) -> None:
    webhook.answers = [(200, b'{"errcode": 0, "errmsg": "ok"}')]
    fail(
        ValueError("x"),
        WebhookNotifier(webhook_conn_id="ops", format=shape, text="{{ dag.dag_id }} says {{ run_id }}"),
    )
    ((asked, headers, sent),) = webhook.requests
    assert (asked, sent) == (path, body)
    assert "Authorization" not in headers


def test_only_what_may_pass_is_tried_again(webhook: Webhook) -> None:
    webhook.answers = [(503, b""), (429, b""), (200, b"")]
    fail(ValueError("x"), WebhookNotifier(webhook_conn_id="ops"))
    assert len(webhook.requests) == 3
    webhook.answers = [(403, b"")]
    fail(ValueError("x"), WebhookNotifier(webhook_conn_id="ops"))
    assert len(webhook.requests) == 4


def test_attempts_are_bounded(webhook: Webhook) -> None:
    webhook.answers = [(500, b"")] * 9
    fail(ValueError("x"), WebhookNotifier(webhook_conn_id="ops", attempts=2))
    assert len(webhook.requests) == 2


@pytest.mark.parametrize(
    ("status", "answer", "shape"),
    [
        (500, b"", "json"),
        (404, b"", "slack"),
        (302, b"", "slack"),
        (200, b'{"errcode": 93000}', "wecom"),
        (200, b"<", "wecom"),
    ],
)
def test_a_message_that_is_not_taken_is_an_error_in_the_log_without_the_secret(
    webhook: Webhook, status: int, answer: bytes, shape: Any, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    webhook.answers = [(status, answer)] * 3
    with caplog.at_level(logging.DEBUG):
        outcome = fail(ValueError("x"), WebhookNotifier(webhook_conn_id="ops", format=shape))
    assert outcome.state == "failed"
    assert {path for path, _, _ in webhook.requests} <= {"/hook", f"/hook/{SECRET}", f"/hook?key={SECRET}"}
    output = caplog.text + "".join(capfd.readouterr())
    assert "The message to connection 'ops' was not delivered: 127.0.0.1: " in output
    assert SECRET not in output


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (None, "was not delivered"),
        ({"host": ""}, "host must be an https or http URL without login; got a value that is not shown"),
        (
            {"host": "ftp://T0S3CRETxyz/"},
            "host must be an https or http URL without login; got a value that is not shown",
        ),
        ({"host": "http://127.0.0.1:9/T0S3CRETxyz"}, "127.0.0.1: "),
    ],
)
def test_whatever_is_wrong_never_reaches_the_task(
    connection: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_OPS", raising=False)
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_OPS", json.dumps({"conn_type": "http", **connection}))
    monkeypatch.setattr(WebhookNotifier, "backoff", 0.0)
    notifier = WebhookNotifier(webhook_conn_id="ops", timeout=2)
    notifier({"run_id": "r", "reason": "task_failure"})
    output = caplog.text + "".join(capfd.readouterr())
    assert said in output
    assert SECRET not in output


def test_a_text_that_cannot_be_rendered_never_reaches_the_task(webhook: Webhook) -> None:
    WebhookNotifier(webhook_conn_id="ops", text="{{ 1 / 0 }}")({"run_id": "r", "reason": "x"})
    assert webhook.requests == []


def test_a_whole_run_is_told_from_the_little_that_the_dag_processor_knows(webhook: Webhook) -> None:
    with DAG("fraud", schedule=None) as dag:
        BaseOperator(task_id="train")
    WebhookNotifier(webhook_conn_id="ops", event="success")(
        {"dag": dag, "run_id": "scheduled__2026-11-21T02:00:00+00:00", "reason": "success"}
    )
    (body,) = webhook.bodies
    assert (body["event"], body["dag_id"], body["task_id"], body["reason"]) == ("success", "fraud", "", "success")
    assert body["url"].endswith("/dags/fraud/runs/scheduled__2026-11-21T02%3A00%3A00%2B00%3A00")


def test_the_gates_message_is_sent_only_when_the_gate_rejected(webhook: Webhook) -> None:
    def notifier() -> WebhookNotifier:
        return WebhookNotifier(webhook_conn_id="ops", event="gateRejected")

    fail(ValueError("MLflow is gone"), notifier())
    assert webhook.bodies == []
    fail(GateRejectedError("accuracy >= 0.9: 0.8 is not >= 0.9"), notifier())
    (body,) = webhook.bodies
    assert (body["event"], body["reason"]) == ("gateRejected", "accuracy >= 0.9: 0.8 is not >= 0.9")
    assert body["text"].startswith("Rejected by the evaluation gate: fraud.gate")


def test_a_secret_of_the_connection_in_a_reason_is_hidden(webhook: Webhook) -> None:
    fail(ValueError(f"refused with {SECRET}"), WebhookNotifier(webhook_conn_id="ops"))
    (body,) = webhook.bodies
    assert body["reason"] == "refused with ***"


def test_it_can_be_awaited(webhook: Webhook) -> None:
    async def send() -> None:
        notifier = WebhookNotifier(webhook_conn_id="ops")
        await notifier.async_notify({"run_id": "r", "reason": "deadline"})  # type: ignore[typeddict-unknown-key]

    asyncio.run(send())
    assert webhook.bodies[0]["reason"] == "deadline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event": "maybe"}, "event must be one of failure, success, gateRejected; got 'maybe'"),
        ({"format": "xml"}, "format must be one of json, slack, wecom; got 'xml'"),
        ({"attempts": 0}, "attempts at least 1; got 'ops', 10.0, 0"),
        ({"timeout": 0}, "timeout must be above 0 and attempts at least 1; got 'ops', 0, 3"),
        (
            {"webhook_conn_id": ""},
            "webhook_conn_id must not be empty, timeout must be above 0 and attempts at least 1; got ''",
        ),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        WebhookNotifier(**{"webhook_conn_id": "ops", **arguments})
    assert message in str(caught.value)
