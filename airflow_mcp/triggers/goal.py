"""What the triggers of sensors share: look until it is there, give one event, and end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Literal, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mcp.exceptions import GitAuthError, InvalidArgumentError, MlflowAuthError
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS, Patience, checked_poll_seconds


class GoalEvent(TypedDict):
    """What a sensor is told."""

    status: Literal["found", "refused", "failed"]
    found: dict[str, Any]
    """What was found, as plain JSON; empty otherwise."""
    message: str
    """What is wrong; empty when something was found."""


def goal_event(
    status: Literal["found", "refused", "failed"], *, found: dict[str, Any] | None = None, message: str = ""
) -> TriggerEvent:
    """Make the one event of such a trigger; its payload is a :class:`GoalEvent`."""
    payload: GoalEvent = {"status": status, "found": found or {}, "message": message}
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]


class SensorTrigger(BaseTrigger):
    """Wait for a sensor: one event, and it ends.

    :param poll_seconds: seconds between two looks, at least 1; longer while looking fails.
    """

    def __init__(self, *, poll_seconds: float = DEFAULT_POLL_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poll_seconds = checked_poll_seconds(poll_seconds)

    @property
    @abstractmethod
    def subject(self) -> str:
        """What is waited for, in words."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Give the arguments of the constructor, without ``poll_seconds``."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give class path and arguments for the database."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {**self.arguments(), "poll_seconds": self.poll_seconds}


class GoalTrigger(SensorTrigger):
    """Look until something is there. Only what waiting cannot mend ends it with an error."""

    @abstractmethod
    async def find(self) -> dict[str, Any] | None:
        """Look once; None when it is not there yet."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there."""
        patience = Patience(self.subject, self.log, self.poll_seconds)
        while True:
            try:
                found = await self.find()
                if found is not None:
                    yield goal_event("found", found=found)
                    return
                wait = patience.succeeded()
            except InvalidArgumentError as error:
                yield goal_event("refused", message=str(error))
                return
            except (MlflowAuthError, GitAuthError) as error:
                yield goal_event("failed", message=str(error))
                return
            except Exception as error:
                wait = patience.failed(error)
            await asyncio.sleep(wait)
