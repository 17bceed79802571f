"""What Airflow knows about people: who started a Dag run, who cleared its tasks, what was asked and answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mcp.core.access.requester import MOST_PARENTS, Requester, RunOrigin, requester_of, requester_of_actor
from airflow_mcp.core.approvals.events import Answer
from airflow_mcp.core.identity import PARENT_RUN, TaskKey
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.airflow_api import AirflowApi, part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_mcp.core.actor import Actor

_CLEARS = ("post_clear_task_instances", "clear_dag_run", "clear_dag_runs")
"""Events of Airflow's event log by which somebody made a task run again."""


class AirflowApiHook(BaseHook):
    """Hook for Airflow's own REST API, with an account that may read task instances, their questions and event logs.

    :param airflow_api_conn_id: id of a connection of type ``airflow_api``: ``host`` is the URL, ``login`` and
        ``password`` are an account, or ``password`` alone is a token.
    """

    conn_name_attr = "airflow_api_conn_id"
    default_conn_name = "airflow_api_default"
    conn_type = "airflow_api"
    hook_name = "Airflow API"

    def __init__(self, airflow_api_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.airflow_api_conn_id = airflow_api_conn_id

    def get_conn(self) -> AirflowApi:
        """Return a client, for a ``with`` block.

        :raises InvalidArgumentError: when there is no such connection, or it has no address.
        """
        try:
            connection = self.get_connection(self.airflow_api_conn_id)
        except AirflowNotFoundException:
            raise InvalidArgumentError(
                f"[airflow_mcp] airflow_api_conn_id must be the ID of a connection; got {self.airflow_api_conn_id!r}, "
                "and there is no such connection"
            ) from None
        host = str(connection.host or "").rstrip("/")
        url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
        if not host:
            raise InvalidArgumentError(f"host of connection {self.airflow_api_conn_id!r} must be a URL; got nothing")
        if connection.port and "://" not in host:
            url = f"{url}:{connection.port}"
        password = connection.password or ""
        if password:
            mask_secret(password)
        if not connection.login:
            return AirflowApi(url, token=password)
        return AirflowApi(url, user=connection.login, password=password)

    @contextmanager
    def people(self) -> Iterator[AirflowPeople]:
        """Open a connection for a ``with`` block.

        :raises AirflowApiError: when Airflow does not answer, or refuses the credentials.
        """
        with self.get_conn() as api:
            yield AirflowPeople(api)

    def requester_of(self, actor: Actor) -> Requester:
        """Return who is behind a task, as Airflow says; of anybody else, what the actor says.

        :param actor: who acts.
        :raises AirflowApiError: when Airflow does not answer.
        """
        if actor.task is None:
            return requester_of_actor(actor)
        with self.people() as people:
            return people.requester(actor.task.dag_id, actor.task.dag_run_id)

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection once, without raising."""
        try:
            with self.get_conn() as api:
                name, _ = api.who_am_i()
        except Exception as error:  # the connection form shows any error
            return False, str(error)
        return True, f"Airflow answers to {name}"


@dataclass(frozen=True)
class Question:
    """What a human-in-the-loop task asks, and the answer to it."""

    subject: str
    body: str
    options: tuple[str, ...]
    assigned: frozenset[str]
    """IDs of the accounts that may answer; empty: any that Airflow lets answer."""
    answer: Answer | None


class AirflowPeople:
    """What Airflow's REST API says about people.

    :param api: open connection.
    """

    def __init__(self, api: AirflowApi) -> None:
        self._api = api

    def requester(self, dag_id: str, run_id: str) -> Requester:
        """Return who is behind a Dag run, also through the runs that triggered it.

        :param dag_id: id of the Dag.
        :param run_id: id of the run.
        """
        chain: list[RunOrigin] = []
        place: tuple[str, str] | None = (dag_id, run_id)
        while place is not None and len(chain) < MOST_PARENTS:
            found = self._api.find(_run_path(*place))
            if found is None:
                break
            chain.append(self._origin(found))
            place = _parent(found) if chain[-1].triggered_by == "operator" else None
        return requester_of(chain)

    def question(self, task: TaskKey) -> Question | None:
        """Return what a task asks in its current try; None when it has not asked.

        :param task: the task instance.
        """
        return _question(self._api.find(_question_path(task)), task)

    def answers(self, task: TaskKey) -> list[Answer]:
        """Return every answer to a task that Airflow still has, of earlier tries and of the current one.

        :param task: the task instance.
        """
        path = _question_path(task)
        instance = self._api.find(_instance_path(task))
        tries = range(1, int(instance["try_number"]) if instance else 1)
        found = [self._api.find(f"{path}/tries/{number}") for number in tries]
        asked = [_question(each, task) for each in (*found, self._api.find(path))]
        answers = [each.answer for each in asked if each is not None and each.answer is not None]
        return list(dict.fromkeys(answers))

    def why_not(self, answer: Answer) -> str:
        """Return why Airflow does not know an answer; empty when it does.

        :param answer: an answer, as the audit log has it.
        """
        current = self.question(answer.task)
        if current is not None and current.answer is not None and _is_same(current.answer, answer):
            return ""
        if any(_is_same(found, answer) for found in self.answers(answer.task)):
            return ""
        return "Airflow does not know such an answer" if current else "Airflow does not know such a question"

    def _origin(self, run: Mapping[str, Any]) -> RunOrigin:
        dag_id, run_id = str(run["dag_id"]), str(run["dag_run_id"])
        return RunOrigin(
            dag_id,
            run_id,
            str(run.get("triggered_by") or ""),
            account=str(run.get("triggering_user_name") or ""),
            cleared_by=tuple(self._cleared_by(dag_id, run_id)),
        )

    def _cleared_by(self, dag_id: str, run_id: str) -> Iterator[str]:
        """Yield who cleared something of a run; a clear through the Dag names the run in its request only."""
        for event in _CLEARS:
            for entry in self._api.find_all("/api/v2/eventLogs", "event_logs", dag_id=dag_id, event=event):
                named = entry.get("run_id") or (run_id if run_id in str(entry.get("extra") or "") else "")
                if named == run_id and entry.get("owner"):
                    yield str(entry["owner"])


def _question(found: Any, task: TaskKey) -> Question | None:
    if found is None:
        return None
    subject = str(found["subject"])
    return Question(
        subject,
        str(found.get("body") or ""),
        tuple(found["options"]),
        frozenset(str(user["id"]) for user in found.get("assigned_users") or ()),
        _answer(found, subject, task),
    )


def _answer(found: Mapping[str, Any], subject: str, task: TaskKey) -> Answer | None:
    """Return the answer of a person; the option that Airflow takes after a time-out is none."""
    user = found.get("responded_by_user")
    if not found.get("response_received") or not user or not found.get("chosen_options"):
        return None
    return Answer(
        task,
        subject,
        ", ".join(found["chosen_options"]),
        str(user["name"]),
        str(user["id"]),
        str(found["responded_at"]),
        str((found.get("params_input") or {}).get("reason") or ""),
    )


def _is_same(found: Answer, recorded: Answer) -> bool:
    """Whether two answers are one; the reason may not have been recorded, and does not decide."""
    return replace(found, reason="") == replace(recorded, reason="")


def _parent(run: Mapping[str, Any]) -> tuple[str, str] | None:
    named = (run.get("conf") or {}).get(PARENT_RUN)
    if not isinstance(named, Mapping) or not {"dag_id", "dag_run_id"} <= named.keys():
        return None
    return str(named["dag_id"]), str(named["dag_run_id"])


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{part(dag_id)}/dagRuns/{part(run_id)}"


def _instance_path(task: TaskKey) -> str:
    path = f"{_run_path(task.dag_id, task.dag_run_id)}/taskInstances/{part(task.task_id)}"
    return path if task.map_index < 0 else f"{path}/{task.map_index}"


def _question_path(task: TaskKey) -> str:
    run = _run_path(task.dag_id, task.dag_run_id)
    return f"{run}/taskInstances/{part(task.task_id)}/{task.map_index}/hitlDetails"
