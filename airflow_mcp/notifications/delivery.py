"""Delivery of a message to a webhook: its address is a secret, and only temporary failures are tried again."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.log import amask_secret, mask_secret

from airflow_mcp.core.notification import NoticeFormat, address, secrets_of
from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from airflow.sdk import Connection

_MAX_ANSWER = 64 * 1024
_log = logging.getLogger(__name__)


class WebhookDelivery:
    """Sends messages to the webhook of a connection.

    :param conn_id: Airflow connection with the address.
    :param shape: ``json``, ``slack`` or ``wecom``.
    :param timeout: seconds for one attempt.
    :param attempts: number of attempts.
    :param backoff: seconds before the second attempt; doubles with each further one.
    """

    def __init__(
        self, conn_id: str, shape: NoticeFormat, *, timeout: float = 10.0, attempts: int = 3, backoff: float = 1.0
    ) -> None:
        self._conn_id, self._shape = conn_id, shape
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff

    def send(self, body: dict[str, Any]) -> None:
        """Send a message; blocks.

        :param body: JSON values, as :func:`~airflow_mcp.core.notification.body_of` returns them.
        :raises ConnectionError: when it was not delivered; names the host only.
        :raises InvalidArgumentError: when the connection has no usable address.
        """
        url, token, secrets = self._place(BaseHook.get_connection(self._conn_id))
        for secret in secrets:
            mask_secret(secret)
        self._deliver(_request(body, url, token))

    async def asend(self, body: dict[str, Any]) -> None:
        """Send a message without blocking the event loop; raises as :meth:`send`."""
        url, token, secrets = self._place(await BaseHook.aget_connection(self._conn_id))
        for secret in secrets:
            await amask_secret(secret)
        await asyncio.to_thread(self._deliver, _request(body, url, token))

    def _place(self, connection: Connection) -> tuple[str, str, list[str]]:
        """Return the address, the bearer token (may be empty), and the secrets of the connection."""
        token = str(connection.extra_dejson.get("token") or "")
        password = connection.password or ""
        try:
            url = address(connection.host or "", connection.schema or "", connection.port, password, self._shape)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"connection {self._conn_id!r}: {error}") from None
        bearer = token or (password if self._shape == "json" else "")
        return url, bearer, [secret for secret in (token, password, *secrets_of(url)) if secret]

    def _deliver(self, request: urllib.request.Request) -> None:
        host = urlsplit(request.full_url).hostname
        for attempt in range(1, self._attempts + 1):
            problem, may_pass = self._post(request)
            if not problem:
                return
            if not may_pass or attempt == self._attempts:
                raise ConnectionError(f"{host}: {problem} (attempt {attempt} of {self._attempts})")
            _log.warning("%s: %s. Trying again", host, problem)
            time.sleep(self._backoff * 2 ** (attempt - 1))

    def _post(self, request: urllib.request.Request) -> tuple[str, bool]:
        """Send the request once; return the problem (empty for none), and whether it is temporary."""
        opener = urllib.request.build_opener(_NoRedirect())
        try:
            with opener.open(request, timeout=self._timeout) as response:
                return _refusal(response.read(_MAX_ANSWER)) if self._shape == "wecom" else "", False
        except urllib.error.HTTPError as error:
            passing = error.code == HTTPStatus.TOO_MANY_REQUESTS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR
            return f"HTTP {error.code}", passing
        except OSError as error:  # of a URLError, only the kind of its reason is safe to show
            return type(getattr(error, "reason", error)).__name__, True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes redirects an error: secrets must not be sent to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _request(body: dict[str, Any], url: str, bearer: str) -> urllib.request.Request:
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "airflow-mcp"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    return urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")  # noqa: S310 - checked


def _refusal(answer: bytes) -> str:
    """Return the error in an answer of Enterprise WeChat, whose status is always 200; empty for none."""
    try:
        code = json.loads(answer).get("errcode", 0)
    except (ValueError, AttributeError):
        return "the answer is not from Enterprise WeChat"
    return f"Enterprise WeChat refused the message with errcode {code}" if code else ""
