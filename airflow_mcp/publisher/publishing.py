"""Begins publications and changes of stages: who may, from where, and the Dag run that does it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.panel.actions import Operation, operation_key
from airflow_mcp.core.registry.publishing import ModelSource, Upload, parse_source
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.access import Caller
from airflow_mcp.plugins.performing import known_run, storable_reason, trigger
from airflow_mcp.plugins.problems import UNCHANGED, Problem
from airflow_mcp.plugins.queries import Part
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher.answers import said_of
from airflow_mcp.publisher.schemas import StageRequest, VersionRequest

log = logging.getLogger(__name__)
PRODUCTION = "Production"


@dataclass(frozen=True)
class Wish:
    """What a caller asks to be done by a Dag."""

    action: str
    dag_id: str
    model: str
    key: str
    """Idempotency key."""
    conf: Mapping[str, Any]
    reason: str


async def publish(services: Services, request: Request, model: str, key: str, body: VersionRequest) -> Operation:
    """Begin the registration of a version.

    :param services: what the routes work with.
    :param request: the request.
    :param model: name of the model, which need not exist.
    :param key: idempotency key.
    :param body: what is asked for.
    :raises Problem: when it is not possible; nothing was changed.
    """
    caller: Caller = request.state.caller
    services.access.count_write(caller)
    await require_may_publish(services, caller, model)
    source = _source(body.source)
    reason = storable_reason(body.reason) if body.reason else ""
    conf = {
        "model_name": model,
        "source": body.source,
        "description": body.description,
        "input_example": body.input_example,
        "provenance": body.provenance.model_dump(exclude_defaults=True) if body.provenance else None,
        "reason": reason or None,
        "request_id": request.state.request_id,
    }

    async def check() -> None:
        await _require_source(services, caller, model, source)

    return await _begin(services, request, Wish("publish", services.dags.publish, model, key, conf, reason), check)


async def set_stage(services: Services, request: Request, model: str, key: str, body: StageRequest) -> Operation:
    """Begin the move of a version to another stage.

    :param services: what the routes work with.
    :param request: the request.
    :param model: name of the model.
    :param key: idempotency key.
    :param body: what is asked for.
    :raises Problem: when it is not possible; nothing was changed.
    """
    caller: Caller = request.state.caller
    services.access.count_write(caller)
    services.reader.forget(model)
    part = await services.part(caller, model)
    is_production = body.stage == PRODUCTION
    champion = part.standing.champion or NO_CHAMPION
    archives = is_production if body.archive_existing is None else body.archive_existing
    conf = {
        "model_name": model,
        "version": body.version,
        "stage": body.stage,
        "archive_existing": archives,
        "expected_champion": (body.expected_champion or champion) if is_production else None,
        "reason": storable_reason(body.reason) if body.reason else None,
    }
    wish = Wish("stage", services.dags.stage, model, key, conf, body.reason)

    async def check() -> None:
        _require_may_stage(services, caller, part, is_production=is_production)
        if body.version not in {version.version for version in part.versions}:
            raise Problem("action-not-available", f"There is no version {body.version}, or it is too old. {UNCHANGED}")
        if is_production and body.expected_champion not in (None, champion):
            said = f"The champion is {champion}, and {body.expected_champion} was expected. {UNCHANGED}"
            raise Problem("champion-moved", said, champion=champion)

    operation = await _begin(services, request, wish, check, may_have_moved=body.expected_champion is None)
    services.reader.forget(model)
    return operation


async def require_may_publish(services: Services, caller: Caller, model: str) -> None:
    """Check that the caller may publish versions of a model: a model that exists must be one that they see.

    :raises Problem: when they may not.
    """
    dag_id = services.dags.publish
    if not services.access.may(caller, "trigger", dag_id):
        raise Problem("not-allowed", f"You may not trigger the Dag {dag_id}. {UNCHANGED}")
    refused = services.access.policy.lacks(caller.user, caller.name, model, ("register",))
    if refused is not None:
        raise Problem("not-allowed", f"{said_of(refused)} {UNCHANGED}")
    try:
        await services.part(caller, model)
    except MlflowNotFoundError:
        log.debug("model %s does not exist yet", model)


def _source(value: str) -> ModelSource:
    try:
        return parse_source("source", value)
    except InvalidArgumentError as error:
        raise Problem("invalid-request", f"{error}. {UNCHANGED}") from None


async def _require_source(services: Services, caller: Caller, model: str, source: ModelSource) -> None:
    """Check that the source exists and is the caller's to use: a model that they may not see must not be copied."""
    try:
        run = await services.reader.ask(lambda mlflow: _run_of(mlflow, source))
        if source.kind == "upload":
            if Upload.of(run, model).by != caller.name:
                raise Problem("no-such-source")
            if run.status != "FINISHED":
                raise Problem("action-not-available", f"The upload is not complete: send its bytes first. {UNCHANGED}")
            return
    except (MlflowNotFoundError, EvidenceError):
        raise Problem("no-such-source") from None
    named, dag_id = run.tags.get(contract.TAG_MODEL_NAME) or model, run.tags.get(contract.TAG_DAG_ID, "")
    if run.lifecycle_stage != "active" or not services.access.sees(caller, named, dag_id):
        raise Problem("no-such-source")


def _run_of(mlflow: MlflowOperations, source: ModelSource) -> Run:
    run_id = mlflow.get_logged_model(source.id).source_run_id if source.kind == "model" else source.id
    return mlflow.get_run(run_id)


def _require_may_stage(services: Services, caller: Caller, part: Part, *, is_production: bool) -> None:
    dag_id, policy = services.dags.stage, services.access.policy
    if not services.access.may(caller, "trigger", dag_id):
        raise Problem("not-allowed", f"You may not trigger the Dag {dag_id}. {UNCHANGED}")
    permission = "promote" if is_production else "stage"
    refused = policy.lacks(caller.user, caller.name, part.model.name, (permission,)) or policy.lacks_deploy(
        caller.user, caller.name, part.model
    )
    if refused is not None:
        raise Problem("not-allowed", f"{said_of(refused)} {UNCHANGED}")


async def _begin(
    services: Services,
    request: Request,
    wish: Wish,
    check: Callable[[], Awaitable[None]],
    *,
    may_have_moved: bool = False,
) -> Operation:
    """Trigger the Dag once for all requests with one key; a repeated request is not checked again.

    :param check: checks whether a new request is possible.
    :param may_have_moved: whether the champion of the first request counts, because the caller named none.
    """
    caller: Caller = request.state.caller
    operation = Operation(wish.dag_id, wish.action, operation_key(caller.name, wish.model, wish.key))
    async with services.airflow_of(request) as airflow:
        known = await known_run(services, caller, airflow, operation)
        conf = dict(wish.conf)
        if known is None:
            await check()
        elif may_have_moved and conf.get("expected_champion"):
            conf["expected_champion"] = dict(known.get("conf") or {}).get("expected_champion")
        note = f"{wish.reason} (request {request.state.request_id})".strip()
        await trigger(services, airflow, operation, conf, note, known)
    log.info("request %s: %s of %s: %s", request.state.request_id, wish.action, wish.model, operation.run_id)
    return operation
