"""The pages of actions: ask, then follow."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from airflow_mcp.core.panel.actions import ACTIONS, REASON_LENGTH, ActionName, Operation
from airflow_mcp.core.panel.pages.action import Asked, render_action, render_progress
from airflow_mcp.exceptions import AirflowApiError
from airflow_mcp.plugins.access import own_json
from airflow_mcp.plugins.performing import MAX_KEY_LENGTH, Wanted, perform
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.routes_pages import dag_of_action, read_facts, refusal_of
from airflow_mcp.plugins.services import HEADERS, Services, page_response


class ActionBody(BaseModel):
    """What the form of an action sends."""

    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)]
    expected_champion: Annotated[str, Field(pattern=r"^([1-9]\d*|none)$")]
    reason: Annotated[str, Field(min_length=1, max_length=REASON_LENGTH)]
    version: Annotated[str, Field(pattern=r"^([1-9]\d*)?$")] = ""


def actions(services: Services) -> APIRouter:
    """Return the routes of the actions.

    :param services: what they work with.
    """
    router = APIRouter()

    @router.get("/ui/models/{name}/{action}")
    async def ask(request: Request, name: str, action: str, version: str = "", operation: str = "") -> Response:
        if action not in ACTIONS:
            raise Problem("not-found")
        kind: ActionName = action
        if operation:
            return await _follow(services, request, name, kind, operation)
        facts, part = await read_facts(services, request, name)
        asked = Asked(
            action=kind,
            refused=refusal_of(services, request, facts, kind),
            dag_id=dag_of_action(services, facts, kind),
            key=secrets.token_hex(16),
            chosen=version,
        )
        return page_response(request, render_action(services.frame(request, part.read_at), facts, asked))

    @router.post("/ui/models/{name}/{action}", dependencies=[Depends(own_json)])
    async def act(request: Request, name: str, action: str, body: ActionBody) -> Response:
        if action not in ACTIONS:
            raise Problem("not-found")
        kind: ActionName = action
        wanted = Wanted(kind, body.key, body.reason, body.expected_champion, body.version)
        operation = await perform(services, request, name, wanted)
        frame = services.frame(request)
        page = (
            frame.href("models", name)
            if operation is None
            else frame.href("models", name, action, operation=operation.id)
        )
        said = {"operation": operation.id if operation else None, "page": page.replace("&amp;", "&")}
        return JSONResponse(said, 202 if operation else 200, HEADERS)

    return router


async def _follow(services: Services, request: Request, name: str, action: ActionName, text: str) -> Response:
    operation = Operation.parse(text)
    if operation is None or operation.action != action:
        raise Problem("not-found", "There is no such operation.")
    part = await services.part(request.state.caller, name)
    services.reader.forget(name)
    progress = None
    try:
        async with services.airflow_of(request) as airflow:
            progress = await airflow.progress(operation)
    except AirflowApiError as error:
        if error.status in (401, 403):
            raise
    frame = services.frame(request, part.read_at)
    return page_response(request, render_progress(frame, part.model.name, action, operation, progress))
