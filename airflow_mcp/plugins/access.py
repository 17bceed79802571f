"""Who asks, what they may see and do, and whether a write comes from a page of ours."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, Request

from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.panel.actions import ActionName
from airflow_mcp.core.panel.facts import ListRow
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.plugins.permitted import PolicyOnPage
from airflow_mcp.plugins.problems import UNCHANGED, Problem

MAX_BODY_BYTES = 64 * 1024
"""64 KiB: a body holds names, numbers and a reason; models go to MLflow."""
WRITES_PER_MINUTE = 10
"""Per user and process."""
_KEPT_SECONDS = 10.0
"""How long an answer of the auth manager is kept: a page asks about every Dag, every few seconds."""
_JSON = "application/json"
DagRight = Literal["read", "trigger"]


@dataclass(frozen=True)
class Caller:
    """Who makes a request."""

    user: Any
    """The user of Airflow's auth manager."""
    name: str
    token: str = field(repr=False)
    """With which the same request can be made to Airflow."""
    has_header: bool
    """Whether the token came in the header ``Authorization``, which no page of another site can send."""


class AuthManager(Protocol):
    """What is asked about rights on Dags."""

    def may(self, caller: Caller, right: DagRight, dag_id: str) -> bool:
        """Return whether the caller has a right on a Dag."""


class AirflowAuthManager:
    """Rights as Airflow's own auth manager grants them."""

    def may(self, caller: Caller, right: DagRight, dag_id: str) -> bool:
        """Return whether the caller has a right on a Dag; a Dag that Airflow does not know is judged by its ID."""
        method: Literal["GET", "POST"] = "GET" if right == "read" else "POST"
        return bool(
            get_auth_manager().is_authorized_dag(
                method=method,
                access_entity=None if right == "read" else DagAccessEntity.RUN,
                details=DagDetails(id=dag_id, team_name=_team_of_dag(dag_id)),
                user=caller.user,
            )
        )


def _team_of_dag(dag_id: str) -> str | None:
    """Return the team that a Dag belongs to; None without teams, as Airflow's own routes find it.

    :param dag_id: ID of the Dag.
    """
    if not _has_teams():
        return None
    team: str | None = DagModel.get_team_name(dag_id)
    return team


@cache  # 0.1 ms for each of 1,000 Dags, and a server keeps its configuration until it is started again
def _has_teams() -> bool:
    return bool(conf.getboolean("core", "multi_team", fallback=False))


