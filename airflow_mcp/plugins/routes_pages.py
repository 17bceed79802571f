"""The pages that only read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from airflow_mcp.core.approvals.cycle import Cycle
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.panel.actions import ACTIONS, STEERS, ActionName, why_not
from airflow_mcp.core.panel.facts import ModelFacts
from airflow_mcp.core.panel.pages.activity import ModelChange, render_activity
from airflow_mcp.core.panel.pages.cards import SPANS
from airflow_mcp.core.panel.pages.model import render_model
from airflow_mcp.core.panel.pages.models import CHIPS, SORTS, ListQuery, render_models, select_rows
from airflow_mcp.core.panel.pages.version import render_version
from airflow_mcp.core.panel.pages.words import render_problem, render_words
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.registry.history import Timeline, parse_time, read_timeline
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.audit_trail import Trail
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.queries import (
    NO_AUDIT,
    Part,
    model_facts,
    noted,
    read_retraining,
    trained,
    with_trainings,
)
from airflow_mcp.plugins.services import Services, page_response

_ACTIVITY_MODELS = 40
"""Models whose latest moves the page of activity reads: those that changed last."""
_ACTIVITY_ROWS = 100
_NO_RIGHT = "The access policy does not let you read the audit log. These are the moves that MLflow has recorded."


def pages(services: Services) -> APIRouter:
    """Return the routes of the pages.

    :param services: what they work with.
    """
    router = APIRouter()
    _add_lists(router, services)
    _add_models(router, services)
    return router


def _add_lists(router: APIRouter, services: Services) -> None:
    @router.get("/ui")
    async def without_slash(request: Request) -> Response:
        return RedirectResponse(f"{services.frame(request).root}/ui/", 307)

    @router.get("/ui/")
    async def models(
        request: Request, q: str = "", state: str = "", owner: str = "", sort: str = "state", page: int = 1
    ) -> Response:
        snapshot = await services.index.current()
        rows = services.access.visible(request.state.caller, snapshot.rows.values())
        query = ListQuery(
            q[:200], state if state in CHIPS else "", owner[:200], sort if sort in SORTS else "state", max(page, 1)
        )
        frame = services.frame(request, snapshot.read_at, is_down=snapshot.is_down)
        progress = max(services.index.seen, len(rows)) if services.index.is_sweeping_first else None
        return page_response(request, render_models(frame, select_rows(rows, query), query, progress))

    @router.get("/ui/words")
    async def words(request: Request) -> Response:
        return page_response(request, render_words(services.frame(request)))

    @router.get("/ui/activity")
    async def activity(request: Request) -> Response:
        snapshot = await services.index.current()
        rows = services.access.visible(request.state.caller, snapshot.rows.values())
        rows.sort(key=lambda row: row.standing.since, reverse=True)
        names = [row.name for row in rows[:_ACTIVITY_MODELS] if row.moves]
        frame = services.frame(request, snapshot.read_at, is_down=snapshot.is_down)
        timelines = await services.reader.ask(lambda mlflow: _timelines(mlflow, names, frame.now))
        changes = [ModelChange(name, change) for name, timeline in timelines for change in timeline.changes]
        changes.sort(key=lambda each: each.change.latest, reverse=True)
        return page_response(request, render_activity(frame, changes[:_ACTIVITY_ROWS]))


def _add_models(router: APIRouter, services: Services) -> None:
    @router.get("/ui/models/{name}")
    @router.get("/ui/models/{name}/")
    async def model(request: Request, name: str, at: str = "", days: int = 30) -> Response:
        try:
            facts, part = await read_facts(services, request, name, at)
        except InvalidArgumentError as error:
            raise Problem("invalid-request", str(error)) from None
        except (MlflowError, Problem) as error:
            return _problem_page(services, request, error)
        facts = await _with_trail(services, request, facts, part)
        refusals = await refusals_of(services, request, facts)
        frame = services.frame(request, part.read_at)
        html = render_model(frame, facts, refusals, days=days if days in SPANS else 30)
        return page_response(request, html)

    @router.get("/ui/models/{name}/versions/{number}")
    async def version(request: Request, name: str, number: str) -> Response:
        other = request.query_params.get("with", "")
        if not number.isdigit() or (other and not other.isdigit()):
            raise Problem("invalid-request", "A version is a whole number.")
        try:
            part = await services.part(request.state.caller, name)
            read = await services.reader.ask(lambda mlflow: _versions(mlflow, part, number, other))
        except (MlflowError, Problem) as error:
            return _problem_page(services, request, error)
        cycle = None if other else await _cycle(services, request, part, number, read[1])
        return page_response(request, render_version(services.frame(request, part.read_at), *read, cycle))


async def read_facts(services: Services, request: Request, name: str, at: str = "") -> tuple[ModelFacts, Part]:
    """Return what is known of a model that the caller may see.

    :param services: what the routes work with.
    :param request: the request.
    :param name: the model.
    :param at: a moment in the past; empty for now.
    """
    moment: datetime | None = parse_time("at", at) if at else None
    part = await services.part(request.state.caller, name)
    notes: dict[str, str] = {}
    async with services.airflow_of(request) as airflow:
        retraining = await read_retraining(airflow, name, notes)
    return model_facts(part, retraining, notes, at=moment), part


async def _with_trail(services: Services, request: Request, facts: ModelFacts, part: Part) -> ModelFacts:
    """Add the audit trail, if the caller may read the log and the look was recorded."""
    caller, notes = request.state.caller, dict(facts.notes)
    if not services.access.policy.may_read_log(caller.user, caller.name):
        return replace(facts, notes={**notes, "audit": _NO_RIGHT})
    trail = await _trail(services, request, part, notes)
    lines, cycles = (trail.lines, trail.cycles) if trail else (None, facts.cycles)
    return replace(facts, audit=lines, cycles=cycles, notes=notes)


async def _trail(services: Services, request: Request, part: Part, notes: dict[str, str]) -> Trail | None:
    caller, name = request.state.caller, part.model.name

    def read(mlflow: MlflowOperations) -> Trail | None:
        return services.trail.read(name, caller.name, partial(with_trainings, mlflow, part.versions))

    return await noted(notes, "audit", NO_AUDIT, services.reader.ask(read))


async def _cycle(services: Services, request: Request, part: Part, number: str, run: Run | None) -> Cycle | None:
    """Return when each step of a version's release was done; None when the caller may not read the log."""
    caller = request.state.caller
    if not services.access.policy.may_read_log(caller.user, caller.name):
        return None
    trail = await _trail(services, request, part, {})
    return trained(trail.cycles.get(number, Cycle(number)), run) if trail else None


