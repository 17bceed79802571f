"""Reports of MLflow runs, which are foreign HTML: each is shown in a sandbox without cookie, network and storage."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from airflow_mcp.core import contract
from airflow_mcp.plugins.problems import Problem
from airflow_mcp.plugins.services import Services

ReportKind = Literal["gate", "drift", "evidently"]
_PATHS: dict[str, str] = {
    "gate": contract.ARTIFACT_GATE_REPORT_HTML,
    "drift": contract.ARTIFACT_DRIFT_REPORT_HTML,
    "evidently": contract.ARTIFACT_EVIDENTLY_REPORT,
}
MAX_REPORT_BYTES = 32 * 1024 * 1024
"""32 MiB: Evidently's report of a wide dataset has about 10 MiB."""
_STATIC = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_SCRIPTED = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "frame-ancestors 'self'"
)


def reports(services: Services) -> APIRouter:
    """Return the route of the reports.

    :param services: what it works with.
    """
    router = APIRouter()

    @router.get("/ui/models/{name}/reports/{run_id}/{kind}")
    async def report(request: Request, name: str, run_id: str, kind: ReportKind) -> Response:
        part = await services.part(request.state.caller, name)
        checks = part.drift.checks if part.drift else ()
        named = {check.run_id for check in checks} | {version.run_id for version in part.versions}
        named |= {version.tags.get(contract.TAG_COPY_RUN, "") for version in part.versions}
        if run_id not in named:
            raise Problem("not-found", "No version and no check of this model names this run.")
        path = _PATHS[kind]
        found = await services.reader.ask(lambda mlflow: mlflow.find_artifact(run_id, path, max_bytes=MAX_REPORT_BYTES))
        if found is None:
            raise Problem("not-found", "This run has no such report.")
        # Only Evidently's report needs its scripts; without allow-same-origin they run as nobody, and reach nothing.
        sandbox = f"sandbox allow-scripts; {_SCRIPTED}" if kind == "evidently" else f"sandbox; {_STATIC}"
        headers = {
            "Content-Security-Policy": sandbox,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "private, no-cache",
        }
        return Response(found, 200, headers, "text/html; charset=utf-8")

    return router
