"""Run event triggers that share a stream as the triggerer does, with Airflow's own manager of shared streams.

What the triggerer's parent process does is done here: it stores events and says so. Every effect on the outside passes
a :class:`Fuse`, at which the whole triggerer can be made to die.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.context import AssetStateStoreAccessors
from airflow.triggers.base import BaseEventTrigger
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.triggers import registry_watch
from tests.support.watching import DEADLINE_SECONDS, StateOfAssets


@dataclass
class Fuse:
    """Lets so many effects happen, then none."""

    effects: int | None = None
    """None: it never blows."""
    blown: asyncio.Event = field(default_factory=asyncio.Event)
    passed: list[str] = field(default_factory=list)

    async def pass_(self, name: str) -> None:
        """Let an effect happen; a dead process waits for ever."""
        if self.effects is not None and len(self.passed) >= self.effects:
            self.blown.set()
            await asyncio.Event().wait()
        self.passed.append(name)


@dataclass
class Triggerer:
    """One life of a triggerer."""

    stored: list[dict[str, Any]]
    """Changes in the events that Airflow has stored, in all lives."""
    manager: SharedStreamManager = field(default_factory=SharedStreamManager)
    fuse: Fuse = field(default_factory=Fuse)
    requests: list[str] = field(default_factory=list)
    """What MLflow was asked."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, trigger: BaseEventTrigger, asset: str) -> None:
        """Run a trigger for an asset."""
        trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(asset)])
        self.tasks.append(asyncio.create_task(self._run(len(self.tasks), trigger)))

    async def _run(self, number: int, trigger: BaseEventTrigger) -> None:
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                seq = self.manager.bind_pending_event(trigger_id=number, key=key)
                assert seq is not None, "the stream waits for every event to be stored"
                await self.fuse.pass_("store")
                self.stored += event.payload["changes"]
                await self.fuse.pass_("confirm")
                self.manager.confirm_persisted([seq])
        finally:
            await self.manager.unsubscribe(number, key)

    async def until(self, is_so: Any) -> None:
        """Wait until something is so, or the fuse has blown."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (is_so() or self.fuse.blown.is_set()):
                for task in self.tasks:
                    assert not task.done(), task.exception() if not task.cancelled() else "a watcher was cancelled"
                await asyncio.sleep(0.01)

    async def looks(self, number: int = 2) -> None:
        """Wait for complete looks at the registry: the second to begin after now has seen what is there now."""
        goal = self.requests.count("search registered models") + number + 1
        await self.until(lambda: self.requests.count("search registered models") >= goal)


@asynccontextmanager
async def triggerer(
    triggers: Iterable[BaseEventTrigger],
    state: StateOfAssets,
    stored: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    fuse: Fuse | None = None,
    poll_seconds: float = 0.05,
) -> AsyncIterator[Triggerer]:
    """Live once: all runs until the block ends, then the process is gone. Assets are named ``asset-0`` and on."""
    running = Triggerer(stored, fuse=fuse or Fuse())
    perform = MlflowHook.aperform

    async def asked(hook: MlflowHook, operation: Any) -> Any:
        await running.fuse.pass_("ask MLflow")
        running.requests.append(operation.__name__.replace("_", " "))
        return await perform(hook, operation)

    class Comms:
        async def asend(self, message: Any) -> Any:
            await running.fuse.pass_(type(message).__name__)
            return await state.asend(message)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowHook, "aperform", asked)
        patched.setattr(registry_watch, "GATHER_SECONDS", min(poll_seconds, 0.05))
        patched.setattr(task_runner, "SUPERVISOR_COMMS", Comms(), raising=False)
        for number, trigger in zip(itertools.count(), triggers, strict=False):
            trigger.poll_seconds = poll_seconds  # type: ignore[attr-defined]
            running.start(trigger, f"asset-{number}")
        try:
            yield running
        finally:
            for task in running.tasks:
                task.cancel()
            await asyncio.gather(*running.tasks, return_exceptions=True)
            await running.manager.stop_all()
