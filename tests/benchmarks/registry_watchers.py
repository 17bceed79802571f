"""One process that watches many models, as the triggerer does; run by test_registry_watch.py in a fresh interpreter."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.triggers.registry import RegistryEventTrigger

CONNECTION = "mlflow_benchmark"
REQUESTS = {"count": 0}


class OneModelTrigger(BaseEventTrigger):
    """The straightforward way: each watcher requests its own model, with the same client."""

    def __init__(self, model: str, poll_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.poll_seconds = model, poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "tests.benchmarks.registry_watchers.OneModelTrigger", {
            "model": self.model,
            "poll_seconds": self.poll_seconds,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        known = None
        while True:
            model = await MlflowHook(CONNECTION).get_registered_model.aio(self.model)
            if known is not None and model != known:
                yield TriggerEvent({"model": model.name})  # type: ignore[no-untyped-call]
            known = model
            await asyncio.sleep(self.poll_seconds)


def watchers(side: str, count: int, poll_seconds: float) -> list[BaseEventTrigger]:
    """Make one watcher per model."""
    names = [f"watched-{number}" for number in range(count)]
    if side == "ours":
        return [
            RegistryEventTrigger(models=name, mlflow_conn_id=CONNECTION, poll_seconds=poll_seconds) for name in names
        ]
    return [OneModelTrigger(name, poll_seconds) for name in names]


async def run(number: int, trigger: BaseEventTrigger, manager: SharedStreamManager, seen: list[float]) -> None:
    """Run one watcher as the triggerer does, and record the times of its events."""
    key = trigger.shared_stream_key()
    if key is None:
        events = trigger.run()
    else:
        events = trigger.filter_shared_stream(manager.subscribe(trigger_id=number, trigger=trigger, key=key))
    async for _ in events:
        seen.append(time.monotonic())
        seq = manager.bind_pending_event(trigger_id=number, key=key)
        if seq is not None:
            manager.confirm_persisted([seq])


async def measure(side: str, count: int, poll_seconds: float, seconds: float) -> dict[str, float]:
    """Measure once all watchers run, then move an alias of every tenth model and wait for all events.

    :param side: ``ours`` or ``peer``.
    :param count: number of models, and of watchers.
    :param poll_seconds: seconds between two looks.
    :param seconds: how long to measure.
    """
    perform = MlflowHook.aperform

    async def counted(hook: MlflowHook, operation: Any) -> Any:
        REQUESTS["count"] += 1
        return await perform(hook, operation)

    MlflowHook.aperform = counted  # type: ignore[method-assign]
    manager, seen = SharedStreamManager(), list[float]()
    tasks = []
    for number, trigger in enumerate(watchers(side, count, poll_seconds)):
        tasks.append(asyncio.create_task(run(number, trigger, manager, seen)))
        await asyncio.sleep(0 if side == "ours" else poll_seconds / count)
    await asyncio.sleep(poll_seconds + 5)
    before, started, cpu = REQUESTS["count"], time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    cpu, taken, asked = time.process_time() - cpu, time.perf_counter() - started, REQUESTS["count"] - before
    changed = range(0, count, 10)
    for number in changed:
        await MlflowHook(CONNECTION).set_alias.aio(f"watched-{number}", "champion", "1")
    async with asyncio.timeout(20 * poll_seconds + 60):
        while len(seen) < len(changed):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"requests": asked / taken * 60, "cpu": cpu / taken * 60, "events": len(seen)}


def main(side: str, url: str, *numbers: str) -> None:
    """Print the figures as JSON."""
    logging.disable(logging.WARNING)
    os.environ["AIRFLOW_CONN_MLFLOW_BENCHMARK"] = json.dumps({"conn_type": "mlflow", "host": url})
    count, poll_seconds, seconds = map(int, numbers)
    print("\n" + json.dumps(asyncio.run(measure(side, count, poll_seconds, seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
