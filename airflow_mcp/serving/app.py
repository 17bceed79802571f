"""The ASGI application of the model server, with its parts passed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.serving.drain import Drain
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange, Observer
from airflow_mcp.serving.handlers import Admission, Handlers
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pages import Page, Pages
from airflow_mcp.serving.scoring_routes import Receive, ScoringRoutes, Send

Hook = Callable[[Exchange, Receive], Awaitable[Page]]
"""Answers ``POST /hooks/mlflow``."""


class ServingApp:
    """The application: scoring routes first, then the pages.

    :param scoring: the routes that ask a model.
    :param pages: everything else.
    :param drain: whether the server is ending.
    :param hook: answers calls of MLflow's webhook; None when the server has none.
    """

    def __init__(self, scoring: ScoringRoutes, pages: Pages, drain: Drain, hook: Hook | None) -> None:
        self.scoring = scoring
        self.pages = pages
        self.drain = drain
        self._hook = hook

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, perf_counter())
        route = self.scoring.find(scope["path"])
        if route is not None:
            await self.scoring.answer(route, exchange, receive, send)
        else:
            await self._send_page(await self._page(exchange, receive), exchange, send)

    async def _page(self, exchange: Exchange, receive: Receive) -> Page:
        path, method = exchange.scope["path"], exchange.scope["method"]
        try:
            if path == "/hooks/mlflow" and self._hook is not None and method == "POST":
                return await self._hook(exchange, receive)
            if method not in ("GET", "HEAD"):
                allowed = b"POST" if path == "/hooks/mlflow" and self._hook is not None else b"GET, HEAD"
                text = f"this path takes {allowed.decode()} only"
                raise Problem("method_not_allowed", text, headers=((b"allow", allowed),))
            return self.pages.find(path)
        except Problem as problem:
            return Page(problem.body(exchange.request_id.decode()), status=problem.status, headers=problem.headers)

    async def _send_page(self, page: Page, exchange: Exchange, send: Send) -> None:
        headers = [
            (b"content-type", page.content_type),
            (b"content-length", b"%d" % len(page.body)),
            (b"x-request-id", exchange.request_id),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *page.headers,
        ]
        if self.drain.is_draining:
            headers.append((b"connection", b"close"))
        body = b"" if exchange.scope["method"] == "HEAD" else page.body
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def create_app(
    settings: ServingSettings,
    models: ServedModels,
    metrics: Metrics,
    *,
    observers: Sequence[Observer] = (),
    admission: Admission | None = None,
    hook: Hook | None = None,
) -> ServingApp:
    """Return the application; call it on the event loop that it runs on.

    :param settings: settings of the server.
    :param models: what is loaded.
    :param metrics: counts every exchange.
    :param observers: called with every exchange, after the metrics.
    :param admission: decides whether a caller may ask; None admits everybody.
    :param hook: answers calls of MLflow's webhook.
    """
    drain = Drain(settings.drain_seconds)
    default = settings.default_model or (settings.models[0].name if len(settings.models) == 1 else "")
    handlers = Handlers(models, default)
    scoring = ScoringRoutes(handlers, settings, drain, (metrics.record, *observers), admission)
    return ServingApp(scoring, Pages(models, metrics, drain, default), drain, hook)
