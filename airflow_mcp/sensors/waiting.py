"""Base of the sensors: look once, wait in the triggerer, and return what the trigger found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_mcp.exceptions import (
    GitAuthError,
    InvalidArgumentError,
    MlflowAuthError,
    ModelControlPlaneError,
)
from airflow_mcp.operators.base import ModelControlOperator, is_deferrable, no_result
from airflow_mcp.triggers.goal import GoalTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.triggers.watch import PollingTrigger

SHORTEST_POLL_SECONDS = 1.0


class WaitingSensor(ModelControlOperator, BaseSensorOperator):
    """Base of sensors that look once and then wait, in the triggerer or as Airflow's sensors do.

    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = is_deferrable(deferrable)

    def goal_trigger(self) -> PollingTrigger:
        """Return the trigger for the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        raise TypeError(f"{type(self).__name__} does not implement goal_trigger()")

    def look(self) -> dict[str, Any] | None:
        """Look once, as the trigger does; return None when the goal is not reached yet."""
        trigger = self.goal_trigger()
        if not isinstance(trigger, GoalTrigger):
            raise TypeError(f"{type(self).__name__} does not implement look()")
        return asyncio.run(trigger.find())

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the XCom of the task for what was found."""
        return dict(found)

    def act(self, context: Context) -> dict[str, Any]:
        """Look once, and wait if the goal is not reached yet.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        if not self.deferrable:
            found: dict[str, Any] = BaseSensorOperator.execute(self, context)
            return found
        poked = self.poke(context)
        if poked.xcom_value is None:
            self.defer(trigger=self.goal_trigger(), method_name="resume", timeout=timedelta(seconds=self.timeout))
        return dict(poked.xcom_value)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once. If a server does not answer, the sensor logs a warning and looks again later.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises MlflowAuthError: when MLflow refuses the credentials.
        :raises GitAuthError: when the Git repository refuses the credentials.
        """
        subject = self.goal_trigger().subject
        try:
            found = self.look()
        except (InvalidArgumentError, MlflowAuthError, GitAuthError):
            raise
        except ModelControlPlaneError as error:
            self.log.warning("%s cannot be checked now, and is checked again later: %s", subject, error)
            return PokeReturnValue(False)
        return PokeReturnValue(found is not None, None if found is None else self.result(found))

    def resume(self, context: Context, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Continue with what the trigger found.

        :raises InvalidArgumentError: when the trigger was refused.
        :raises FailedError: when the trigger failed or ended without an event.
        """
        with self.at_the_edge():
            if event is None or event.get("status") not in ("found", "refused"):
                raise no_result(event)
            if event["status"] == "refused":
                raise InvalidArgumentError(str(event["message"]))
            return self.result(event["found"])

    @property
    def poll_seconds(self) -> float:
        """Seconds between two checks of the trigger."""
        return max(SHORTEST_POLL_SECONDS, self.poke_interval)
