"""What every request to the API goes through: its ID, its idempotency key, its limits, and the name of a model."""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Header, Path, Query, Request
from starlette.datastructures import Headers, MutableHeaders

from airflow_mcp.plugins.access import Caller, media_type, own_request
from airflow_mcp.plugins.performing import MAX_KEY_LENGTH
from airflow_mcp.plugins.problems import UNCHANGED, Problem

REQUEST_ID = "X-Request-ID"
READS_PER_MINUTE = 600
"""Per user and process; a client that follows an operation asks once in a few seconds."""
_BYTES = "application/octet-stream"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MAX_USERS = 10_000
"""Users that reads are counted for; beyond that all counts begin again."""
# No slash, colon and percent sign, which MLflow may refuse; quotes and backslashes cannot be searched for. Not only
# spaces, which MLflow refuses too.
_TAKEN = r"[^/:%'\"`\\\x00-\x1f\x7f]"
_MODEL_NAME = rf"^{_TAKEN}*[^\s/:%'\"`\\\x00-\x1f\x7f]{_TAKEN}*$"
ModelName = Annotated[str, Path(pattern=_MODEL_NAME, max_length=250, description="Name of the registered model.")]
ModelNameQuery = Annotated[str, Query(alias="modelName", pattern=_MODEL_NAME, max_length=250)]
_KEY = r"^[\x20-\x7e]*$"
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        pattern=_KEY,
        description="The same key with the same request does it once and answers the same; with another request it "
        "is refused. Take a new random one for each thing to be done.",
    ),
]
OptionalKey = Annotated[str, Header(alias="Idempotency-Key", max_length=MAX_KEY_LENGTH, pattern=_KEY)]


def href(request: Request, *parts: str) -> str:
    """Return a path of this API on this server, also behind a proxy that adds a prefix.

    :param request: the request.
    :param parts: parts of the path, not yet encoded.
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    return "/".join((root, *(quote(part, safe="") for part in parts)))


class RequestIds:
    """The ID of each request: the caller's or a new one, answered in ``X-Request-ID``.

    :param app: the ASGI application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        await self._app(scope, receive, answer)


class ReadLimit:
    """Counts the reads of each user in one process.

    :param per_minute: reads that a user may make in a minute.
    :param clock: monotonic seconds.
    """

    def __init__(self, per_minute: int = READS_PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._reads: dict[str, deque[float]] = {}

    def dependency(self, login: Callable[..., Any]) -> Callable[..., Any]:
        """Return the dependency of every route: it counts what only reads.

        :param login: dependency that returns the caller.
        """

        async def limited(request: Request, caller: Caller = Depends(login)) -> None:  # noqa: B008  (FastAPI's way)
            if request.method == "GET":
                self.count(caller.name)

        return limited

    def count(self, name: str) -> None:
        """Count a read.

        :param name: name of the user.
        :raises Problem: when there were too many within a minute.
        """
        now = self._clock()
        if len(self._reads) > _MAX_USERS:
            self._reads.clear()
        recent = self._reads.setdefault(name, deque())
        while recent and now - recent[0] > 60:
            recent.popleft()
        if len(recent) >= self._per_minute:
            raise Problem("too-many", f"At most {self._per_minute} reads a minute. Ask less often")
        recent.append(now)


async def own_bytes(request: Request) -> None:
    """Accept an upload only as bytes of a known size, from a page of ours or with a token in its header.

    :raises Problem: when it comes from elsewhere, is something else, or has no size.
    """
    await own_request(request)
    if media_type(request) != _BYTES:
        raise Problem("not-bytes", f"Send the file with Content-Type: {_BYTES}. {UNCHANGED}")
    if not request.headers.get("content-length", "").isdigit():
        raise Problem("invalid-request", f"Send the size of the file as Content-Length. {UNCHANGED}")
