"""Messages: what they say, in which shape, and where they go."""

from __future__ import annotations

import pytest

from airflow_mcp.core.notification import Notice, address, body_of, secrets_of
from airflow_mcp.exceptions import InvalidArgumentError

NOTICE = Notice("failure", "fraud", "run-1", "train", "failed", "out of memory", "http://airflow/log")
TEXT = "Failed: fraud.train (run-1)\nout of memory\nhttp://airflow/log"


def test_json_holds_every_fact_and_the_text() -> None:
    assert body_of(NOTICE, "", "json") == {
        "event": "failure",
        "dag_id": "fraud",
        "run_id": "run-1",
        "task_id": "train",
        "state": "failed",
        "reason": "out of memory",
        "url": "http://airflow/log",
        "text": TEXT,
    }


def test_a_message_about_a_run_names_no_task() -> None:
    assert Notice("success", "fraud", "run-1").default_text == "Succeeded: fraud (run-1)"
    assert Notice("gateRejected", "fraud", "r", "gate").default_text.startswith(
        "Rejected by the evaluation gate: fraud."
    )


def test_slack_gets_text_without_its_control_characters() -> None:
    assert body_of(NOTICE, "a <b> & c", "slack") == {"text": "a &lt;b&gt; &amp; c"}
    assert len(body_of(NOTICE, "x" * 9000, "slack")["text"]) == 3000


def test_enterprise_wechat_gets_text_that_is_not_too_long_in_bytes() -> None:
    assert body_of(NOTICE, "", "wecom") == {"msgtype": "text", "text": {"content": TEXT}}
    content = body_of(NOTICE, "模" * 3000, "wecom")["text"]["content"]
    assert len(content.encode()) <= 2000
    assert set(content) == {"模"}


def test_a_long_reason_is_cut() -> None:
    long = Notice("failure", "d", "r", reason="x" * 5000)
    assert len(long.default_text) < 1100
    assert len(body_of(long, "", "json")["reason"]) < 1100


@pytest.mark.parametrize(
    ("host", "scheme", "port", "secret", "shape", "url"),
    [
        ("https://hooks.example.com/a", "", None, "", "json", "https://hooks.example.com/a"),
        ("hooks.example.com", "", None, "token", "json", "https://hooks.example.com/"),
        ("hooks.example.com", "http", 8080, "", "json", "http://hooks.example.com:8080/"),
        ("https://hooks.slack.com/services", "", None, "T0/B0/x", "slack", "https://hooks.slack.com/services/T0/B0/x"),
        (
            "https://qyapi.example.com/cgi-bin/send",
            "",
            None,
            "k&1",
            "wecom",
            "https://qyapi.example.com/cgi-bin/send?key=k%261",
        ),
        ("https://qyapi.example.com/send?key=abc", "", None, "", "wecom", "https://qyapi.example.com/send?key=abc"),
    ],
)
def test_the_address_is_put_together_from_the_connection(
    host: str, scheme: str, port: int | None, secret: str, shape: str, url: str
) -> None:
    assert address(host, scheme, port, secret, shape) == url  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["", "ftp://s3cret.example.com/x", "https://u:s3cret@h/x", "http://[s3cret", "file:///s3cret"]
)
def test_an_address_that_is_not_usable_is_refused_and_not_shown(host: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        address(host, "", None, "", "json")
    assert "s3cret" not in str(caught.value)


def test_path_and_query_of_an_address_are_secret() -> None:
    assert secrets_of("https://h/services/T0/B0/xyz") == ("services/T0/B0/xyz",)
    assert secrets_of("https://h/send?key=abcdef") == ("key=abcdef", "abcdef")
