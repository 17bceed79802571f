"""What one attempt at a request means: repeat it, return the answer, or raise an error. No I/O.

Both drivers of :mod:`airflow_mcp.mlflow_client.transport` use :class:`Judge`, so they always agree.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowAuthError,
    MlflowConflictError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
    MlflowUnreachableError,
)
from airflow_mcp.mlflow_client.answers import NOT_MLFLOW
from airflow_mcp.mlflow_client.settings import MlflowSettings, public_address
from airflow_mcp.mlflow_client.wire import ANSWER_TOO_LONG, MlflowRequest, MlflowResponse

MAX_BACKOFF = 30.0
"""Longest wait before a repetition; seconds."""
MAX_RETRY_AFTER = 60.0
"""Longest wait that a server may ask for; seconds."""
MAX_MESSAGE = 500
"""Longest part of a server's message in an error; characters."""
HTTP_TOO_MANY_REQUESTS = 429
HTTP_TOO_LARGE = 413
_KINDS: Mapping[str, type[MlflowError]] = {
    "RESOURCE_DOES_NOT_EXIST": MlflowNotFoundError,
    "RESOURCE_ALREADY_EXISTS": MlflowConflictError,
}
_REDIRECTS = (301, 302, 303, 307, 308)
_TOO_LARGE = (
    "the body of the request is larger than the server, or a proxy before it, accepts. Raise that limit (nginx: "
    "client_max_body_size); nothing was stored"
)


@dataclass(frozen=True)
class AttemptOutcome:
    """How one attempt went, as far as repeating it is concerned."""

    kind: Literal["answered", "not_sent", "lost"]
    """``not_sent``: no connection, so the server cannot have done anything. ``lost``: sent, but no answer came."""
    status: int = 0
    retry_after: float | None = None
    """Seconds the server asked to wait."""


