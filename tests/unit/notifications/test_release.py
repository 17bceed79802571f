"""Messages about a release: three webhook formats and e-mail, with nothing secret in them."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator

import pytest

from airflow_mcp.core.approvals.policy import Channel
from airflow_mcp.notifications.release import notify
from tests.support.approvals import KEY
from tests.unit.notifications.test_webhook import SECRET, Webhook, webhook

__all__ = ["webhook"]
DETAILS = {"version": "7", "node": "compliance", "people": ["cora", "carl"], "url": "https://airflow.example/x"}


class Mail(socketserver.StreamRequestHandler):
    """A mail server that keeps what it is sent."""

    received: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline().decode().strip().upper():
            if line == "DATA":
                self.wfile.write(b"354 go on\r\n")
                text = ""
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    text += part
                type(self).received.append(text)
            self.wfile.write(b"221 bye\r\n" if line == "QUIT" else b"250 ok\r\n")
            if line == "QUIT":
                return


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    received: list[str] = []
    handler = type("Handler", (Mail,), {"received": received})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "mcp@bank.example"}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield received
        server.shutdown()


@pytest.mark.parametrize("shape", ["json", "slack", "wecom"])
def test_a_webhook_gets_the_step_and_the_people_in_its_format(webhook: Webhook, shape: str) -> None:
    webhook.answers = [(200, b'{"errcode": 0}')]
    channel = Channel.model_validate({"on": ["alerted"], "webhook": "ops", "format": shape})
    assert notify([channel], "alerted", KEY, DETAILS) == []
    (body,) = webhook.bodies
    text = body["text"]["content"] if shape == "wecom" else body["text"]
    assert text.splitlines()[:3] == [
        "ALERT: nobody has answered: fraud version 7 to prod",
        "step compliance",
        "for cora, carl",
    ]
    assert SECRET not in json.dumps(body)
    if shape == "json":
        assert (body["event"], body["passport"], body["people"]) == ("alerted", KEY.passport, ["cora", "carl"])


def test_a_channel_is_told_only_about_what_it_asks_for(webhook: Webhook) -> None:
    channel = Channel.model_validate({"on": ["granted"], "webhook": "ops"})
    assert notify([channel], "alerted", KEY, DETAILS) == []
    assert webhook.bodies == []


def test_one_channel_that_fails_stops_no_other_and_its_secret_is_not_shown(webhook: Webhook, mail: list[str]) -> None:
    webhook.answers = [(403, b"")]
    channels = [
        Channel.model_validate({"on": ["alerted"], "webhook": "ops", "format": "slack"}),
        Channel.model_validate({"on": ["alerted"], "email": ["on-call@bank.example"]}),
    ]
    (problem,) = notify(channels, "alerted", KEY, DETAILS)
    assert problem.startswith("ops: 127.0.0.1: HTTP 403")
    assert SECRET not in problem
    (text,) = mail
    assert "Subject: ALERT: nobody has answered: fraud version 7 to prod" in text
    assert "on-call@bank.example" in text
