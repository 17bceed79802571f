"""What a message about a task or a run says, in the shapes that receivers want."""

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
    """Where the log, or the run, is in Airflow."""

    @property
    def default_text(self) -> str:
        """What is said when nobody wrote a text."""
        what = f"{self.dag_id}.{self.task_id}" if self.task_id else self.dag_id
        lines = [f"{_HEADLINES[self.event]}: {what} ({self.run_id})", _shortened(self.reason), self.url]
        return "\n".join(line for line in lines if line)


def state_of(event: NoticeEvent) -> str:
    """Give Airflow's word for how what an event is about has ended.

    :param event: the event.
    """
    return _STATES[event]


def body_of(notice: Notice, text: str, shape: NoticeFormat) -> dict[str, Any]:
    """Write a message.

    :param notice: its facts.
    :param text: what it says; empty takes :attr:`Notice.default_text`.
    :param shape: ``json`` holds every fact; ``slack`` is a Slack incoming webhook's, ``wecom`` an Enterprise WeChat
        group robot's message, with the text only.
    """
    said = text or notice.default_text
    if shape == "slack":
        escaped = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": escaped[:_MAX_SLACK]}
    if shape == "wecom":
        content = said.encode()[:_MAX_WECOM_BYTES].decode(errors="ignore")
        return {"msgtype": "text", "text": {"content": content}}
    return {**asdict(notice), "reason": _shortened(notice.reason), "text": said}


def address(host: str, scheme: str, port: int | None, secret: str, shape: NoticeFormat) -> str:
    """Put the address of a webhook together.

    :param host: full URL, or a bare host.
    :param scheme: ``https`` or ``http``, when the host is bare; empty is ``https``.
    :param port: port, when the host does not hold one.
    :param secret: password of the connection; it is the end of the path for Slack, the parameter ``key`` for
        Enterprise WeChat, and no part of the address otherwise.
    :param shape: the format.
    :raises InvalidArgumentError: without repeating the address, which may be secret.
    """
    given = host.strip()
    try:
        url = urlsplit(given if "://" in given else f"{scheme or 'https'}://{given}")
        place = url.netloc if port is None or url.port else f"{url.netloc}:{port}"
    except ValueError:
        raise InvalidArgumentError("its host is not a URL (it is not shown, as it may be secret)") from None
    if url.scheme not in ("https", "http") or not url.hostname or "@" in url.netloc:
        raise InvalidArgumentError(
            "its host is not usable (it is not shown, as it may be secret); allowed: an https or http URL without login"
        )
    path, query = url.path, url.query
    if secret and shape == "slack":
        path = f"{path.rstrip('/')}/{secret.lstrip('/')}"
    elif secret and shape == "wecom":
        query = f"{query}&key={quote(secret)}" if query else f"key={quote(secret)}"
    return urlunsplit((url.scheme, place, path or "/", query, ""))


def secrets_of(url: str) -> tuple[str, ...]:
    """Name the parts of an address that logs must hide: path and query are what lets one post.

    :param url: the address.
    """
    parts = urlsplit(url)
    return tuple(part for part in (parts.path.strip("/"), parts.query, parts.query.rpartition("=")[2]) if len(part) > 4)


def _shortened(reason: str) -> str:
    return reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]} …"
