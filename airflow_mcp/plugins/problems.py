"""Errors of the API as RFC 9457 problems: each ends with the state of the world, and none names an address."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from airflow_mcp.core.audit.event import without_credentials
from airflow_mcp.core.registry.moves import storable_text
from airflow_mcp.exceptions import AirflowApiError, MlflowError, MlflowNotFoundError, ModelControlPlaneError

log = logging.getLogger(__name__)
UNCHANGED = "Nothing was changed."
_SHOWN = 200
"""Characters of a value that a problem repeats."""


class Kind(NamedTuple):
    """One type of problem."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "invalid-request": Kind(400, "The request is not valid"),
    "not-logged-in": Kind(401, "Log in to Airflow first"),
    "not-allowed": Kind(403, "You may not do this"),
    "no-such-model": Kind(404, "There is no such model, or you may not see it"),
    "no-such-source": Kind(404, "There is no such upload, run or logged model, or you may not see it"),
    "no-such-operation": Kind(404, "There is no such operation, or you may not see it"),
    "not-found": Kind(404, "There is nothing at this address"),
    "method-not-allowed": Kind(405, "This address does not take this method"),
    "champion-moved": Kind(409, "The champion is another version by now"),
    "action-not-available": Kind(409, "This is not possible now"),
    "too-large": Kind(413, "The body is too large"),
    "not-json": Kind(415, "The body must be JSON"),
    "not-bytes": Kind(415, "The body must be application/octet-stream"),
    "digest-differs": Kind(422, "The bytes are not the announced ones"),
    "idempotency-key-reused": Kind(422, "This idempotency key was used for another request"),
    "too-many": Kind(429, "Too many requests"),
    "internal": Kind(500, "Something went wrong here"),
    "mlflow-refused": Kind(502, "MLflow refused the request"),
    "mlflow-not-answering": Kind(503, "MLflow does not answer"),
    "policy-unknown": Kind(503, "The audit log does not answer, so nobody knows what the access policy permits"),
    "airflow-refused": Kind(502, "Airflow refused the request"),
}
_BY_STATUS = {401: "not-logged-in", 403: "not-allowed", 404: "not-found", 405: "method-not-allowed"}


class Problem(Exception):  # noqa: N818  (the RFC's word)
    """A problem that is shown to the caller.

    :param kind: a key of :data:`KINDS`.
    :param detail: what is wrong and what to do, without addresses and credentials.
    :param more: further members of the document.
    """

    def __init__(self, kind: str, detail: str = UNCHANGED, **more: Any) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.more = kind, detail, more


def problem_response(kind: str, detail: str, more: Mapping[str, Any] | None = None) -> Response:
    """Return the document of a problem.

    :param kind: a key of :data:`KINDS`.
    :param detail: what is wrong and what to do.
    :param more: further members.
    """
    status, title = KINDS[kind]
    body = {"type": f"urn:airflow-mcp:problem:{kind}", "title": title, "status": status, "detail": detail}
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = "30"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({**body, **(more or {})}, status, headers, "application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Make every error of an application a problem.

    :param app: the application.
    """

    @app.exception_handler(Problem)
    async def answer_problem(request: Request, error: Problem) -> Response:
        return problem_response(error.kind, error.detail, error.more)

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        answer = problem_response(_BY_STATUS.get(error.status_code, "invalid-request"), UNCHANGED)
        answer.headers.update(error.headers or {})  # such as Allow, which a 405 must have
        return answer

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [_invalid_field(each) for each in error.errors()]
        return problem_response("invalid-request", f"{UNCHANGED} Correct what errors names.", {"errors": errors[:20]})

    @app.exception_handler(ModelControlPlaneError)
    async def answer_known(request: Request, error: ModelControlPlaneError) -> Response:
        return of_error(error)

    @app.exception_handler(Exception)
    async def answer_unknown(request: Request, error: Exception) -> Response:
        log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem_response(
            "internal", "The log of the API server says more. Whether anything changed is not known."
        )


def _invalid_field(error: Mapping[str, Any]) -> dict[str, str]:
    """Return one member that is not valid: where it is, what is allowed, and its value unless that may be secret."""
    found = {"where": ".".join(map(str, error["loc"])), "what": str(error["msg"])}
    value = error.get("input")
    if error["type"] == "missing" or not isinstance(value, str | int | float | bool):
        return found
    shown = without_credentials(storable_text(str(value)[:_SHOWN]))
    return {**found, "got": shown}


def of_error(error: ModelControlPlaneError) -> Response:
    """Return the problem that an error of ours is; its message names addresses and connections, so the log keeps it.

    :param error: the error.
    """
    log.warning("%s: %s", type(error).__name__, error)
    if isinstance(error, MlflowNotFoundError):
        return problem_response("no-such-model", UNCHANGED)
    if isinstance(error, MlflowError):
        if error.status is None:
            return problem_response("mlflow-not-answering", f"{UNCHANGED} Try again when it answers.")
        return problem_response("mlflow-refused", UNCHANGED, {"upstream_status": error.status})
    if isinstance(error, AirflowApiError):
        kind = {401: "not-logged-in", 403: "not-allowed"}.get(error.status or 0, "airflow-refused")
        return problem_response(kind, UNCHANGED)
    return problem_response("invalid-request", UNCHANGED)
