"""The cost of our pods beyond ``kubectl run`` with the same image, and how long they hold a worker slot."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import median, print_table
from tests.kubernetes.cluster import IMAGE, Cluster, PodWorld, training, wait_for
from tests.kubernetes.conftest import HOW_TO_GET_A_CLUSTER, cluster, pod_mlflow, world  # noqa: F401  (fixtures)
from tests.kubernetes.stack import airflow_with_pods
from tests.support.airflow_api import AirflowClient
from tests.support.services import MlflowServer

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.kubernetes,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason=HOW_TO_GET_A_CLUSTER),
]

REPEATS = 5
POD_SECONDS = 60
RUN_TIMEOUT_SECONDS = 300
DEFAULTS = {"poll_interval": 5}
"""Small pods, but with the default interval."""


# --- a no-op training step against kubectl ----------------------------------------------------------------------


def run_with_kubectl(world: PodWorld, number: int) -> float:  # noqa: F811
    """Run the same command with the same image, and return the seconds until the pod has succeeded."""
    run, name = world.new_run(status="RUNNING"), f"peer-{number}"
    variables = {
        "MLFLOW_TRACKING_URI": world.url,
        "AIRFLOW_MCP_RUN_ID": run.run_id,
        "MLFLOW_EXPERIMENT_ID": run.experiment_id,
    }
    command = ["kubectl", "run", name, "--namespace", world.cluster.namespace, "--image", IMAGE, "--restart=Never"]
    command += ["--image-pull-policy=IfNotPresent", *(f"--env={key}={value}" for key, value in variables.items())]
    started = time.perf_counter()
    subprocess.run([*command, "--command", "--", *training()], check=True, capture_output=True)
    wait_for(lambda: world.cluster.phase(name) == "Succeeded", f"the end of pod {name}")
    taken = time.perf_counter() - started
    world.cluster.delete(name)
    return taken


def run_as_task(world: PodWorld, number: int, *, deferrable: bool) -> float:  # noqa: F811
    """Run a training task in a pod and return its seconds; every task has its own inputs."""
    started = time.perf_counter()
    outcome = world.see_through(deferrable=deferrable, dag_run_id=f"run-{number}", kubernetes=DEFAULTS)
    taken = time.perf_counter() - started
    assert outcome.state == "success", outcome.error
    return taken


def test_a_training_that_does_nothing_takes_little_longer_than_kubectl_run(world: PodWorld) -> None:  # noqa: F811
    times: dict[str, list[float]] = {}
    for number in range(REPEATS + 1):
        found = {
            "`kubectl run`": run_with_kubectl(world, number),
            "ours, sync": run_as_task(world, 2 * number, deferrable=False),
            "ours, deferred": run_as_task(world, 2 * number + 1, deferrable=True),
        }
        if number:  # the first round warms up
            for name, taken in found.items():
                times.setdefault(name, []).append(taken)
    peer = median(times["`kubectl run`"])
    rows = [
        [name, f"{median(taken):.1f}", f"{median(taken) - peer:+.1f}", f"{min(taken):.1f}", f"{max(taken):.1f}"]
        for name, taken in times.items()
    ]
    head = ["no-op training", "median s", "more than kubectl, s", "best", "worst"]
    print_table(f"A training that does nothing, until its pod has succeeded, {REPEATS} times", head, rows)
    assert {len(taken) for taken in times.values()} == {REPEATS}


# --- worker slots ------------------------------------------------------------------------------------------------


def slot_seconds(api: AirflowClient, dag_id: str) -> tuple[float, float]:
    """Run a Dag of one task; return the seconds that it held a worker slot, and the seconds from start to end."""
    run_id = api.trigger(dag_id)
    seen: list[tuple[float, str | None]] = []
    deadline = time.monotonic() + RUN_TIMEOUT_SECONDS
    while not seen or seen[-1][1] not in ("success", "failed"):
        assert time.monotonic() < deadline, seen[-1]
        (state,) = api.task_states(dag_id, run_id).values()
        seen.append((time.monotonic(), state))
        time.sleep(0.1)
    assert seen[-1][1] == "success", api.task_log(dag_id, run_id, dag_id)
    held = sum(after[0] - before[0] for before, after in itertools.pairwise(seen) if before[1] == "running")
    first = next(moment for moment, state in seen if state == "running")
    return held, seen[-1][0] - first


def test_a_deferred_pod_holds_a_worker_slot_for_seconds_only(
    cluster: Cluster,  # noqa: F811
    pod_mlflow: MlflowServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    command = training(before=f"import time; time.sleep({POD_SECONDS})")
    tasks = {name: {name: command} for name in ("deferred", "sync")}
    found: dict[str, list[Any]] = {"deferred": [], "sync": []}
    stack = airflow_with_pods(cluster, pod_mlflow.url, tmp_path, tasks, experiment="slots", **DEFAULTS)
    with stack as airflow, airflow.api() as api:
        for dag_id in tasks:
            api.wait_for_dag(dag_id)
        for dag_id in ("deferred", "sync", "deferred"):
            found[dag_id].append(slot_seconds(api, dag_id))
    rows = [
        [name, *(" and ".join(f"{value:.1f}" for value in column) for column in zip(*figures, strict=True))]
        for name, figures in found.items()
    ]
    head = ["a pod of 60 s", "worker slot held, s", "from start to end, s"]
    print_table("Worker slots, a real Airflow with LocalExecutor", head, rows)
    assert all(found.values())
