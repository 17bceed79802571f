"""What the triggers of sensors share: look until it is there, give one event, and end."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Literal, TypedDict

from airflow.triggers.base import TriggerEvent

from airflow_mcp.exceptions import GitAuthError, InvalidArgumentError, MlflowAuthError
from airflow_mcp.triggers.watch import Patience, PollingTrigger


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


class GoalTrigger(PollingTrigger):
    """Look until something is there: one event, and it ends. Only what waiting cannot mend ends it with an error."""

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
