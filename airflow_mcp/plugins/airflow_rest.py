"""Airflow's public REST API in the same process, with the caller's own token: no address, no network, their rights."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
from airflow.sdk.execution_time.comms import XComResult
from airflow.sdk.execution_time.xcom import resolve_xcom_backend

from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.panel.actions import Operation, Progress
from airflow_mcp.exceptions import AirflowApiError

MOST_QUESTIONS = 1000
"""Open questions of all Dags that are looked at."""
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

    async def returned(self, operation: Operation, task_id: str) -> dict[str, Any]:
        """Return what a task of an operation has pushed; nothing when it has not, or the caller may not read it.

        :raises AirflowApiError: when it is in an object store that cannot be read.
        """
        path = f"{_run_path(operation)}/taskInstances/{_part(task_id)}/xcomEntries/return_value"
        answer = await self._client.get(path)
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):
            return {}
        value = self._checked(answer)["value"]
        if isinstance(value, str):  # not the value, but its place: tasks of ours return mappings
            value = await asyncio.to_thread(_from_backend, value)
        return dict(value) if isinstance(value, Mapping) else {}

    async def latest_runs(self, dag_id: str, prefix: str, limit: int) -> list[dict[str, Any]]:
        """Return the latest runs of a Dag whose IDs begin with a text; none when the caller may not read them.

        :param dag_id: the Dag.
        :param prefix: what the IDs begin with.
        :param limit: most runs.
        """
        params: dict[str, str | int] = {"run_id_prefix_pattern": prefix, "order_by": "-run_after", "limit": limit}
        answer = await self._client.get(f"/api/v2/dags/{_part(dag_id)}/dagRuns", params=params)
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):
            return []
        return list(self._checked(answer)["dag_runs"])

    async def dag_is_ready(self, dag_id: str) -> bool | None:
        """Return whether a Dag would run when it is triggered; None when there is no such Dag."""
        answer = await self._client.get(f"/api/v2/dags/{_part(dag_id)}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        dag = self._checked(answer)
        return not dag["is_paused"] and not dag.get("has_import_errors") and not dag.get("is_stale")

    async def open_subjects(self) -> list[str]:
        """Return the headlines of all open questions that the caller may read, the oldest first."""
        found: list[str] = []
        while len(found) < MOST_QUESTIONS:
            given = {"response_received": "false", "order_by": "created_at", "limit": "100", "offset": str(len(found))}
            answer = self._checked(await self._client.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params=given))
            found += [str(each["subject"]) for each in answer["hitl_details"]]
            if not answer["hitl_details"] or len(found) >= answer["total_entries"]:
                break
        return found

    async def answered_by(self, task: TaskKey) -> str:
        """Return who has answered the question of a task; empty when nobody has."""
        answer = await self._client.get(_question_path(task))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return ""
        found = self._checked(answer)
        return str((found.get("responded_by_user") or {}).get("name") or "") if found["response_received"] else ""

    async def answer(self, task: TaskKey, option: str, reason: str) -> bool:
        """Answer the question of a task; return whether nobody else was faster.

        :param task: the task instance.
        :param option: one of its options.
        :param reason: why.
        :raises AirflowApiError: when Airflow refuses; nothing was answered.
        """
        body = {"chosen_options": [option], "params_input": {"reason": reason}}
        answer = await self._client.patch(_question_path(task), json=body)
        return answer.status_code != httpx.codes.CONFLICT and bool(self._checked(answer))

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


def _from_backend(place: str) -> Any:
    """Return the value for which Airflow's XCom backend has stored this text in the database.

    :raises AirflowApiError: when the backend cannot read it.
    """
    try:
        backend = resolve_xcom_backend()  # type: ignore[no-untyped-call]
        return backend.deserialize_value(XComResult(key="return_value", value=place))
    except Exception as error:  # each store has its own errors
        raise AirflowApiError(
            f"the XCom backend cannot read the result of a task: {type(error).__name__}. Check that the API server has "
            "the [core] xcom_backend and [common.io] settings of the workers, and can reach the store"
        ) from error


def _part(text: str) -> str:
    return quote(text, safe="")


def _run_path(operation: Operation) -> str:
    return f"/api/v2/dags/{_part(operation.dag_id)}/dagRuns/{_part(operation.run_id)}"


def _question_path(task: TaskKey) -> str:
    run = f"/api/v2/dags/{_part(task.dag_id)}/dagRuns/{_part(task.dag_run_id)}"
    return f"{run}/taskInstances/{_part(task.task_id)}/{task.map_index}/hitlDetails"


def _state_path(asset_id: int, key: str) -> str:
    return f"/api/v2/assets/{asset_id}/state-store/{_part(key)}"
