"""Airflow's public REST API in the same process, with the caller's own token: no address, no network, their rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from airflow_mcp.core.panel.actions import Operation, Progress
from airflow_mcp.exceptions import AirflowApiError

_ORIGIN = "http://airflow.internal"
"""Never resolved: the transport calls the application."""


class AirflowRest:
    """Airflow's REST API as one caller sees it.

    :param transport: leads to Airflow's application.
    :param token: the caller's token.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, token: str) -> None:
        self._client = httpx.AsyncClient(
            transport=transport, base_url=_ORIGIN, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )

    async def trigger(self, operation: Operation, conf: Mapping[str, Any], note: str) -> dict[str, Any] | None:
        """Trigger a Dag run.

        :param operation: names the Dag and its run.
        :param conf: conf of the run.
        :param note: note on the run, for people.
        :return: the run; None when Airflow has a run of this name.
        :raises AirflowApiError: when Airflow refuses.
        """
        body = {"dag_run_id": operation.run_id, "logical_date": None, "conf": dict(conf), "note": note[:1000]}
        answer = await self._client.post(f"/api/v2/dags/{_part(operation.dag_id)}/dagRuns", json=body)
        return None if answer.status_code == httpx.codes.CONFLICT else self._checked(answer)

    async def dag_run(self, operation: Operation) -> dict[str, Any] | None:
        """Return a Dag run; None when there is none."""
        answer = await self._client.get(_run_path(operation))
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._checked(answer)

    async def progress(self, operation: Operation) -> Progress | None:
        """Return how far an operation is; None when there is no such Dag run."""
        run = await self.dag_run(operation)
        if run is None:
            return None
        answer = self._checked(await self._client.get(f"{_run_path(operation)}/taskInstances"))
        found = sorted(answer["task_instances"], key=lambda each: (each["start_date"] or "9", each["task_id"]))
        tasks = tuple((str(each["task_id"]), str(each["state"] or "")) for each in found)
        by = str(run.get("triggering_user_name") or "")
        return Progress(str(run["state"]), tasks, by=by)

    async def dag_is_ready(self, dag_id: str) -> bool | None:
        """Return whether a Dag would run when it is triggered; None when there is no such Dag."""
        answer = await self._client.get(f"/api/v2/dags/{_part(dag_id)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        dag = self._checked(answer)
        return not dag["is_paused"] and not dag.get("has_import_errors") and not dag.get("is_stale")

    async def asset_id(self, name: str) -> int | None:
        """Return the ID of an asset by its exact name; None when there is none that the caller may see."""
        answer = await self._client.get("/api/v2/assets", params={"name_pattern": name, "limit": 50})
        if answer.status_code == httpx.codes.FORBIDDEN:
            return None
        found = [each["id"] for each in self._checked(answer)["assets"] if each["name"] == name]
        return int(found[0]) if found else None

    async def state(self, asset_id: int, key: str) -> Any:
        """Return a value of the state store of an asset; None when there is none."""
        answer = await self._client.get(_state_path(asset_id, key))
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._checked(answer)["value"]

    async def set_state(self, asset_id: int, key: str, value: Any) -> None:
        """Write a value of the state store of an asset.

        :raises AirflowApiError: when Airflow refuses; nothing was written.
        """
        answer = await self._client.put(_state_path(asset_id, key), json={"value": value})
        if not answer.is_success:
            self._checked(answer)

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            raise AirflowApiError(
                f"Airflow answered {answer.request.method} {answer.request.url.path} with {answer.status_code}: "
                f"{answer.text[:300]}. Nothing was changed",
                answer.status_code,
            )
        return dict(answer.json())


def _part(text: str) -> str:
    return quote(text, safe="")


def _run_path(operation: Operation) -> str:
    return f"/api/v2/dags/{_part(operation.dag_id)}/dagRuns/{_part(operation.run_id)}"


def _state_path(asset_id: int, key: str) -> str:
    return f"/api/v2/assets/{asset_id}/state-store/{_part(key)}"
