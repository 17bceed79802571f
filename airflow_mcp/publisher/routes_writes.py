"""The routes that change something: each begins a Dag run under the caller's name, or takes the bytes of a model."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from starlette.responses import Response

from airflow_mcp.core.mlflow_entities import Stage
from airflow_mcp.core.panel.actions import ActionName, Operation
from airflow_mcp.plugins.access import own_json, own_request
from airflow_mcp.plugins.performing import Wanted, perform
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher import schemas
from airflow_mcp.publisher.publishing import publish, set_stage
from airflow_mcp.publisher.requests import IdempotencyKey, ModelName, ModelNameQuery, OptionalKey, own_bytes
from airflow_mcp.publisher.routes_reads import accepted, answered
from airflow_mcp.publisher.uploads import Uploads

_JSON = [Depends(own_json)]
_BEGUN: dict[str, Any] = {"status_code": 202, "response_model": schemas.Accepted}
UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


def writes(services: Services, uploads: Uploads) -> APIRouter:
    """Return the routes that change something.

    :param services: what they work with.
    :param uploads: what the routes of uploads do.
    """
    router = APIRouter()
    _add_uploads(router, uploads)
    _add_versions(router, services)
    _add_moves(router, services)
    _add_seed(router, services)
    return router


def _add_uploads(router: APIRouter, uploads: Uploads) -> None:
    @router.post(
        "/models/{model}/uploads",
        dependencies=_JSON,
        status_code=201,
        response_model=schemas.Upload,
        responses={200: {"model": schemas.Upload, "description": "It was announced before."}},
        operation_id="createUpload",
        tags=["uploads"],
    )
    async def create_upload(
        request: Request, model: ModelName, key: IdempotencyKey, body: schemas.UploadRequest
    ) -> Response:
        """Announce a model that is about to be uploaded."""
        upload, is_new = await uploads.announce(request, model, key, body)
        place = upload.content.removesuffix("/content")
        return answered(request, upload, 201 if is_new else 200, {"Location": place})

    @router.get(
        "/models/{model}/uploads/{upload}", response_model=schemas.Upload, operation_id="getUpload", tags=["uploads"]
    )
    async def get_upload(request: Request, model: ModelName, upload: UploadId) -> Response:
        """Read whether an upload is complete."""
        return answered(request, await uploads.read(request, model, upload))

    @router.put(
        "/models/{model}/uploads/{upload}/content",
        dependencies=[Depends(own_bytes)],
        response_model=schemas.Upload,
        operation_id="putUploadContent",
        tags=["uploads"],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def receive_upload(request: Request, model: ModelName, upload: UploadId) -> Response:
        """Send the bytes of an upload; after a failure, send them again."""
        return answered(request, await uploads.receive(request, model, upload))


def _add_versions(router: APIRouter, services: Services) -> None:
    @router.post(
        "/models/{model}/versions", dependencies=_JSON, **_BEGUN, operation_id="createVersion", tags=["versions"]
    )
    async def create_version(
        request: Request, model: ModelName, key: IdempotencyKey, body: schemas.VersionRequest
    ) -> Response:
        """Register a version: it is wrapped if it is ONNX, registered, loaded, and asked its example."""
        return begun(request, await publish(services, request, model, key, body), model)


def _add_moves(router: APIRouter, services: Services) -> None:
    async def move(request: Request, model: str, action: ActionName, key: str, body: schemas.MoveRequest) -> Response:
        wanted = Wanted(action, key, body.reason, body.expected_champion, body.version)
        return begun(request, await perform(services, request, model, wanted), model)

    @router.post("/models/{model}/promotion", dependencies=_JSON, **_BEGUN, operation_id="promote", tags=["production"])
    async def promote(request: Request, model: ModelName, key: IdempotencyKey, body: schemas.MoveRequest) -> Response:
        """Make a version the champion, if its gate accepted it and it loads."""
        return await move(request, model, "promote", key, body)

    @router.post("/models/{model}/rollback", dependencies=_JSON, **_BEGUN, operation_id="rollBack", tags=["production"])
    async def roll_back(request: Request, model: ModelName, key: IdempotencyKey, body: schemas.MoveRequest) -> Response:
        """Make an earlier champion the champion again, if it loads."""
        return await move(request, model, "rollback", key, body)

    @router.put("/models/{model}/stage", dependencies=_JSON, **_BEGUN, operation_id="setStage", tags=["production"])
    async def stage(request: Request, model: ModelName, key: IdempotencyKey, body: schemas.StageRequest) -> Response:
        """Move a version to another stage; Production asks for the same as a promotion."""
        return begun(request, await set_stage(services, request, model, key, body), model)

    @router.post(
        "/models/{model}/retraining",
        dependencies=_JSON,
        status_code=202,
        # One form for both answers: a generated client has one type for an operation.
        response_model=schemas.Steered,
        responses={200: {"model": schemas.Steered, "description": "It is done: for pause and resume."}},
        operation_id="steerRetraining",
        tags=["production"],
    )
    async def retraining(
        request: Request, model: ModelName, key: IdempotencyKey, body: Annotated[schemas.RetrainingRequest, Body()]
    ) -> Response:
        """Start a training, or pause or resume retraining."""
        action: ActionName = "train"
        if body.action != "train":
            action = "pause-retraining" if body.action == "pause" else "resume-retraining"
        wanted = Wanted(action, key, body.reason)
        return begun(request, await perform(services, request, model, wanted), model, action)


def _add_seed(router: APIRouter, services: Services) -> None:
    """Add the two routes that older publishers use: everything is in the query, and no key is needed."""

    @router.post(
        "/register-model",
        dependencies=[Depends(own_request)],
        **_BEGUN,
        operation_id="registerModel",
        tags=["older publishers"],
    )
    async def register_model(
        request: Request,
        model: ModelNameQuery,
        source: Annotated[
            str,
            Query(
                alias="modelFilePath",
                max_length=600,
                description="`uploads:/<upload>`, `models:/<model id>` or `runs:/<run id>/<name of the logged model>`; "
                "never a path of a server.",
                json_schema_extra={"pattern": schemas.SOURCE_PATTERN},
            ),
        ],
        key: OptionalKey = "",
    ) -> Response:
        """Register a version; one upload or logged model becomes one version, however often it is asked for."""
        body = schemas.VersionRequest(source=source)
        return begun(request, await publish(services, request, model, key or secrets.token_hex(16), body), model)

    @router.put(
        "/set-model-stage",
        dependencies=[Depends(own_request)],
        **_BEGUN,
        operation_id="setModelStage",
        tags=["older publishers"],
    )
    async def set_model_stage(
        request: Request,
        model: ModelNameQuery,
        version: Annotated[str, Query(pattern=r"^[1-9]\d{0,9}$")],
        stage: Annotated[Stage, Query()],
        key: OptionalKey = "",
    ) -> Response:
        """Move a version to another stage, if the champion does not change meanwhile."""
        body = schemas.StageRequest(version=version, stage=stage)
        return begun(request, await set_stage(services, request, model, key or secrets.token_hex(16), body), model)


def begun(request: Request, operation: Operation | None, model: str, action: str = "") -> Response:
    """Return that an operation was begun and where to follow it, or that it is done already.

    :param request: the request.
    :param operation: the operation; None when it is done.
    :param model: name of the model.
    :param action: what is done.
    """
    if operation is None:
        return answered(request, schemas.Steered(model=model, action=action, status="done"))
    answer = accepted(request, operation.id, operation.action, model)
    return answered(request, answer, 202, {"Location": answer.href, "Retry-After": "5"})