async def refusals_of(services: Services, request: Request, facts: ModelFacts) -> dict[str, Refusal]:
    """Return why actions are not possible for the caller, by action.

    :param services: what the routes work with.
    :param request: the request.
    :param facts: the model.
    """
    found: dict[str, Refusal] = {}
    for action in ACTIONS:
        refused = refusal_of(services, request, facts, action)
        if refused is not None:
            found[action] = refused
    return found


def refusal_of(services: Services, request: Request, facts: ModelFacts, action: ActionName) -> Refusal | None:
    """Return why an action is not possible for the caller: it makes no sense now, or they may not do it."""
    refused = why_not(action, facts)
    if refused is not None:
        return refused
    dag_id = dag_of_action(services, facts, action)
    if action == "train" and dag_id == services.dags.publish:
        text = "This model is published, not trained: the Dag {dag} registers what somebody uploads."
        return Refusal(text, {"dag": dag_id})
    return services.access.refusal(request.state.caller, facts.model, action, dag_id)


def dag_of_action(services: Services, facts: ModelFacts, action: ActionName) -> str:
    """Return the Dag that carries out an action; of a change to the retrain ledger, the Dag that trains.

    Whoever may not start a training may neither hold it up nor let it go on.
    """
    dags = services.dags
    if action in ("train", "pause-retraining", "resume-retraining"):
        return facts.dag_id
    if action in STEERS:
        return dags.rollout
    return dags.rollback if action == "rollback" else dags.promote


def _timelines(mlflow: MlflowOperations, names: list[str], now: datetime) -> list[tuple[str, Timeline]]:
    found = []
    for name in names:
        try:
            model = mlflow.get_registered_model(name)
        except MlflowNotFoundError:
            continue
        found.append((name, read_timeline(model, now + timedelta(seconds=1))))
    return found


def _versions(
    mlflow: MlflowOperations, part: Part, number: str, other: str
) -> tuple[ModelVersion, Run | None, ModelVersion | None, Run | None]:
    first = _version(mlflow, part, number)
    second = _version(mlflow, part, other) if other else (None, None)
    return (*first, *second)


def _version(mlflow: MlflowOperations, part: Part, number: str) -> tuple[ModelVersion, Run | None]:
    version = next((each for each in part.versions if each.version == number), None)
    if version is None:
        version = mlflow.get_model_version(part.model.name, number)
    try:
        run = mlflow.get_run(version.run_id) if version.run_id else None
    except MlflowNotFoundError:
        run = None
    return version, run


def _problem_page(services: Services, request: Request, error: MlflowError | Problem) -> Response:
    """Return the page that says why a model is not shown; it names no address, and nothing that may not be seen."""
    if isinstance(error, Problem | MlflowNotFoundError):
        title, said, status = "There is no such model", "Or you may not see it: then ask whoever owns its Dag.", 404
    else:
        title, said, status = "MLflow does not answer", "Model servers are not affected. Try again in a minute.", 503
    frame = services.frame(request, is_down=False)
    return page_response(request, render_problem(frame, title, said), status)
