"""What sensors share that wait in the triggerer: look once, defer, and go on with what the trigger found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mcp.exceptions import (
    FailedError,
    GitAuthError,
    InvalidArgumentError,
    MlflowAuthError,
    ModelControlPlaneError,
)
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.triggers.goal import GoalTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.triggers.watch import PollingTrigger

SHORTEST_POLL_SECONDS = 1.0


class WaitingSensor(ModelControlOperator, BaseSensorOperator):
    """Base of sensors that look once and then wait, in the triggerer or by Airflow's own way of a sensor.

    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = (
            conf.getboolean("operators", "default_deferrable", fallback=False) if deferrable is None else deferrable
        )

    def goal_trigger(self) -> PollingTrigger:
        """Read the rendered arguments into the trigger that waits for the goal.

        :raises InvalidArgumentError: when one of them is not usable.
        """
        raise TypeError(f"{type(self).__name__} does not implement goal_trigger()")

    def look(self) -> dict[str, Any] | None:
        """Look once, as the trigger does; None when it is not there yet."""
        trigger = self.goal_trigger()
        if not isinstance(trigger, GoalTrigger):
            raise TypeError(f"{type(self).__name__} does not implement look()")
        return asyncio.run(trigger.find())

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Say what was found; this is what the task returns."""
        return dict(found)

    def act(self, context: Context) -> dict[str, Any]:
        """Look once; when it is not there yet, wait.

        :raises InvalidArgumentError: when an argument is not usable.
        """
        if not self.deferrable:
            found: dict[str, Any] = BaseSensorOperator.execute(self, context)
            return found
        poked = self.poke(context)
        if poked.xcom_value is None:
            self.defer(trigger=self.goal_trigger(), method_name="resume", timeout=timedelta(seconds=self.timeout))
        return dict(poked.xcom_value)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; that the place cannot be looked at now is not the end, and the sensor looks again.

        :raises InvalidArgumentError: when an argument is not usable.
        :raises MlflowAuthError: when MLflow refuses the credentials.
        :raises GitAuthError: when the repository refuses them.
        """
        subject = self.goal_trigger().subject
        try:
            found = self.look()
        except (InvalidArgumentError, MlflowAuthError, GitAuthError):
            raise
        except ModelControlPlaneError as error:
            self.log.warning("%s cannot be looked at now: %s", subject, error)
            return PokeReturnValue(False)
        return PokeReturnValue(found is not None, None if found is None else self.result(found))

    def resume(self, context: Context, event: Mapping[str, Any] | None) -> dict[str, Any]:
        """Go on with what the trigger found.

        :raises InvalidArgumentError: when the trigger was refused.
        :raises FailedError: when it could not go on, or gave no event.
        """
        with self.at_the_edge():
            if event is None or event.get("status") not in ("found", "refused"):
                raise FailedError(str((event or {}).get("message") or f"the trigger ended with {event!r}"))
            if event["status"] == "refused":
                raise InvalidArgumentError(str(event["message"]))
            return self.result(event["found"])

    @property
    def poll_seconds(self) -> float:
        """Seconds between two looks of the trigger."""
        return max(SHORTEST_POLL_SECONDS, self.poke_interval)
