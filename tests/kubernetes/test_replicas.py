"""Training on several pods: they find each other, conclude one MLflow run, and end together whatever happens."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.serde import deserialize

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from tests.kubernetes.cluster import PodWorld, shell, training, wait_for
from tests.support.forked import ForkedTask
from tests.support.task_harness import TaskOutcome

MEET = """
import os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    met, server = set(), socket.create_server(where)
    while len(met) < size - 1:
        other, _ = server.accept()
        met.add(other.recv(100))
    assert met == {b"rank 1", b"rank 2"}, met
else:
    assert "MLFLOW_RUN_ID" not in os.environ and os.environ["AIRFLOW_MCP_RUN_ID"], "could end the run"
    while True:
        try:
            with socket.create_connection(where, timeout=2) as connection:
                connection.sendall(b"rank %d" % rank)
            break
        except OSError:
            time.sleep(0.2)
    raise SystemExit(0)
"""
"""Rank 0 waits until it has met all others, by plain sockets, and goes on to train a model; the others end."""
GROUP: dict[str, Any] = {"replicas": 3, "rendezvous_port": 29600, "termination_grace_period": 0}
BOTH_MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferred"])


def failing_at(rank: int) -> list[str]:
    """Write a training in which one rank fails, and for which the others wait."""
    program = f"import os, sys\nif os.environ['RANK'] == '{rank}': print('no more data'); sys.exit(7)\n"
    return training(before=program + MEET)


def names(world: PodWorld, phase: str = "") -> set[str]:
    pods = world.cluster.pods(world.dag_id)
    return {pod.metadata.name for pod in pods if phase in ("", pod.status.phase)}


def in_the_background(world: PodWorld, command: list[str]) -> tuple[ForkedTask, set[str]]:
    """Run a training in a process of its own, and wait until every rank runs."""

    def run() -> TaskOutcome:
        outcome = world.train(command, kubernetes=GROUP)
        return TaskOutcome(outcome.state, outcome.error, outcome.xcom, None, None, None)  # type: ignore[arg-type]

    task = ForkedTask(run)
    wait_for(lambda: len(names(world, "Running")) == 3, "three running pods")
    return task, names(world)


@BOTH_MODES
def test_every_rank_finds_rank_0_and_one_run_is_the_result(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(training(before=MEET), deferrable=deferrable, kubernetes=GROUP)
    assert outcome.state == "success", outcome.error
    world.require_one_result(outcome.result["run_id"])
    started = world.cluster.started(outcome.result["identity"])
    leader = outcome.xcom["pod_name"]
    assert started == {leader, f"{leader}-r1", f"{leader}-r2"}


@BOTH_MODES
def test_a_rank_that_fails_ends_all_and_is_named(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(failing_at(2), deferrable=deferrable, kubernetes=GROUP)
    texts = ("rank 2 of 3 replicas failed", "-r2 on node", "exit code 7", "no more data")
    run = world.require_failure(outcome, *texts)
    assert "rank 2 of 3 replicas failed" in run.tags[contract.TAG_ERROR]


def test_rank_0_that_fails_ends_all_and_a_failed_pod_is_kept_where_asked(world: PodWorld) -> None:
    options = {**GROUP, "on_finish": "keep_failed"}
    outcome = world.see_through(failing_at(0), deferrable=True, kubernetes=options)
    assert "rank 0 of 3 replicas failed" in str(outcome.error)
    assert "exit code 7" in str(outcome.error)
    assert names(world) == {outcome.xcom["pod_name"]}


def test_a_failed_rank_is_kept_without_rank_0_where_asked(world: PodWorld) -> None:
    options = {**GROUP, "on_finish": "keep_failed"}
    outcome = world.see_through(failing_at(1), deferrable=True, kubernetes=options)
    kept = f"{outcome.xcom['pod_name']}-r1"
    assert "rank 1 of 3 replicas failed" in str(outcome.error)
    assert names(world) == {kept}
    assert world.cluster.api.read_namespaced_pod(kept, world.cluster.namespace).metadata.owner_references is None


def test_a_rank_that_is_deleted_ends_all(world: PodWorld) -> None:
    task, pods = in_the_background(world, shell("sleep 300"))
    world.cluster.delete(max(pods), grace_seconds=1)
    run = world.require_failure(task.result(), "rank 2 of 3 replicas failed", f"pod {max(pods)}", "was deleted")
    assert "rank 2 of 3 replicas failed" in run.tags[contract.TAG_ERROR]


def test_a_worker_that_is_killed_is_continued_with_the_whole_group(world: PodWorld) -> None:
    command = training(before=f"import time; time.sleep(10)\n{MEET}")
    task, pods = in_the_background(world, command)
    task.kill(signal.SIGKILL)
    (run,) = world.runs("RUNNING")
    outcome = world.train(command, try_number=2, kubernetes=GROUP)
    assert outcome.state == "success", outcome.error
    world.require_one_result(run.run_id)
    assert world.cluster.started(run.tags[contract.TAG_IDENTITY]) == pods


def test_a_group_that_lost_a_rank_meanwhile_is_replaced_by_a_fresh_one(world: PodWorld) -> None:
    hang = "import os, time\nif os.uname().nodename.endswith('-1'): time.sleep(300)  # rank 0 of the first try\n"
    command = training(before=hang + MEET)
    task, pods = in_the_background(world, command)
    task.kill(signal.SIGKILL)
    world.cluster.delete(max(pods))
    outcome = world.train(command, try_number=2, kubernetes=GROUP)
    assert outcome.state == "success", outcome.error
    assert outcome.xcom["pod_name"].endswith("-2")
    world.require_one_result(outcome.result["run_id"])


def test_the_time_limit_of_airflow_deletes_every_pod(world: PodWorld) -> None:
    outcome = world.train(shell("sleep 300"), execution_timeout=timedelta(seconds=6), kubernetes=GROUP)
    assert outcome.state == "up_for_retry"
    assert names(world) == set()


def test_a_person_who_ends_a_deferred_task_ends_every_pod(world: PodWorld, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = world.train(shell("sleep 300"), deferrable=True, kubernetes=GROUP)
    assert outcome.state == "deferred", outcome.error
    leader = outcome.xcom["pod_name"]
    assert names(world) == {leader, f"{leader}-r1", f"{leader}-r2"}
    assert main(["pods", "list", "--namespace", world.cluster.namespace, "--tracking-uri", world.url]) == 0
    assert capsys.readouterr().out.count(f"belongs to {leader}: ") == 2
    (service,) = [
        item
        for item in world.cluster.api.list_namespaced_service(world.cluster.namespace).items
        if item.metadata.labels["airflow-mcp.io/group"] == leader
    ]
    assert [owner.name for owner in service.metadata.owner_references] == [leader]
    deferral = outcome.supervisor.messages("DeferTask")[-1]
    trigger = import_string(deferral.classpath)(**deserialize(deferral.trigger_kwargs))
    ForkedTask(lambda: asyncio.run(trigger.on_kill())).result()
    wait_for(lambda: names(world) == set(), "the deletion of every pod", seconds=10)


def test_an_evaluation_is_not_replicated(world: PodWorld) -> None:
    outcome = world.evaluate(**GROUP)
    assert outcome.state == "failed"
    assert "kubernetes.replicas must be 1 for 'task'; got 3" in str(outcome.error)
    assert names(world) == set()
