"""The pages of approvals: the open questions, and one question with its evidence and the form to answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.panel.actions import REASON_LENGTH
from airflow_mcp.core.panel.approvals import OpenQuestion, find_question, why_no_answer
from airflow_mcp.core.panel.facts import dag_of
from airflow_mcp.core.panel.pages.approvals import question_address, render_inbox, render_question
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.exceptions import AirflowApiError, ModelControlPlaneError
from airflow_mcp.plugins.access import own_json
from airflow_mcp.plugins.performing import storable_reason
from airflow_mcp.plugins.problems import UNCHANGED, Problem
from airflow_mcp.plugins.routes_pages import read_facts
from airflow_mcp.plugins.services import HEADERS, Services, page_response

_NOT_READ = "The audit log or Airflow did not answer, so it is not known what waits."


class AnswerBody(BaseModel):
    """What the form of a question sends."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """What was asked when the page was shown."""
    reason: Annotated[str, Field(min_length=1, max_length=REASON_LENGTH)]
    option: Literal["Approve", "Reject"]


def approvals(services: Services) -> APIRouter:
    """Return the routes of approvals.

    :param services: what they work with.
    """
    router = APIRouter()

    @router.get("/ui/approvals")
    async def inbox(request: Request) -> Response:
        try:
            questions, unread = await _open_questions(services, request), ""
        except ModelControlPlaneError:
            questions, unread = [], _NOT_READ
        frame = services.frame(request)
        return page_response(request, render_inbox(frame, questions, request.state.caller.name, unread))

    @router.get("/ui/approvals/{name}")
    async def question(request: Request, name: str, environment: str = "", act: str = "") -> Response:
        facts, part = await read_facts(services, request, name)
        found = _found(facts.questions, environment, act)
        refused = why_no_answer(found, request.state.caller.name, services.clock())
        answered = await _answered(services, request, found)
        frame = services.frame(request, part.read_at)
        html = render_question(frame, found, facts, answered or refused, busy=answered is not None)
        return page_response(request, html)

    @router.post("/ui/approvals/{name}", dependencies=[Depends(own_json)])
    async def answer(request: Request, name: str, body: AnswerBody, environment: str = "", act: str = "") -> Response:
        caller = request.state.caller
        services.access.count_write(caller)
        services.reader.forget(name)
        facts, _ = await read_facts(services, request, name)
        found = _found(facts.questions, environment, act)
        if found.mark != body.key:
            raise Problem("action-not-available", f"Another question is asked by now. {UNCHANGED} Look again.")
        if not body.reason.strip():
            raise Problem("invalid-request", f"Say why. {UNCHANGED}")
        refused = why_no_answer(found, caller.name, services.clock())
        if refused is not None or found.task is None:
            said = refused.text.format_map(refused.values) if refused else ""
            raise Problem(
                "not-allowed" if refused and refused.is_right else "action-not-available", f"{said} {UNCHANGED}"
            )
        async with services.airflow_of(request) as airflow:
            if not await airflow.answer(found.task, body.option, storable_reason(body.reason)):
                raise Problem("action-not-available", f"Somebody has answered already. {UNCHANGED}")
        services.reader.forget(name)
        page = question_address(services.frame(request), found).replace("&amp;", "&")
        return JSONResponse({"page": page}, 202, HEADERS)

    return router


async def _open_questions(services: Services, request: Request) -> list[OpenQuestion]:
    """Return what waits in Airflow and may be read by the caller, the most urgent first."""
    async with services.airflow_of(request) as airflow:
        subjects = await airflow.open_subjects()
    keys = {found[0] for subject in subjects if (found := ReleaseKey.of_question(subject))}
    questions = await services.reader.open_questions(sorted(keys, key=str))
    seen = []
    for question in questions:
        row = services.index.snapshot.rows.get(question.model)
        dag_id = row.dag_id if row else dag_of(await services.reader.model(question.model))
        if services.access.sees(request.state.caller, question.model, dag_id):
            seen.append(question)
    now = services.clock()
    return sorted(seen, key=lambda each: (not each.is_late(now), str(each.due() or "9"), each.model))


def _found(questions: tuple[OpenQuestion, ...], environment: str, act: str) -> OpenQuestion:
    found = find_question(questions, environment, act)
    if found is None:
        raise Problem("not-found", "Nobody is asked about this model any more.")
    return found


async def _answered(services: Services, request: Request, question: OpenQuestion) -> Refusal | None:
    """Return who has answered, until the task in Airflow has recorded it."""
    if question.task is None:
        return None
    try:
        async with services.airflow_of(request) as airflow:
            by = await airflow.answered_by(question.task)
    except AirflowApiError:
        return Refusal("Airflow did not answer.")
    return Refusal("{by} has answered. It is being recorded.", {"by": by}) if by else None
