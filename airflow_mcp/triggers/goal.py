"""The base of triggers for sensors: look until the goal is reached, give one event, and end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Literal, TypedDict

from airflow.triggers.base import TriggerEvent

from airflow_mcp.exceptions import GitAuthError, InvalidArgumentError, MlflowAuthError
from airflow_mcp.triggers.watch import Patience, PollingTrigger


class GoalEvent(TypedDict):
    """The event that a sensor resumes with."""

    status: Literal["found", "refused", "failed"]
    found: dict[str, Any]
    """The result as plain JSON; empty otherwise."""
    message: str
    """The error; empty when the goal was reached."""


def goal_event(
    status: Literal["found", "refused", "failed"], *, found: dict[str, Any] | None = None, message: str = ""
) -> TriggerEvent:
    """Return the event of such a trigger; its payload is a :class:`GoalEvent`."""
    payload: GoalEvent = {"status": status, "found": found or {}, "message": message}
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]


class GoalTrigger(PollingTrigger):
    """Look until the goal is reached; ends early only with an error that waiting cannot fix."""

    @abstractmethod
    async def find(self) -> dict[str, Any] | None:
        """Return the result as plain JSON; None when the goal is not reached yet."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the goal is reached; gives one event."""
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
