"""What all routes work with and answer with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fastapi import Request
from starlette.responses import Response

from airflow_mcp.core.panel.pages.layout import Frame
from airflow_mcp.core.panel.words import Words, language_of, preferred_language
from airflow_mcp.plugins.access import Access, Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.audit_trail import AuditTrail
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.queries import ModelReader, Part, row_of
from airflow_mcp.plugins.registry_index import RegistryIndex
from airflow_mcp.plugins.side_facts import SideFactsReader

STATIC = Path(__file__).parent / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}


@dataclass(frozen=True)
class ActionDags:
    """The Dags that carry out actions."""

    rollback: str = "rollback_model"
    promote: str = "promote_model"
    rollout: str = "steer_rollout"
    stage: str = "set_model_stage"
    publish: str = "publish_model"


@dataclass(frozen=True)
class Services:
    """What the routes work with; tests replace parts of it."""

    index: RegistryIndex
    reader: ModelReader
    access: Access
    airflow: Callable[[Request, Caller], AirflowRest]
    server: str
    """Connection to MLflow, by its ID."""
    dags: ActionDags = ActionDags()
    metrics_token: str = ""
    trail: AuditTrail = field(default_factory=AuditTrail)
    side_facts: SideFactsReader = field(default_factory=lambda: SideFactsReader(lambda _: (), lambda: None, "dev"))
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @asynccontextmanager
    async def airflow_of(self, request: Request) -> AsyncIterator[AirflowRest]:
        """Yield Airflow's REST API as the caller sees it."""
        airflow = self.airflow(request, request.state.caller)
        try:
            yield airflow
        finally:
            await airflow.close()

    async def part(self, caller: Caller, name: str) -> Part:
        """Return what is known of a model that the caller may see, and bring the list up to date.

        :raises Problem: when there is no such model, or the caller may not see it: the answer is the same.
        """
        part = await self.reader.part(name)
        row = row_of(part)
        if not self.access.sees(caller, name, row.dag_id):
            raise Problem("no-such-model")
        self.index.put(row)
        return part

    def frame(self, request: Request, read_at: datetime | None = None, *, is_down: bool = False) -> Frame:
        """Return the frame of a page."""
        asked = request.query_params.get("lang", "")
        language = language_of(asked) if asked else preferred_language(request.headers.get("accept-language", ""))
        root = str(request.scope.get("root_path", "")).rstrip("/")
        return Frame(
            Words(language),
            root,
            self.clock(),
            static_stamp(),
            self.server,
            read_at,
            is_down,
            names_language=bool(asked),
        )


_STAMPS: list[str] = []


def static_stamp() -> str:
    """Return the hash of all static files, which is part of their addresses."""
    if not _STAMPS:
        content = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))
        _STAMPS.append(hashlib.sha256(content).hexdigest()[:12])
    return _STAMPS[0]


def page_response(request: Request, html: str, status: int = 200) -> Response:
    """Return a page, or 304 when the browser has it: the part between head and foot decides.

    :param request: the request.
    :param html: the page.
    :param status: HTTP status.
    """
    main = html.partition("<main")[2].partition("</main>")[0]
    etag = f'"{hashlib.sha256(main.encode()).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(None, 304, headers)
    return Response(html, status, headers, "text/html; charset=utf-8")
