"""Run an event trigger as the triggerer does, with Airflow's own accessors to the state of its assets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    AssetStateStoreResult,
    ErrorResponse,
    GetAssetStateStoreByName,
    OKResponse,
    SetAssetStateStoreByName,
)
from airflow.sdk.execution_time.context import AssetStateStoreAccessors

from airflow_mcp.triggers.watch import STATE_KEY, WatchTrigger

DEADLINE_SECONDS = 60


@dataclass
class StateOfAssets:
    """Airflow's state of assets: answers what the accessors send to the supervisor."""

    values: dict[tuple[str, str], Any] = field(default_factory=dict)
    is_silent: bool = False

    async def asend(self, message: Any) -> Any:
        if self.is_silent:
            raise ConnectionError("the API server does not answer")
        if isinstance(message, SetAssetStateStoreByName):
            self.values[message.name, message.key] = message.value
            return OKResponse(ok=True)
        if isinstance(message, GetAssetStateStoreByName):
            if (message.name, message.key) not in self.values:
                return ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)
            return AssetStateStoreResult(value=self.values[message.name, message.key])
        return None

    def mark(self, asset: str = "asset") -> str:
        """Give the mark that is kept for an asset."""
        return str(self.values[asset, STATE_KEY]["mark"])


@dataclass
class Watching:
    """A trigger that runs."""

    trigger: WatchTrigger
    events: list[dict[str, Any]] = field(default_factory=list)
    looks: int = 0

    async def more_looks(self, number: int = 2) -> None:
        """Wait for complete looks: the second one to begin after now has seen what is there now."""
        goal = self.looks + number
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.looks < goal:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def event(self, number: int) -> dict[str, Any]:
        """Wait for an event; the first has number 1."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(self.events) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.events[number - 1]


@asynccontextmanager
async def watching(
    trigger: WatchTrigger, state: StateOfAssets, monkeypatch: pytest.MonkeyPatch, assets: tuple[str, ...] = ("asset",)
) -> AsyncIterator[Watching]:
    """Run a trigger, quickly, until the block ends: then it is cancelled as when the triggerer stops."""
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", state, raising=False)
    trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name) for name in assets])
    trigger.poll_seconds, trigger.settle_seconds = 0.01, 0.0
    seen, look = Watching(trigger), trigger.look

    async def counted() -> Any:
        seen.looks += 1
        return await look()

    monkeypatch.setattr(trigger, "look", counted)

    async def run() -> None:
        async for event in trigger.run():
            seen.events.append(event.payload)

    task = asyncio.create_task(run())
    try:
        yield seen
        assert not task.done(), "a watch never ends by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
