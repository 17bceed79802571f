"""The application that answers below ``/mcp/api/v1``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response

from airflow_mcp import settings
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.mlflow_client.artifact_upload import stream_artifact
from airflow_mcp.plugins.access import authenticated
from airflow_mcp.plugins.app import default_services
from airflow_mcp.plugins.problems import add_handlers
from airflow_mcp.plugins.services import Services
from airflow_mcp.plugins.sources import page_mlflow
from airflow_mcp.publisher.openapi import document
from airflow_mcp.publisher.requests import ReadLimit, RequestIds
from airflow_mcp.publisher.routes_reads import reads
from airflow_mcp.publisher.routes_writes import writes
from airflow_mcp.publisher.schemas import ProblemDetails
from airflow_mcp.publisher.uploads import Store, Uploads

_STORE_SECONDS = 300.0
"""MLflow answers an upload when its store has the bytes, which takes longer for an object store."""


def create_api(
    services: Services,
    authenticate: Callable[..., Awaitable[Any]],
    store: Store,
    max_upload_bytes: int,
    limit: ReadLimit | None = None,
) -> FastAPI:
    """Return the application.

    :param services: what its routes work with.
    :param authenticate: Airflow's dependency that returns the user of a request.
    :param store: stores the bytes of an upload.
    :param max_upload_bytes: size of the largest upload.
    :param limit: counts reads; None takes the usual limit.
    """
    app = FastAPI(title="Publisher API", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    add_handlers(app)
    app.add_middleware(RequestIds)
    login = authenticated(authenticate, services.access.policy)
    guards = [Depends(login), Depends((limit or ReadLimit()).dependency(login))]
    for router in (
        reads(services),
        writes(services, Uploads(services, store, max_upload_bytes)),
        _own_document(app),
    ):
        app.include_router(router, dependencies=guards)
    return app


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the application."""
    _, schemas = models_json_schema([(ProblemDetails, "serialization")], ref_template="#/components/schemas/{model}")
    return document(app, dict(schemas["$defs"]))


def _own_document(app: FastAPI) -> APIRouter:
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Response:
        return JSONResponse(openapi_document(app), headers={"Cache-Control": "private, no-cache"})

    return router


def create_default_app() -> FastAPI:
    """Return the application for Airflow's API server, as the options in ``[airflow_mcp]`` say."""
    from airflow.api_fastapi.core_api.security import get_user  # noqa: PLC0415  (loads Airflow's API)

    services = default_services()

    async def store(run: Run, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        given = page_mlflow(services.server).settings
        await stream_artifact(replace(given, timeout=_STORE_SECONDS), run, path, chunks, size)

    return create_api(services, get_user, store, settings.publisher_max_upload_bytes())
