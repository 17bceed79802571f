"""Versions of a registered model: an event for each new one or each move of an alias, and one for a sensor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mcp import settings
from airflow_mcp.core.model_goal import ModelGoal
from airflow_mcp.core.watch import Sighting
from airflow_mcp.exceptions import InvalidArgumentError, MlflowAuthError, RefusedError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, Patience, WatchTrigger, checked_poll_seconds

_NEWEST = 20
"""How many versions are looked at for one that is ready."""


class ModelVersionTrigger(WatchTrigger):
    """Watch a registered model in MLflow: where an alias points, or which version is the newest.

    With an alias every move gives an event, also back to an earlier version. Without one, a version gives one event
    when it is ``READY``.

    Payload: ``kind`` (``model``), ``model_name``, ``alias``, ``version``, ``run_id``.

    :param model_name: name of the registered model; it need not exist yet.
    :param alias: alias to watch, for example ``champion``; None watches for new versions.
    :param mlflow_conn_id: connection to MLflow; None takes option ``mlflow_conn_id``.
    :param poll_seconds: seconds between two looks, at least 1.
    """

    def __init__(
        self,
        *,
        model_name: str,
        alias: str | None = None,
        mlflow_conn_id: str | None = None,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        if not model_name:
            raise InvalidArgumentError(f"model_name is {model_name!r}; allowed: the name of a registered model")
        self.model_name, self.alias, self.mlflow_conn_id = model_name, alias, mlflow_conn_id

    @property
    def subject(self) -> str:
        """What is watched, in words."""
        return f"alias {self.alias!r} of model {self.model_name!r}" if self.alias else f"model {self.model_name!r}"

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {name: getattr(self, name) for name in ("model_name", "alias", "mlflow_conn_id")}

    async def look(self) -> Sighting | None:
        """Ask MLflow."""
        hook = MlflowHook(self.mlflow_conn_id or settings.default_mlflow_conn_id())
        versions = await hook.find_model_versions.aio(self.model_name, self.alias or "", max_results=_NEWEST)
        found = next((version for version in versions if self.alias or version.status == "READY"), None)
        if found is None:
            return None
        payload = {
            "kind": "model",
            "model_name": self.model_name,
            "alias": self.alias,
            "version": found.version,
            "run_id": found.run_id,
        }
        return Sighting(found.version, payload, once="" if self.alias else found.version)


class GoalEvent(TypedDict):
    """What a sensor is told."""

    status: Literal["found", "refused", "failed"]
    version: str
    """The version that was found; empty otherwise."""
    message: str
    """What is wrong; empty when one was found."""


class ModelGoalTrigger(BaseTrigger):
    """Wait for a version of a registered model, for the sensors of the registry: one event, and it ends.

    :param goal: what is waited for, as :class:`~airflow_mcp.core.model_goal.ModelGoal` takes it.
    :param mlflow_conn_id: connection to MLflow.
    :param poll_seconds: seconds between two looks, at least 1; longer while MLflow does not answer.
    """

    def __init__(
        self, *, goal: Mapping[str, Any], mlflow_conn_id: str, poll_seconds: float = DEFAULT_POLL_SECONDS
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.goal, self.mlflow_conn_id = dict(goal), mlflow_conn_id
        self.poll_seconds = checked_poll_seconds(poll_seconds)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give class path and arguments for the database."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in ("goal", "mlflow_conn_id", "poll_seconds")}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the goal is met. Only what waiting cannot mend ends it with an error."""
        goal = ModelGoal(**self.goal)
        patience = Patience(goal.describe(), self.log, self.poll_seconds)
        while True:
            try:
                hook = MlflowHook(self.mlflow_conn_id)  # each time: the connection may have been mended
                found = goal.first_met(await hook.find_model_versions.aio(goal.model_name, goal.alias, goal.version))
                if found is not None:
                    yield _event({"status": "found", "version": found.version, "message": ""})
                    return
                wait = patience.succeeded()
            except RefusedError as error:
                yield _event({"status": "refused", "version": "", "message": str(error)})
                return
            except MlflowAuthError as error:
                yield _event({"status": "failed", "version": "", "message": str(error)})
                return
            except Exception as error:
                wait = patience.failed(error)
            await asyncio.sleep(wait)


def _event(payload: GoalEvent) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]
