"""A small client of Airflow's REST API: what the demo and the integration tests ask of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

FINAL_STATES = frozenset({"success", "failed"})
_POLL_SECONDS = 0.5
"""A look takes two requests, 15 ms of the API server's CPU."""
_HTTP_TIMEOUT_SECONDS = 120
"""The API server builds its routes at the first request, FAB its application at the first login: slow when busy."""
_PAGE = 100
_ATTEMPTS = 4
"""How often a request is sent at most, half a second apart, while the database is locked."""


class AirflowClientError(RuntimeError):
    """Airflow's REST API refused a request.

    :param message: what was asked and what came back.
    :param status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """What the demo and the tests ask of Airflow's REST API.

    :param url: address of the API server.
    :param user: user name.
    :param password: password; it is sent once, for a token.
    :raises AirflowApiError: by every method, when the server refuses.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=_HTTP_TIMEOUT_SECONDS, trust_env=False)
        try:
            answer = self._request("POST", "/auth/token", json={"username": user, "password": password})
        except BaseException:
            self._client.close()
            raise
        self.token = str(answer["access_token"])
        self._client.headers["Authorization"] = f"Bearer {self.token}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def import_errors(self) -> dict[str, str]:
        """Return the stack trace of each Dag file that could not be read, by file name."""
        found = self._list("/api/v2/importErrors", "import_errors")
        return {error["filename"]: error["stack_trace"] for error in found}

    def wait_for_dag(self, dag_id: str, timeout: float = 120) -> None:
        """Wait until the Dag can be triggered.

        :param dag_id: id of the Dag.
        :param timeout: seconds.
        :raises RuntimeError: when a Dag file has an import error while the Dag is not there; has its text.
        :raises TimeoutError: when the Dag is not there in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._request("GET", f"/api/v2/dags/{_part(dag_id)}")
            except AirflowClientError as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise
            else:
                return
            errors = self.import_errors()
            if errors:
                texts = "\n".join(f"{name}:\n{trace}" for name, trace in sorted(errors.items()))
                raise RuntimeError(f"Dag {dag_id!r} is not there, and Dag files have import errors:\n{texts}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"Dag {dag_id!r} is not there after {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def dag(self, dag_id: str) -> dict[str, Any]:
        """Return a Dag with all details, as the API describes it."""
        return dict(self._request("GET", f"/api/v2/dags/{_part(dag_id)}/details"))

    def dag_versions(self, dag_id: str) -> int:
        """Return how many versions of a Dag there have been."""
        return len(self._list(f"/api/v2/dags/{_part(dag_id)}/dagVersions", "dag_versions"))

    def unpause(self, dag_id: str) -> None:
        """Let the Dag run."""
        self._request("PATCH", f"/api/v2/dags/{_part(dag_id)}", json={"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        dag_run_id: str | None = None,
        note: str | None = None,
        referer: str = "",
    ) -> str:
        """Start a run of the Dag and return its run id; with the page that asks, it counts as triggered in the UI."""
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {}), "note": note}
        if dag_run_id is not None:
            body["dag_run_id"] = dag_run_id
        page = {"Referer": referer} if referer else {}
        path = f"/api/v2/dags/{_part(dag_id)}/dagRuns"
        return str(self._request("POST", path, json=body, headers=page)["dag_run_id"])

    def create_asset_event(self, name: str) -> None:
        """Report a new version of an asset, which begins the Dags that wait for it."""
        found = self._list("/api/v2/assets", "assets", name_pattern=name)
        self._request("POST", "/api/v2/assets/events", json={"asset_id": found[0]["id"], "extra": {}})

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a Dag run."""
        return str(self._request("GET", _run_path(dag_id, run_id))["state"])

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> str:
        """Wait until a Dag run has ended and return its final state, ``success`` or ``failed``.

        :param dag_id: id of the Dag.
        :param run_id: id of the run.
        :param timeout: seconds.
        :param on_progress: called with task id and state whenever a task's state has changed.
        :raises TimeoutError: when it has not ended in time; has the states of its tasks.
        """
        deadline = time.monotonic() + timeout
        known: dict[str, str | None] = {}
        while True:
            state = self.run_state(dag_id, run_id)
            states = self.task_states(dag_id, run_id)
            for task_id, task_state in states.items():
                if on_progress is not None and task_state is not None and known.get(task_id) != task_state:
                    on_progress(task_id, task_state)
            known = states
            if state in FINAL_STATES:
                return state
            if time.monotonic() > deadline:
                raise TimeoutError(f"{dag_id} {run_id} is {state} after {timeout:g} s; its tasks: {states}")
            time.sleep(_POLL_SECONDS)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task; a mapped task is named ``task_id[index]``, None means not scheduled yet."""
        tasks = self._list(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        return {_task_name(task): task["state"] for task in tasks}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task pushed, also where an XCom backend keeps it in a file of this machine."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}/xcomEntries/{_part(key)}"
        value = self._request("GET", path)["value"]
        is_place = isinstance(value, str) and value.startswith("file://")
        return json.loads(Path(value.removeprefix("file://")).read_text()) if is_place else value

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the log of one try of a task as text, one event a line."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}/logs/{try_number}"
        answer = self._request("GET", path, params={"full_content": "true"})
        return "\n".join(_log_line(event) for event in answer["content"])

    def list_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a Dag as the API describes them, the oldest first."""
        return self._list(f"/api/v2/dags/{_part(dag_id)}/dagRuns", "dag_runs", order_by="run_after")

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str = "failed") -> None:
        """Set a task's state as a user does in the UI; a running task is stopped."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}"
        self._request("PATCH", path, json={"new_state": state})

    def clear_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task run again, as a user does in the UI."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self._request("POST", f"/api/v2/dags/{_part(dag_id)}/clearTaskInstances", json=body)

    def add_connection(self, conn_id: str, conn_type: str, **fields: Any) -> None:
        """Add a connection."""
        self._request("POST", "/api/v2/connections", json={"connection_id": conn_id, "conn_type": conn_type, **fields})

    def question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what a human-in-the-loop task asks, and the answer."""
        return dict(self._request("GET", f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}/-1/hitlDetails"))

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, reason: str | None = None) -> None:
        """Answer a human-in-the-loop task as the account that is logged in."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_part(task_id)}/-1/hitlDetails"
        self._request("PATCH", path, json={"chosen_options": [option], "params_input": {"reason": reason}})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a Dag run with its tasks, questions and answers."""
        self._client.delete(_run_path(dag_id, run_id)).raise_for_status()

    def _list(self, path: str, key: str, **params: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = self._request("GET", path, params={**params, "limit": _PAGE, "offset": len(found)})
            found += answer[key]
            if not answer[key] or len(found) >= answer["total_entries"]:
                return found

    def _request(self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        sent = {"Accept": "application/json", **(headers or {})}
        for attempts_left in reversed(range(_ATTEMPTS)):
            answer = self._client.request(method, path, headers=sent, **options)
            if not attempts_left or not _is_locked(answer):
                break
            time.sleep(_POLL_SECONDS)
        if answer.is_success:
            return answer.json()
        raise AirflowClientError(
            f"{method} {path}: HTTP {answer.status_code}: {answer.text[:2000]}", answer.status_code
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_locked(answer: httpx.Response) -> bool:
    """Say whether the database refused a transaction: SQLite does while the scheduler writes. Nothing was changed."""
    return answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR and '"Database error"' in answer.text


def _part(text: str) -> str:
    return quote(text, safe="")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"


def _task_name(task: Mapping[str, Any]) -> str:
    index = task.get("map_index", -1)
    return str(task["task_id"]) if index < 0 else f"{task['task_id']}[{index}]"


def _log_line(event: Any) -> str:
    if not isinstance(event, Mapping):
        return str(event)
    parts = [str(event.get("timestamp") or ""), str(event.get("level") or "").upper(), str(event.get("event", ""))]
    details = event.get("error_detail")
    return " ".join(part for part in parts if part) + (f"\n{json.dumps(details)}" if details else "")
