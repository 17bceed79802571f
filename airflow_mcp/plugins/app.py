"""The application: pages, reports, actions and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from typing import Any

import httpx
from airflow.api_fastapi.app import cached_app
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response

from airflow_mcp import settings
from airflow_mcp.plugins.access import Access, AirflowAuthManager, Caller, authenticated
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.audit_trail import AuditTrail
from airflow_mcp.plugins.metrics import metrics
from airflow_mcp.plugins.permitted import PolicyOnPage
from airflow_mcp.plugins.problems import Problem, add_handlers
from airflow_mcp.plugins.queries import ModelReader
from airflow_mcp.plugins.registry_index import RegistryIndex
from airflow_mcp.plugins.routes_actions import actions
from airflow_mcp.plugins.routes_approvals import approvals
from airflow_mcp.plugins.routes_pages import pages
from airflow_mcp.plugins.routes_reports import reports
from airflow_mcp.plugins.services import HEADERS, STATIC, ActionDags, Services
from airflow_mcp.plugins.side_facts import SideFactsReader
from airflow_mcp.plugins.sources import audit_log, page_mlflow, policy_in_force, stored_states, sweep_mlflow

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(services: Services, authenticate: Callable[..., Awaitable[Any]]) -> FastAPI:
    """Return the application.

    :param services: what its routes work with.
    :param authenticate: Airflow's dependency that returns the user of a request.
    """
    app = FastAPI(title="Model Control Plane", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    add_handlers(app)
    login = Depends(authenticated(authenticate, services.access.policy))
    for router in (
        pages(services),
        reports(services),
        approvals(services),
        actions(services),
        static_files(),
    ):
        app.include_router(router, dependencies=[login])
    app.include_router(metrics(services))
    return app


def static_files() -> APIRouter:
    """Return the route of style sheet, scripts and icons."""
    router = APIRouter()

    @router.get("/static/{file}")
    async def static(file: str) -> Response:
        path = STATIC / file
        if path.parent != STATIC or path.suffix not in _TYPES or not path.is_file():
            raise Problem("not-found")
        headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(path.read_bytes(), 200, headers, _TYPES[path.suffix])

    return router


def create_default_app() -> FastAPI:
    """Return the application for Airflow's API server, as the options in ``[airflow_mcp]`` say."""
    from airflow.api_fastapi.core_api.security import get_user  # noqa: PLC0415  (loads Airflow's API)

    return create_app(default_services(), get_user)


@cache
def default_services() -> Services:
    """Return what page and publisher API work with in this process: they share one reading of the registry."""
    conn_id = settings.default_mlflow_conn_id()

    def airflow(request: Request, caller: Caller) -> AirflowRest:
        client = (request.client.host, request.client.port) if request.client else ("127.0.0.1", 0)
        return AirflowRest(httpx.ASGITransport(cached_app(), client=client), caller.token)

    return Services(
        index=RegistryIndex(lambda: sweep_mlflow(conn_id), audit_log),
        reader=ModelReader(lambda: page_mlflow(conn_id), audit_log),
        access=Access(
            AirflowAuthManager(),
            shows_untagged=settings.untagged_models() == "authenticated",
            policy=PolicyOnPage(policy_in_force, settings.environment()),
        ),
        airflow=airflow,
        server=conn_id,
        dags=replace(ActionDags(), **settings.action_dags()),
        metrics_token=settings.metrics_token(),
        trail=AuditTrail(audit_log, settings.environment()),
        side_facts=SideFactsReader(stored_states, audit_log, settings.environment()),
    )
