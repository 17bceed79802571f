"""Operations: how far the Dag run of a request is, what it led to, or why it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import Request

from airflow_mcp.core import contract
from airflow_mcp.core.audit.event import without_credentials
from airflow_mcp.core.panel.actions import Operation
from airflow_mcp.core.registry.publishing import EXPERIMENT_SUFFIX
from airflow_mcp.exceptions import AirflowApiError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.access import Caller
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.services import Services
from airflow_mcp.publisher import schemas
from airflow_mcp.publisher.answers import plain_values

LATEST = 50
"""Operations of each Dag that a list looks at."""
_PREFIX = "mcp__"
_RESULTS = (
    *("model_name", "version", "previous_version", "champion_version", "moved", "stage", "current_stage", "verdict"),
    *("reason", "run_id"),
)
"""What tasks push that may be answered: names, numbers and verdicts, never addresses."""
Status = Literal["queued", "running", "succeeded", "failed"]
_STATUSES: Mapping[str, Status] = {"queued": "queued", "success": "succeeded", "failed": "failed"}


async def follow(services: Services, request: Request, text: str) -> schemas.Operation:
    """Return how far an operation is.

    :param services: what the routes work with.
    :param request: the request.
    :param text: ID of the operation.
    :raises Problem: when there is none, or the caller may not see it.
    """
    operation = Operation.parse(text)
    if operation is None:
        raise Problem("no-such-operation")
    async with services.airflow_of(request) as airflow:
        try:
            run = await airflow.dag_run(operation)
            progress = await airflow.progress(operation) if run is not None else None
        except AirflowApiError as error:
            if error.status == 403:
                raise Problem("no-such-operation") from None
            raise
        if run is None or progress is None:
            raise Problem("no-such-operation")
        model = _model_of(run)
        if not await _may_follow(services, request.state.caller, model, progress.by):
            raise Problem("no-such-operation")
        if progress.is_over:
            services.reader.forget(model)
        returned = await _returned(airflow, operation, [name for name, _ in progress.tasks]) if progress.is_over else {}
    answer = schemas.Operation(
        id=operation.id,
        action=operation.action,
        model=model,
        status=_STATUSES.get(progress.state, "running"),
        by=progress.by,
        dag_id=operation.dag_id,
        dag_run_id=operation.run_id,
        requested_at=run.get("queued_at") or run.get("run_after"),
        ended_at=run.get("end_date"),
        steps=[schemas.Step(name=name, state=state) for name, state in progress.tasks],
        result=plain_values(returned, _RESULTS),
        failure="",
    )
    if answer.status == "failed":
        answer.failure = await _failure(services, operation, answer)
    return answer


async def listed(services: Services, request: Request, model: str) -> list[tuple[Operation, str]]:
    """Return the latest operations on models that the caller may see, with their models, the newest first.

    :param services: what the routes work with.
    :param request: the request.
    :param model: name of one model; empty for all.
    """
    caller: Caller = request.state.caller
    dags = services.dags
    async with services.airflow_of(request) as airflow:
        names = dict.fromkeys((dags.publish, dags.promote, dags.rollback, dags.stage))
        runs = await asyncio.gather(*(airflow.latest_runs(dag_id, _PREFIX, LATEST) for dag_id in names))
    found = [run for of_dag in runs for run in of_dag if not model or _model_of(run) == model]
    found.sort(key=lambda run: str(run.get("run_after") or ""), reverse=True)
    operations = []
    for run in found:
        operation = _operation_of(run)
        by, name = str(run.get("triggering_user_name") or ""), _model_of(run)
        if operation is not None and await _may_follow(services, caller, name, by):
            operations.append((operation, name))
    return operations


def _operation_of(run: Mapping[str, Any]) -> Operation | None:
    parts = str(run["dag_run_id"]).removeprefix(_PREFIX).rsplit("__", 1)
    return Operation.parse(":".join((str(run["dag_id"]), *parts))) if len(parts) == 2 else None


def _model_of(run: Mapping[str, Any]) -> str:
    return str(dict(run.get("conf") or {}).get("model_name") or "")


async def _may_follow(services: Services, caller: Caller, model: str, by: str) -> bool:
    """Return whether the caller asked for an operation, or may see its model."""
    if by == caller.name or not model:
        return True
    try:
        await services.part(caller, model)
    except (Problem, MlflowNotFoundError):
        return False
    return True


async def _returned(airflow: AirflowRest, operation: Operation, tasks: list[str]) -> dict[str, Any]:
    """Return what the tasks have pushed; of two values with one name, that of the later task."""
    found = await asyncio.gather(*(airflow.returned(operation, task) for task in tasks))
    return {name: value for values in found for name, value in values.items()}


async def _failure(services: Services, operation: Operation, answer: schemas.Operation) -> str:
    """Return why an operation failed, without what its log says: that names addresses."""
    failed = [step.name for step in answer.steps if step.state == "failed"]
    reason = str(answer.result.get("reason") or "") if answer.result.get("verdict") not in (None, "passed") else ""
    if operation.action == "publish" and not reason:
        reason = await services.reader.ask(lambda mlflow: _refusal(mlflow, answer.model, operation.run_id))
    what = f"The task {failed[0]} failed" if failed else "The Dag run failed"
    why = f": {without_credentials(reason)}" if reason else ""
    return f"{what}{why}. Its log in Airflow says more; ask again with a new Idempotency-Key when it is mended"


def _refusal(mlflow: MlflowOperations, model: str, dag_run_id: str) -> str:
    """Return why an upload was refused; empty when it was not."""
    experiment = mlflow.get_experiment_by_name(f"{model}{EXPERIMENT_SUFFIX}")
    if experiment is None or not set(dag_run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-"):
        return ""
    where = f"tags.`{contract.TAG_DAG_RUN_ID}` = '{dag_run_id}'"
    runs = mlflow.search_runs([experiment.experiment_id], where, ["attributes.start_time DESC"])
    return next((run.tags[contract.TAG_REFUSED] for run in runs if contract.TAG_REFUSED in run.tags), "")
