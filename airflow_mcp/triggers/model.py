"""Trigger that ends when a registered model has the version that a sensor waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.events import RegistryScope
from airflow_mcp.core.registry.goal import ModelGoal
from airflow_mcp.exceptions import MlflowAuthError, RefusedError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.triggers.goal import goal_event
from airflow_mcp.triggers.registry_watch import FailedLook, Interest, Look, RegistryWatch
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, Patience, PollingTrigger


def found_version(version: ModelVersion) -> dict[str, Any]:
    """Return a version as plain JSON."""
    return {"version": version.version, "model_uri": version.uri, "run_id": version.run_id}


class ModelGoalTrigger(PollingTrigger):
    """Wait for a version of a registered model, for the sensors of the registry; gives one event and ends.

    :param goal: the awaited version, with the arguments of :class:`~airflow_mcp.core.registry.goal.ModelGoal`.
    :param mlflow_conn_id: connection to MLflow.
    :param poll_seconds: seconds between two looks, at least 1; longer while MLflow does not answer.
    """

    def __init__(
        self, *, goal: Mapping[str, Any], mlflow_conn_id: str, poll_seconds: float = DEFAULT_POLL_SECONDS
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.goal, self.mlflow_conn_id = dict(goal), mlflow_conn_id

    @property
    def subject(self) -> str:
        """The awaited version in words, for messages."""
        return ModelGoal(**self.goal).describe()

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        return {"goal": self.goal, "mlflow_conn_id": self.mlflow_conn_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the goal is met; ends early only with an error that waiting cannot fix.

        All triggers of this process share the looks at the registry; a version that may be the goal is read once more.
        """
        goal = ModelGoal(**self.goal)
        patience = Patience(self.subject, self.log, self.poll_seconds)
        interest = Interest(RegistryScope.of([goal.model_name]), self.poll_seconds, with_versions=bool(goal.tags))
        looks: asyncio.Queue[Look | FailedLook] = asyncio.Queue()
        watch = RegistryWatch.of(self.mlflow_conn_id)
        with watch.interested(interest), watch.heard(looks.put_nowait):
            while True:
                look = await looks.get()
                wait = look.wait if isinstance(look, FailedLook) else self.poll_seconds
                try:
                    if isinstance(look, FailedLook):
                        raise look.error
                    found = await self._find(goal, look) if look.covers(interest) else None
                    patience.tell_end()
                except RefusedError as error:
                    yield goal_event("refused", message=str(error))
                    return
                except MlflowAuthError as error:
                    yield goal_event("failed", message=str(error))
                    return
                except Exception as error:
                    patience.tell(error, wait)
                    continue
                if found is not None:
                    yield goal_event("found", found=found_version(found))
                    return

    async def _find(self, goal: ModelGoal, look: Look) -> ModelVersion | None:
        model = look.models.get(goal.model_name)
        if model is None or not goal.may_be_met_by(model):
            return None
        version = goal.version
        if goal.tags and not goal.alias:
            versions = look.versions.get(model.name, {})
            newest = goal.first_met(versions[number] for number in sorted(versions, reverse=True))
            if newest is None:
                return None
            version = newest.version
        hook = MlflowHook(self.mlflow_conn_id)
        return goal.first_met(await hook.find_model_versions.aio(goal.model_name, goal.alias, version))
