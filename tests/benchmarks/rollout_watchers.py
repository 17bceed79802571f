"""One process that waits for rollouts, as triggerer or as task; run by test_rollout.py in a fresh interpreter."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from typing import Any

from tests.benchmarks.waiting import resident_kib


def make_trigger(arguments: dict[str, Any], poll_seconds: float) -> Any:
    """Make the trigger that waits for the next step of a rollout."""
    from airflow_mcp.triggers.rollout import RolloutStepTrigger

    return RolloutStepTrigger(**{**arguments, "poll_seconds": poll_seconds})


async def wait_for_event(trigger: Any) -> None:
    """Wait for an event of a trigger, which never comes here."""
    async for event in trigger.run():
        raise RuntimeError(f"{trigger.subject}: {event}")


async def measure(arguments: dict[str, Any], count: int, poll_seconds: float, seconds: float) -> dict[str, float]:
    """Let triggers wait, and measure once all of them run.

    :param arguments: of the trigger; all of them wait for the same rollout, and each looks by itself.
    :param count: number of triggers.
    :param poll_seconds: seconds between two looks.
    :param seconds: how long to measure.
    """
    tasks = [asyncio.create_task(wait_for_event(make_trigger(arguments, poll_seconds)))]
    await asyncio.sleep(3)  # by now everything is imported
    gc.collect()
    before = resident_kib()
    for _ in range(count - 1):
        tasks.append(asyncio.create_task(wait_for_event(make_trigger(arguments, poll_seconds))))
        await asyncio.sleep(poll_seconds / count)  # tasks do not start all at once either
    await asyncio.sleep(poll_seconds)
    started, cpu, late = time.perf_counter(), time.process_time(), 0.0
    while (left := started + seconds - time.perf_counter()) > 0:
        turn = time.perf_counter()
        await asyncio.sleep(min(0.1, left))
        late = max(late, time.perf_counter() - turn - min(0.1, left))
    cpu, taken = time.process_time() - cpu, time.perf_counter() - started
    gc.collect()
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "kib": (resident_kib() - before) / max(1, count - 1),
        "cpu": cpu / taken * 3600,
        "late": late * 1000,
        "resident": resident_kib() / 1024,
    }


def main(arguments: str, *numbers: str) -> None:
    """Print the figures as JSON."""
    logging.disable(logging.WARNING)
    count, poll_seconds, seconds = map(int, numbers)
    print("\n" + json.dumps(asyncio.run(measure(json.loads(arguments), count, poll_seconds, seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
