"""The routes that only read."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.panel.actions import ACTIONS
from airflow_mcp.core.panel.facts import ListRow, version_facts
from airflow_mcp.core.registry.history import champion_at, parse_time, read_timeline
from airflow_mcp.exceptions import InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.queries import row_of
from airflow_mcp.plugins.registry_index import Snapshot
from airflow_mcp.plugins.routes_pages import read_facts, refusals_of
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher import schemas
from airflow_mcp.publisher.answers import detail_of, history_of, summary_of, version_detail, version_of
from airflow_mcp.publisher.operations import follow, listed
from airflow_mcp.publisher.requests import ModelName, href

PAGE = 100
"""Models on one page of the list."""
_HEADERS = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
VersionNumber = Annotated[str, Path(pattern=r"^[1-9]\d{0,9}$")]


def reads(services: Services) -> APIRouter:
    """Return the routes that only read.

    :param services: what they work with.
    """
    router = APIRouter()
    _add_lists(router, services)
    _add_model(router, services)
    _add_versions(router, services)
    _add_operations(router, services)
    return router


def _add_lists(router: APIRouter, services: Services) -> None:
    async def rows_of(request: Request) -> tuple[Snapshot, list[ListRow]]:
        snapshot, caller = await services.index.current(), request.state.caller
        rows = services.access.visible(caller, snapshot.rows.values())
        if snapshot.is_down and not snapshot.rows:
            raise Problem("mlflow-not-answering", "Nothing was read yet. Try again when it answers")
        return snapshot, sorted(rows, key=lambda row: row.name)

    @router.get("/models", response_model=schemas.ModelList, operation_id="listModels", tags=["models"])
    async def models(
        request: Request,
        q: Annotated[str, Query(max_length=200, description="Words that name, owner or Dag must have.")] = "",
        state: Annotated[str, Query(max_length=50, description="Kind of a state, such as `healthy`.")] = "",
        page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    ) -> Response:
        """List the models that you may see."""
        snapshot, rows = await rows_of(request)
        words = q.lower().split()
        found = [row for row in rows if all(word in row.searched for word in words) and state in ("", row.state.kind)]
        answer = schemas.ModelList(
            models=[summary_of(row) for row in found[PAGE * (page - 1) : PAGE * page]],
            total=len(found),
            page=page,
            complete=not services.index.is_sweeping_first,
            read_at=snapshot.read_at and snapshot.read_at.isoformat(),
        )
        return answered(request, answer)

    @router.get("/champions", response_model=schemas.ChampionList, operation_id="listChampions", tags=["models"])
    async def champions(request: Request) -> Response:
        """List the version of each model that is in production."""
        snapshot, rows = await rows_of(request)
        found = [
            schemas.Champion(model=row.name, version=row.standing.champion, since=row.standing.since or None)
            for row in rows
            if row.standing.champion is not None
        ]
        answer = schemas.ChampionList(
            champions=found,
            complete=not services.index.is_sweeping_first,
            read_at=snapshot.read_at and snapshot.read_at.isoformat(),
        )
        return answered(request, answer)


def _add_model(router: APIRouter, services: Services) -> None:
    @router.get("/models/{model}", response_model=schemas.ModelDetail, operation_id="getModel", tags=["models"])
    async def one(request: Request, model: ModelName) -> Response:
        """Read one model, with what you can do with it now."""
        facts, part = await read_facts(services, request, model)
        refusals = await refusals_of(services, request, facts)
        return answered(request, detail_of(row_of(part), facts, {action: refusals.get(action) for action in ACTIONS}))

    @router.get(
        "/models/{model}/champion", response_model=schemas.ChampionAtTime, operation_id="getChampion", tags=["models"]
    )
    async def champion(
        request: Request,
        model: ModelName,
        at: Annotated[str, Query(max_length=40, description="A time, ISO 8601. By default now.")] = "",
    ) -> Response:
        """Read which version is or was in production at a time."""
        part = await services.part(request.state.caller, model)
        try:
            moment = parse_time("at", at) if at else part.read_at
            found = champion_at(read_timeline(part.model, part.read_at), moment)
        except InvalidArgumentError as error:
            raise Problem("invalid-request", f"{error}. Nothing was read") from None
        answer = schemas.ChampionAtTime(
            time=found.time.isoformat(), versions=list(found.versions), is_certain=not found.doubtful
        )
        return answered(request, answer)

    @router.get("/models/{model}/history", response_model=schemas.History, operation_id="getHistory", tags=["models"])
    async def history(request: Request, model: ModelName) -> Response:
        """Read every known change of the champion."""
        part = await services.part(request.state.caller, model)
        return answered(request, history_of(part.model.name, read_timeline(part.model, part.read_at)))


def _add_versions(router: APIRouter, services: Services) -> None:
    @router.get(
        "/models/{model}/versions", response_model=schemas.VersionList, operation_id="listVersions", tags=["versions"]
    )
    async def versions(request: Request, model: ModelName) -> Response:
        """List the newest 50 versions, and those that aliases and moves name."""
        part = await services.part(request.state.caller, model)
        found = [version_of(model, version_facts(each), part.model.aliases) for each in part.versions]
        return answered(request, schemas.VersionList(versions=found))

    @router.get(
        "/models/{model}/versions/{version}",
        response_model=schemas.VersionDetail,
        operation_id="getVersion",
        tags=["versions"],
    )
    async def version(request: Request, model: ModelName, version: VersionNumber) -> Response:
        """Read one version, with its origin."""
        part = await services.part(request.state.caller, model)
        known = next((each for each in part.versions if each.version == version), None)
        try:
            found, run = await services.reader.ask(lambda mlflow: _version(mlflow, known, model, version))
        except MlflowNotFoundError:
            raise Problem("not-found", f"There is no version {version} of this model") from None
        facts = version_facts(found)
        return answered(request, version_detail(version_of(model, facts, part.model.aliases), facts, found, run))


def _add_operations(router: APIRouter, services: Services) -> None:
    @router.get("/operations", response_model=schemas.OperationList, operation_id="listOperations", tags=["operations"])
    async def list_operations(
        request: Request, model: Annotated[str, Query(max_length=250, description="Only of this model.")] = ""
    ) -> Response:
        """List the latest operations on models that you may see."""
        found = await listed(services, request, model)
        return answered(
            request,
            schemas.OperationList(operations=[accepted(request, each.id, each.action, name) for each, name in found]),
        )

    @router.get(
        "/operations/{operation}",
        response_model=schemas.Operation,
        operation_id="getOperation",
        tags=["operations"],
    )
    async def operation(request: Request, operation: Annotated[str, Path(max_length=600)]) -> Response:
        """Follow an operation: ask again after `Retry-After` seconds until `status` is `succeeded` or `failed`."""
        answer = await follow(services, request, operation)
        headers = {} if answer.status in ("succeeded", "failed") else {"Retry-After": "5"}
        return answered(request, answer, headers=headers)


def accepted(request: Request, operation_id: str, action: str, model: str) -> schemas.Accepted:
    """Return an operation with the path to follow it at."""
    place = href(request, "operations", operation_id)
    return schemas.Accepted(id=operation_id, action=action, model=model, href=place)


def answered(request: Request, answer: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer as JSON, or 304 when the caller has it.

    :param request: the request.
    :param answer: the answer.
    :param status: HTTP status.
    :param headers: further headers.
    """
    content = answer.model_dump_json()
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    given: dict[str, Any] = {**_HEADERS, "ETag": etag, **(headers or {})}
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(None, 304, given)
    return Response(content, status, given, "application/json")


def _version(
    mlflow: MlflowOperations, known: ModelVersion | None, model: str, number: str
) -> tuple[ModelVersion, Run | None]:
    version = known or mlflow.get_model_version(model, number)
    run_id = version_facts(version).run_id
    try:
        return version, mlflow.get_run(run_id) if run_id else None
    except MlflowNotFoundError:
        return version, None
