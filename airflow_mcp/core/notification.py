"""The text of a message about a task or a run, in the formats of the receivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from airflow_mcp.exceptions import InvalidArgumentError

NoticeEvent = Literal["failure", "success", "gateRejected"]
NoticeFormat = Literal["json", "slack", "wecom"]
_HEADLINES: Mapping[str, str] = {
    "failure": "Failed",
    "success": "Succeeded",
    "gateRejected": "Rejected by the evaluation gate",
}
_STATES: Mapping[str, str] = {"failure": "failed", "success": "success", "gateRejected": "failed"}
_MAX_REASON = 1000
_MAX_SLACK = 3000
_MAX_WECOM_BYTES = 2000
"""Enterprise WeChat takes 2048 bytes."""


@dataclass(frozen=True)
class Notice:
    """The facts of one message."""

    event: NoticeEvent
    dag_id: str
    run_id: str
    task_id: str = ""
    """Empty for a message about a whole run."""
    state: str = ""
    reason: str = ""
    url: str = ""
    """Address of the log, or of the run, in Airflow."""

    @property
    def default_text(self) -> str:
        """The text of a message without its own."""
        what = f"{self.dag_id}.{self.task_id}" if self.task_id else self.dag_id
        lines = [f"{_HEADLINES[self.event]}: {what} ({self.run_id})", _shortened(self.reason), self.url]
        return "\n".join(line for line in lines if line)


def state_of(event: NoticeEvent) -> str:
    """Return the Airflow state that an event stands for.

    :param event: kind of the message.
    """
    return _STATES[event]


def body_of(notice: Notice, text: str, shape: NoticeFormat) -> dict[str, Any]:
    """Return the body of a message.

    :param notice: facts of the message.
    :param text: text of the message; empty uses :attr:`Notice.default_text`.
    :param shape: ``json`` has every fact; ``slack`` (incoming webhook) and ``wecom`` (group robot of Enterprise WeChat)
        have the text only.
    """
    facts = {**asdict(notice), "reason": _shortened(notice.reason)}
    return message_body(text or notice.default_text, shape, facts)


def message_body(text: str, shape: NoticeFormat, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a message with a text.

    :param text: text of the message.
    :param shape: ``json``, ``slack`` or ``wecom``.
    :param facts: JSON values that ``json`` has in addition.
    """
    if shape == "slack":
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": escaped[:_MAX_SLACK]}
    if shape == "wecom":
        content = text.encode()[:_MAX_WECOM_BYTES].decode(errors="ignore")
        return {"msgtype": "text", "text": {"content": content}}
    return {**facts, "text": text}


def address(host: str, scheme: str, port: int | None, secret: str, shape: NoticeFormat) -> str:
    """Return the address of a webhook.

    :param host: full URL, or a bare host.
    :param scheme: ``https`` or ``http``, when the host is bare; empty is ``https``.
    :param port: port, when the host does not hold one.
    :param secret: password of the connection: end of the path for Slack, parameter ``key`` for Enterprise WeChat,
        not part of the address otherwise.
    :param shape: format of the message.
    :raises InvalidArgumentError: when it is not usable; the address is not shown, because it may be secret.
    """
    given = host.strip()
    try:
        url = urlsplit(given if "://" in given else f"{scheme or 'https'}://{given}")
        place = url.netloc if port is None or url.port else f"{url.netloc}:{port}"
    except ValueError:
        raise InvalidArgumentError("host must be a URL; got a value that is not shown") from None
    if url.scheme not in ("https", "http") or not url.hostname or "@" in url.netloc:
        raise InvalidArgumentError("host must be an https or http URL without login; got a value that is not shown")
    path, query = url.path, url.query
    if secret and shape == "slack":
        path = f"{path.rstrip('/')}/{secret.lstrip('/')}"
    elif secret and shape == "wecom":
        query = f"{query}&key={quote(secret)}" if query else f"key={quote(secret)}"
    return urlunsplit((url.scheme, place, path or "/", query, ""))


def secrets_of(url: str) -> tuple[str, ...]:
    """Return the parts of an address that logs must hide: path and query are the credentials.

    :param url: the address.
    """
    parts = urlsplit(url)
    return tuple(part for part in (parts.path.strip("/"), parts.query, parts.query.rpartition("=")[2]) if len(part) > 4)


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} …"