def retry_delay(
    attempt: int, outcome: AttemptOutcome, *, repeatable: bool, settings: MlflowSettings, jitter: float
) -> float | None:
    """Decide whether an attempt is repeated.

    The wait is ``backoff * 2**(attempt - 1)`` seconds, at most :data:`MAX_BACKOFF`, which
    the jitter shortens by up to half; or the ``Retry-After`` of the server, at most :data:`MAX_RETRY_AFTER`.

    :param attempt: number of the attempt that failed, from 1.
    :param outcome: how it went.
    :param repeatable: whether sending the request twice does the same as sending it once.
    :param settings: number of retries and first wait.
    :param jitter: random number from 0 to 1.
    :return: seconds to wait before the next attempt, or None to give up.
    """
    if attempt > settings.retries or (outcome.kind != "not_sent" and not repeatable):
        return None
    if outcome.kind == "answered" and outcome.status != HTTP_TOO_MANY_REQUESTS and outcome.status < 500:
        return None
    if outcome.retry_after is not None:
        return min(max(outcome.retry_after, 0.0), MAX_RETRY_AFTER)
    wait = min(settings.backoff * 2.0 ** (attempt - 1), MAX_BACKOFF)
    return wait * (1 - jitter / 2)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait (RFC 9110, section 10.2.3), or None.

    :param value: the header: seconds, or an HTTP date.
    :param now: the current time, with a time zone.
    """
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)


@dataclass(frozen=True)
class Received:
    """A received answer, before it is judged."""

    status: int
    headers: Mapping[str, str]
    """Header names in lower case."""
    body: bytes
    is_too_long: bool = False
    """The body was longer than the request allows and was not read to its end."""

    def json(self) -> dict[str, Any] | None:
        """Return the JSON object of the body, or None when it is not one."""
        try:
            data = json.loads(self.body)
        except ValueError:
            return None
        return data if isinstance(data, dict) else None


@dataclass(frozen=True)
class NoAnswer:
    """An attempt that ended without an answer."""

    kind: Literal["not_sent", "lost", "hopeless"]
    """``hopeless``: a repetition cannot help, for example when the certificate cannot be verified."""
    reason: str


NextStep = float | MlflowResponse | MlflowError | InvalidArgumentError
"""Seconds to wait before the next attempt, or the end: the answer or the error."""


class Judge:
    """Judge of the attempts at one request.

    :param request: the request.
    :param settings: the server, and how often requests are repeated.
    """

    def __init__(self, request: MlflowRequest, settings: MlflowSettings) -> None:
        self._request = request
        self._settings = settings
        self._attempt = 0
        self._asked = f"{request.what} at {settings.base_url} ({settings.source})"

    def judge(self, result: Received | NoAnswer, *, now: datetime, jitter: float) -> NextStep:
        """Judge one more attempt.

        :param result: how it went.
        :param now: the current time, with a time zone.
        :param jitter: random number from 0 to 1 that shortens the wait.
        :return: seconds to wait before the next attempt, the answer, or the error to raise.
        """
        self._attempt += 1
        delay = self._delay(result, now, jitter)
        if delay is not None:
            return delay
        if isinstance(result, NoAnswer):
            return self._unreachable(result)
        return self._success(result) if 200 <= result.status < 300 else self._failure(result)

    def describe(self, result: Received | NoAnswer) -> str:
        """Return the request and how the attempt went, for the log."""
        if isinstance(result, Received):
            return f"{self._asked}: HTTP {result.status}"
        return f"{self._asked}: no answer: {self._clean(result.reason)}"

    def _delay(self, result: Received | NoAnswer, now: datetime, jitter: float) -> float | None:
        if isinstance(result, Received):
            outcome = AttemptOutcome(
                "answered", result.status, retry_after_seconds(result.headers.get("retry-after"), now)
            )
        elif result.kind == "hopeless":
            return None
        else:
            outcome = AttemptOutcome(result.kind)
        return retry_delay(
            self._attempt, outcome, repeatable=self._request.repeatable, settings=self._settings, jitter=jitter
        )

    def _success(self, answer: Received) -> MlflowResponse | MlflowError | InvalidArgumentError:
        request = self._request
        if answer.is_too_long:
            text = f"{self._asked}: larger than max_bytes={request.max_bytes}; nothing was returned"
            if request.expects == "json":
                return MlflowError(text, answer.status, ANSWER_TOO_LONG)
            return InvalidArgumentError(text)
        if request.expects == "attachment" and "content-disposition" not in answer.headers:
            return self._protocol("the answer is not a file", answer.status)
        if request.expects != "json":
            return MlflowResponse(self._asked, {}, answer.body)
        data = answer.json()
        if data is None:
            kind = answer.headers.get("content-type", "of no type")
            return self._protocol(f"the answer ({kind}) is not a JSON object", answer.status)
        return MlflowResponse(self._asked, data)

    def _failure(self, answer: Received) -> MlflowError:
        data = answer.json() or {}
        code, said = str(data.get("error_code") or ""), str(data.get("message") or "")
        status = f"HTTP {answer.status}" + (f" {code}" if code else "")
        if answer.status in _REDIRECTS:
            to = public_address(answer.headers.get("location", "")) or "nowhere"
            return self._protocol(f"the server answered {status} and redirects to {to}", answer.status)
        if answer.status == HTTP_TOO_LARGE:
            return MlflowError(f"{self._asked}: {status}: {_TOO_LARGE}", answer.status, code or None)
        is_about_workspace = bool(self._settings.workspace) and said.startswith("Workspace ")
        said = self._clean(said or ("" if _is_html(answer) else answer.body.decode("utf-8", "replace")))
        text = f"{self._asked}: {status}" + (f": {said}" if said else "") + self._aftermath(answer.status)
        if is_about_workspace:
            # Not MlflowNotFoundError: a missing workspace does not mean that there is no champion.
            where = f"{self._settings.where('workspace')} of {self._settings.source}"
            return MlflowError(f"{text}; check {where}: {self._settings.workspace!r}", answer.status, code or None)
        return self._by_code(answer.status, code, text)

    def _by_code(self, status: int, code: str, text: str) -> MlflowError:
        if status in (401, 403) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return MlflowAuthError(f"{text}; {self._credentials_hint()}", status, code or None)
        if code in _KINDS:
            return _KINDS[code](text, status, code)
        if code == "ENDPOINT_NOT_FOUND" or (not code and status < 500 and status != HTTP_TOO_MANY_REQUESTS):
            return self._protocol(f"the server answered HTTP {status}" + (f" {code}" if code else ""), status)
        return MlflowError(text, status, code or None)

    def _protocol(self, what: str, status: int) -> MlflowProtocolError:
        return MlflowProtocolError(f"{self._asked}: {what}; {NOT_MLFLOW}", status)

    def _unreachable(self, result: NoAnswer) -> MlflowUnreachableError:
        reason = self._clean(result.reason)
        after = self._aftermath(None) if result.kind == "lost" else self._tries()
        return MlflowUnreachableError(f"{self._asked}: no answer: {reason}{after}")

    def _aftermath(self, status: int | None) -> str:
        if self._request.repeatable or self._request.method == "GET":
            return self._tries()
        if status is None or status >= 500:
            return "; not repeated, because the server may have done it"
        return ""

    def _tries(self) -> str:
        return f" (tried {self._attempt} times)" if self._attempt > 1 else ""

    def _credentials_hint(self) -> str:
        settings = self._settings
        sent = "the token" if settings.token else "login and password" if settings.username else "no credentials"
        either = f"{settings.where('login and password')} or {settings.where('token')}"
        its = "" if settings.is_command_line else "its "
        return f"{sent} of {settings.source} were sent: check {its}{either}, and what they are allowed to do"

    def _clean(self, text: str) -> str:
        """Return a server's text on one line, without secrets, and not too long."""
        settings = self._settings
        pair = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
        for secret in (*settings.secrets, pair):
            text = text.replace(secret, "***")
        text = " ".join(text.split())
        return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def _is_html(answer: Received) -> bool:
    return "html" in answer.headers.get("content-type", "") or answer.body.lstrip()[:1] == b"<"
