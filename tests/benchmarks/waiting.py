"""One process that waits for many pods, as the triggerer does; run by test_waiting_pods.py in a fresh interpreter."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml


def resident_kib() -> float:
    """Return the resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def make_trigger(side: str, number: int, arguments: dict[str, Any]) -> Any:
    """Make the trigger that waits for one pod."""
    given = {**arguments, "pod_name": f"pod-{number}", "trigger_start_time": dt.datetime.now(dt.UTC)}
    if side == "ours":
        from airflow_mcp.triggers.pod import WorkloadPodTrigger

        return WorkloadPodTrigger(mlflow_conn_id="mlflow_default", mlflow_run_id="r", **given)
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    return KubernetesPodTrigger(**given)


async def wait_for_event(trigger: Any) -> None:
    """Wait for an event of a trigger, which never comes here."""
    async for event in trigger.run():
        raise RuntimeError(f"{trigger.pod_name}: {event}")


async def measure(
    side: str, kubeconfig: Any, count: int, poll_interval: float, log_interval: int, seconds: float
) -> dict[str, float]:
    """Let triggers wait, and measure once all of them run.

    :param side: ``ours`` or ``peer``.
    :param kubeconfig: content of a file that leads to a cluster where every pod runs.
    :param count: number of triggers.
    :param poll_interval: seconds between two looks at a pod.
    :param log_interval: seconds between two looks at its log; 0 for none.
    :param seconds: how long to measure.
    """
    arguments = {
        "pod_namespace": "default",
        "base_container_name": "base",
        "config_dict": kubeconfig,
        "poll_interval": poll_interval,
        "logging_interval": log_interval or None,
    }
    first = asyncio.create_task(wait_for_event(make_trigger(side, count, arguments)))
    await asyncio.sleep(2)  # by now everything is imported
    gc.collect()
    memory = resident_kib()
    tasks = [first]
    for number in range(count):
        tasks.append(asyncio.create_task(wait_for_event(make_trigger(side, number, arguments))))
        await asyncio.sleep(poll_interval / count)  # tasks do not start all at once either
    await asyncio.sleep(2 * poll_interval)
    started, cpu, late = time.perf_counter(), time.process_time(), 0.0
    while (left := started + seconds - time.perf_counter()) > 0:
        before = time.perf_counter()
        await asyncio.sleep(min(0.1, left))
        late = max(late, time.perf_counter() - before - min(0.1, left))
    cpu, taken = time.process_time() - cpu, time.perf_counter() - started
    gc.collect()
    memory = resident_kib() - memory
    ended = [task for task in tasks if task.done()]
    for task in ended:
        task.result()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"kib": memory / count, "cpu": cpu / taken * 60, "late": late * 1000, "resident": resident_kib() / 1024}


def main(side: str, kubeconfig: str, *numbers: str) -> None:
    """Print the figures as JSON."""
    import logging

    logging.disable(logging.WARNING)
    config = yaml.safe_load(Path(kubeconfig).read_text())
    count, poll_interval, log_interval, seconds = map(int, numbers)
    figures = asyncio.run(measure(side, config, count, poll_interval, log_interval, seconds))
    print("\n" + json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
