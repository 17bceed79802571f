"""The OpenAPI document of the API, which clients in other languages are generated from."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from airflow_mcp import __version__

SERVER = "/mcp/api/v1"
_PROBLEM = "#/components/schemas/ProblemDetails"
_DESCRIPTION = (
    "Models for teams that use neither Python nor Airflow's UI. Take a token from Airflow (`POST /auth/token`) and "
    "send it as `Authorization: Bearer`. What takes longer than a request is an operation: 202 with its `Location`. "
    "Every error is a problem document (RFC 9457) that says whether anything was changed."
)
_EVERYWHERE = {
    "default": {"description": "A problem", "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM}}}}
}
_TAGS = (
    ("models", "What is in production, and in which state."),
    ("versions", "Versions of a model, and new ones."),
    ("uploads", "The bytes of a model."),
    ("production", "What changes production; each is a Dag run under the caller's name."),
    ("operations", "What was begun, and how far it is."),
    ("older publishers", "The two calls of older publishers."),
)


def document(app: FastAPI, problem_schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the document, the same in every installation.

    :param app: the application.
    :param problem_schemas: schemas of problem documents, by name.
    """
    found = get_openapi(
        title="airflow-mcp publisher API",
        version=__version__,
        description=_DESCRIPTION,
        routes=app.routes,
        servers=[{"url": SERVER}],
        tags=[{"name": name, "description": text} for name, text in _TAGS],
    )
    found = copy.deepcopy(found)
    components = found.setdefault("components", {})
    components["securitySchemes"] = {"airflow": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    given = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which is never answered
        given.pop(name, None)
    given.update(problem_schemas)
    components["schemas"] = dict(sorted(given.items()))
    for path in found["paths"].values():
        for operation in path.values():
            operation["security"] = [{"airflow": []}]
            operation["responses"].pop("422", None)
            operation["responses"].update(copy.deepcopy(_EVERYWHERE))
    return found