class Access:
    """What callers may see and do; answers are kept for a few seconds.

    :param manager: who decides about Dags.
    :param shows_untagged: whether everybody who is logged in sees models that name no Dag.
    :param policy: the access policy in force; None: there is none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        manager: AuthManager,
        *,
        shows_untagged: bool = True,
        policy: PolicyOnPage | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager, self._shows_untagged, self._clock = manager, shows_untagged, clock
        self.policy = policy or PolicyOnPage()
        self._kept: dict[str, dict[tuple[DagRight, str], tuple[float, bool]]] = {}
        """Answers of the auth manager by token, with their times."""
        self._writes: dict[str, deque[float]] = {}

    def may(self, caller: Caller, right: DagRight, dag_id: str) -> bool:
        """Return whether the caller has a right on a Dag."""
        return self._may(self._answers(caller), self._clock(), caller, right, dag_id)

    def _answers(self, caller: Caller) -> dict[tuple[DagRight, str], tuple[float, bool]]:
        if sum(1 + len(each) for each in self._kept.values()) > 50_000:  # 50 users with 1,000 Dags: forget, not grow
            self._kept.clear()
        return self._kept.setdefault(caller.token, {})

    def _may(
        self,
        answers: dict[tuple[DagRight, str], tuple[float, bool]],
        now: float,
        caller: Caller,
        right: DagRight,
        dag_id: str,
    ) -> bool:
        found = answers.get((right, dag_id))
        if found is None or now - found[0] > _KEPT_SECONDS:
            found = answers[right, dag_id] = (now, self._manager.may(caller, right, dag_id))
        return found[1]

    def visible(self, caller: Caller, rows: Iterable[ListRow]) -> list[ListRow]:
        """Return the rows of the models that the caller may see, as :meth:`sees` decides.

        :param caller: who asks.
        :param rows: rows of all models.
        """
        answers, now, shows_untagged = self._answers(caller), self._clock(), self._shows_untagged
        found = [
            row
            for row in rows
            if (self._may(answers, now, caller, "read", row.dag_id) if row.dag_id else shows_untagged)
        ]
        shows = self.policy.viewer(caller.user, caller.name)
        return found if shows is None else [row for row in found if shows(row.name)]

    def sees(self, caller: Caller, model: str, dag_id: str) -> bool:
        """Return whether the caller may see a model: by their right on its Dag, and by the policy in force.

        :param caller: who asks.
        :param model: name of the model.
        :param dag_id: Dag that trains it; empty for a model that names none.
        """
        may_read = self.may(caller, "read", dag_id) if dag_id else self._shows_untagged
        return may_read and self.policy.shows(caller.user, caller.name, model)

    def refusal(self, caller: Caller, model: RegisteredModel, action: ActionName, dag_id: str) -> Refusal | None:
        """Return why the caller may not act on a model; None when they may.

        :param caller: who asks.
        :param model: the model.
        :param action: the action.
        :param dag_id: Dag that carries it out.
        """
        if dag_id and not self.may(caller, "trigger", dag_id):
            return Refusal("You may not trigger the Dag {dag}.", {"dag": dag_id}, is_right=True)
        return self.policy.why_not(caller.user, caller.name, model, action)

    def count_write(self, caller: Caller) -> None:
        """Count a write.

        :raises Problem: when the caller has made too many within a minute.
        """
        now = self._clock()
        recent = self._writes.setdefault(caller.name, deque())
        while recent and now - recent[0] > 60:
            recent.popleft()
        if len(recent) >= WRITES_PER_MINUTE:
            raise Problem("too-many", f"At most {WRITES_PER_MINUTE} actions a minute. {UNCHANGED}")
        recent.append(now)


def authenticated(
    authenticate: Callable[..., Awaitable[Any]], policy: PolicyOnPage
) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency of every route that needs a login: it keeps the caller in the request's state.

    :param authenticate: Airflow's dependency that returns the user.
    :param policy: read again when it is old, so that the route can ask it.
    """

    async def caller_of(request: Request, user: Any = Depends(authenticate)) -> Caller:  # noqa: B008  (FastAPI's way)
        header = request.headers.get("authorization", "")
        is_bearer = header.lower().startswith("bearer ")
        token = header[7:].strip() if is_bearer else request.cookies.get(COOKIE_NAME_JWT_TOKEN, "")
        caller = Caller(user, str(user.get_name()), token, is_bearer)
        request.state.caller = caller
        await policy.refresh()
        return caller

    return caller_of


async def own_json(request: Request) -> None:
    """Accept a write only as JSON from a page of ours or with a token in its header: the dependency of every write.

    A cookie is sent along by other ports of the same host and by sister hosts too, so it is not enough.

    :raises Problem: when the request comes from elsewhere, is not JSON, or is too large.
    """
    await own_request(request)
    if media_type(request) != _JSON:
        raise Problem("not-json", UNCHANGED)
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise Problem("too-large", f"At most {MAX_BODY_BYTES} bytes, with a Content-Length. {UNCHANGED}")


async def own_request(request: Request) -> None:
    """Accept a write only from a page of ours or with a token in its header, whatever its body.

    :raises Problem: when the request comes from elsewhere.
    """
    has_token = request.headers.get("authorization", "").lower().startswith("bearer ")
    if not has_token and not _is_same_origin(request):
        raise Problem("not-allowed", f"The request does not come from a page of this Airflow. {UNCHANGED}")


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    return bool(origin) and bool(host) and urlsplit(origin).netloc == host
