"""The part of Airflow's REST API that the page asks, with Dag runs and state stores in memory."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response


class FakeAirflow:
    """Dags, Dag runs and state stores; everything that is written can be looked at."""

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.dags = {"rollback_model", "promote_model"}
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.states: dict[tuple[int, str], Any] = {}
        self.assets: dict[str, int] = {}
        self.tasks: list[dict[str, Any]] = []
        self.returned: dict[str, Any] = {}
        """What tasks have pushed, by task."""
        self.asked_with: set[str] = set()
        self.app = FastAPI()
        add = self.app.add_api_route
        add("/api/v2/dags/{dag_id}", self._dag)
        add("/api/v2/dags/{dag_id}/dagRuns", self._trigger, methods=["POST"])
        add("/api/v2/dags/{dag_id}/dagRuns", self._runs)
        add("/api/v2/dags/{dag_id}/dagRuns/{run_id}", self._run)
        add("/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", self._tasks)
        add("/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value", self._returned)
        add("/api/v2/assets", self._assets)
        add("/api/v2/assets/{asset_id}/state-store/{key}", self._state)
        add("/api/v2/assets/{asset_id}/state-store/{key}", self._set_state, methods=["PUT"])

    async def _dag(self, dag_id: str) -> Response:
        if dag_id not in self.dags:
            return JSONResponse({"detail": "not found"}, 404)
        return JSONResponse({"is_paused": dag_id in self.paused, "has_import_errors": False, "is_stale": False})

    async def _trigger(self, dag_id: str, request: Request) -> Response:
        body = await request.json()
        self.asked_with.add(request.headers["authorization"])
        key = (dag_id, body["dag_run_id"])
        if key in self.runs:
            return JSONResponse({"detail": "exists"}, 409)
        self.runs[key] = {**body, "state": "running", "triggering_user_name": "olga"}
        return JSONResponse(self.runs[key])

    async def _run(self, dag_id: str, run_id: str) -> Response:
        found = self.runs.get((dag_id, run_id))
        return JSONResponse(found) if found else JSONResponse({"detail": "not found"}, 404)

    async def _runs(self, dag_id: str, run_id_prefix_pattern: str) -> Response:
        found = [
            run
            for (dag, run_id), run in self.runs.items()
            if dag == dag_id and run_id.startswith(run_id_prefix_pattern)
        ]
        return JSONResponse({"dag_runs": [{**run, "dag_id": dag_id} for run in reversed(found)]})

    async def _returned(self, dag_id: str, task_id: str) -> Response:
        found = self.returned.get(task_id)
        return JSONResponse({"value": found}) if found is not None else JSONResponse({"detail": "not found"}, 404)

    async def _tasks(self, dag_id: str, run_id: str) -> Response:
        return JSONResponse({"task_instances": self.tasks})

    async def _assets(self, name_pattern: str) -> Response:
        found = [{"id": number, "name": name} for name, number in self.assets.items() if name_pattern in name]
        return JSONResponse({"assets": found})

    async def _state(self, asset_id: int, key: str) -> Response:
        value = self.states.get((asset_id, key))
        return JSONResponse({"value": value}) if value is not None else JSONResponse({}, 404)

    async def _set_state(self, asset_id: int, key: str, request: Request) -> Response:
        self.states[asset_id, key] = (await request.json())["value"]
        return Response(None, 204)
