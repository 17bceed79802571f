"""Trainings as objects of Kubernetes: real Jobs, and TrainJobs and RayJobs whose controllers the test plays.

See controllers.py for what is real. Indexed Jobs need Kubernetes 1.24: where the cluster is older, a Job of one pod is
tested, and that a Job of several is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.serde import deserialize
from kubernetes import client

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from tests.kubernetes.cluster import Cluster, PodWorld, shell, training, wait_for
from tests.kubernetes.controllers import SPECS, Controller, Front
from tests.support.crds import TRAIN_JOB
from tests.support.forked import ForkedTask
from tests.support.task_harness import TaskOutcome

ALL_REDUCE = """
import json, os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
links = []
if rank == 0:
    server = socket.create_server(("", where[1]))
    links = [server.accept()[0].makefile("rw") for _ in range(size - 1)]
else:
    assert "MLFLOW_RUN_ID" not in os.environ and os.environ["AIRFLOW_MCP_RUN_ID"], "could end the run"
    while not links:
        try:
            links = [socket.create_connection(where, timeout=30).makefile("rw")]
        except OSError:
            time.sleep(0.2)

def send(link, values):
    link.write(json.dumps(values) + "\\n")
    link.flush()

def all_reduce(values):
    if rank:
        send(links[0], values)
        return json.loads(links[0].readline())
    parts = [values, *(json.loads(link.readline()) for link in links)]
    total = [sum(each) for each in zip(*parts)]
    for link in links:
        send(link, total)
    return total

data = [(x, 3 * x + 1) for x in range(-10, 11)]
mine, slope, bias = data[rank::size], 0.0, 0.0
for step in range(400):
    errors = [(slope * x + bias - y, x) for x, y in mine]
    grad = all_reduce([sum(e * x for e, x in errors), sum(e for e, _ in errors)])
    slope, bias = slope - grad[0] * 0.001, bias - grad[1] * 0.01
assert abs(slope - 3) < 1e-3 and abs(bias - 1) < 1e-3, (slope, bias)
print(f"rank {rank} of {size}: slope {slope:.3f}, bias {bias:.3f}")
if rank:
    raise SystemExit(0)
"""
"""Data-parallel gradient descent: every rank has a share of the rows, and gradients are summed over sockets."""
BOTH_MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferred"])
QUICK: dict[str, Any] = {"termination_grace_period": 0, "log_interval": 1}
JOB: dict[str, Any] = {**QUICK, "target": "job"}
TRAIN: dict[str, Any] = {**QUICK, "target": "train_job", "replicas": 2}
RAY: dict[str, Any] = {**QUICK, "target": "ray_job", "replicas": 2}


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """The real cluster, with the kinds of Kubeflow Trainer and KubeRay."""
    with Front(os.environ["KUBECONFIG"], tmp_path) as front:
        yield front


@pytest.fixture
def trainer(front: Front, cluster: Cluster) -> Iterator[Controller]:
    with Controller(cluster, front, "train_job") as controller:
        yield controller
    assert controller.errors == []


@pytest.fixture
def ray(front: Front, cluster: Cluster) -> Iterator[Controller]:
    with Controller(cluster, front, "ray_job") as controller:
        yield controller
    assert controller.errors == []


def through(front: Front, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return options of a pod that lead through the front."""
    return {**options, "config_file": str(front.kubeconfig), **changes}


def jobs(world: PodWorld) -> list[str]:
    found = client.BatchV1Api(world.cluster.api.api_client).list_namespaced_job(world.cluster.namespace).items
    return [job.metadata.name for job in found if job.metadata.deletion_timestamp is None]


def in_the_background(world: PodWorld, command: list[str], options: dict[str, Any]) -> ForkedTask:
    """Run a training in a process of its own."""

    def run() -> TaskOutcome:
        outcome = world.train(command, kubernetes=options)
        return TaskOutcome(outcome.state, outcome.error, outcome.xcom, None, None, None)  # type: ignore[arg-type]

    return ForkedTask(run)


def end_by_a_person(outcome: TaskOutcome) -> None:
    deferral = outcome.supervisor.messages("DeferTask")[-1]
    trigger = import_string(deferral.classpath)(**deserialize(deferral.trigger_kwargs))
    ForkedTask(lambda: asyncio.run(trigger.on_kill())).result()


# --- a real Job ----------------------------------------------------------------------------------------------------


@BOTH_MODES
def test_a_job_of_one_pod_trains_and_leaves_nothing(world: PodWorld, deferrable: bool) -> None:
    check = "import os\nassert (os.environ['RANK'], os.environ['WORLD_SIZE']) == ('0', '1')"
    outcome = world.see_through(training(before=check), deferrable=deferrable, kubernetes=JOB, config={"depth": 3})
    assert outcome.state == "success", outcome.error
    wait_for(lambda: world.cluster.pods(world.dag_id) == [] and jobs(world) == [], "the end of the Job")
    world.require_one_result(outcome.result["run_id"])
    digest = world.hook.get_run(outcome.result["run_id"]).tags[contract.TAG_IMAGE_DIGEST]
    assert digest.startswith("sha256:")

    def companions() -> list[str]:
        found = world.cluster.api.list_namespaced_config_map(world.cluster.namespace).items
        return [item.metadata.name for item in found if "-1" in item.metadata.name]

    wait_for(lambda: not companions(), "the end of the ConfigMap")


@BOTH_MODES
def test_a_job_that_fails_is_reported_with_exit_code_and_output(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(shell("echo no more data; exit 7"), deferrable=deferrable, kubernetes=JOB)
    assert outcome.state == "up_for_retry"
    for text in ("Job task-", "BackoffLimitExceeded", "exit code 7", "no more data"):
        assert text in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "FAILED"
    assert jobs(world) == []


def test_workload_timeout_is_the_deadline_of_the_job(world: PodWorld) -> None:
    limit = timedelta(seconds=4)
    outcome = world.see_through(shell("sleep 300"), deferrable=True, kubernetes=JOB, workload_timeout=limit)
    assert "DeadlineExceeded" in str(outcome.error)
    assert "workload_timeout" in str(outcome.error)
    wait_for(lambda: world.cluster.pods(world.dag_id) == [] and jobs(world) == [], "the end of the Job")


@BOTH_MODES
def test_execution_timeout_deletes_the_job(world: PodWorld, deferrable: bool) -> None:
    limit = timedelta(seconds=8)
    outcome = world.see_through(shell("sleep 300"), deferrable=deferrable, kubernetes=JOB, execution_timeout=limit)
    assert outcome.state == "up_for_retry"
    wait_for(lambda: world.cluster.pods(world.dag_id) == [] and jobs(world) == [], "the end of the Job")


def test_a_person_who_ends_a_deferred_task_ends_the_job_and_its_run(
    world: PodWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": world.url}))
    outcome = world.train(shell("sleep 300"), deferrable=True, kubernetes=JOB)
    assert outcome.state == "deferred", outcome.error
    world.cluster.running_pod(world.dag_id)
    end_by_a_person(outcome)
    wait_for(lambda: world.cluster.pods(world.dag_id) == [] and jobs(world) == [], "the end of the Job")
    (run,) = world.runs()
    assert run.status == "KILLED"
    assert "ended by a person" in run.tags[contract.TAG_ERROR]


def test_a_worker_that_is_killed_is_continued_with_the_same_job(world: PodWorld) -> None:
    command = training(before="import time; time.sleep(8)")
    task = in_the_background(world, command, JOB)
    pod = world.cluster.running_pod(world.dag_id)
    task.kill(signal.SIGKILL)
    (run,) = world.runs("RUNNING")
    outcome = world.train(command, try_number=2, kubernetes=JOB)
    assert outcome.state == "success", outcome.error
    assert outcome.result["run_id"] == run.run_id
    assert world.cluster.started(run.tags[contract.TAG_IDENTITY]) == {pod}
    wait_for(lambda: jobs(world) == [], "the end of the Job")


def test_the_sweeper_removes_a_job_with_its_pod(world: PodWorld) -> None:
    outcome = world.train(shell("sleep 300"), deferrable=True, kubernetes=JOB)
    assert outcome.state == "deferred", outcome.error
    world.cluster.running_pod(world.dag_id)
    (run,) = world.runs()
    world.hook.update_run(run.run_id, "KILLED", 1)
    where = ("--namespace", world.cluster.namespace, "--tracking-uri", world.url, "--older-than", "0s", "--yes")
    assert main(["pods", "clean", *where]) == 0
    wait_for(lambda: world.cluster.pods(world.dag_id) == [] and jobs(world) == [], "the end of the Job")


def test_a_job_that_is_deleted_counts_as_lost(world: PodWorld) -> None:
    task = in_the_background(world, shell("sleep 300"), JOB)
    world.cluster.running_pod(world.dag_id)
    (name,) = jobs(world)
    batch = client.BatchV1Api(world.cluster.api.api_client)
    batch.delete_namespaced_job(name, world.cluster.namespace, propagation_policy="Background")
    outcome = task.result()
    assert f"Job {name} is gone" in str(outcome.error)


def test_a_job_of_several_pods_needs_indexes_that_the_cluster_has(world: PodWorld) -> None:
    options = {**JOB, "replicas": 2}
    outcome = world.train(training(before=ALL_REDUCE), kubernetes=options)
    if outcome.state == "success":  # Kubernetes 1.24 or newer
        assert len(world.cluster.started(outcome.result["identity"])) == 2
        return
    assert outcome.state == "failed"
    assert "spec.completionMode" in str(outcome.error)
    assert "Kubernetes 1.24 or newer" in str(outcome.error)
    assert jobs(world) == []
    assert world.cluster.pods(world.dag_id) == []


# --- what cannot run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "needs"), [(TRAIN, "Kubeflow Trainer"), (RAY, "the KubeRay operator")])
def test_a_kind_that_is_not_installed_is_named_with_what_to_install(
    world: PodWorld, options: dict[str, Any], needs: str
) -> None:
    outcome = world.train(kubernetes=options)
    assert outcome.state == "failed"
    assert f"kubernetes.target={options['target']!r} needs" in str(outcome.error)
    assert f"Install {needs}" in str(outcome.error)
    assert world.runs("RUNNING", "FINISHED") == []


def test_an_older_trainer_that_would_drop_fields_is_refused(world: PodWorld, tmp_path: Path) -> None:
    properties = {name: value for name, value in TRAIN_JOB["properties"].items() if name != "runtimePatches"}
    older = {**TRAIN_JOB, "properties": properties}
    with Front(os.environ["KUBECONFIG"], tmp_path, {**SPECS, "train_job": older}) as front:
        outcome = world.train(kubernetes=through(front, TRAIN))
        assert outcome.state == "failed"
        assert "does not know spec.runtimePatches" in str(outcome.error)
        assert front.of("train_job") == []


def test_an_evaluation_has_no_target(world: PodWorld) -> None:
    outcome = world.evaluate(**JOB)
    assert outcome.state == "failed"
    assert "kubernetes.target must be 'pods' for 'task'; got 'job'" in str(outcome.error)


# --- TrainJob -------------------------------------------------------------------------------------------------------


@BOTH_MODES
def test_two_nodes_of_a_train_job_train_one_model_together(
    world: PodWorld, trainer: Controller, deferrable: bool
) -> None:
    outcome = world.see_through(
        training(before=ALL_REDUCE), deferrable=deferrable, kubernetes=through(trainer.front, TRAIN)
    )
    assert outcome.state == "success", outcome.error
    assert len(world.cluster.started(outcome.result["identity"])) == 2
    wait_for(lambda: world.cluster.pods(world.dag_id) == [], "the end of the pods")
    world.require_one_result(outcome.result["run_id"])
    assert trainer.objects() == []


def test_a_node_that_fails_fails_the_train_job_and_is_named(world: PodWorld, trainer: Controller) -> None:
    program = "import os, sys, time\nif os.environ['RANK'] == '1': print('no more data'); sys.exit(7)\ntime.sleep(300)"
    outcome = world.see_through(training(before=program), deferrable=True, kubernetes=through(trainer.front, TRAIN))
    assert outcome.state == "up_for_retry"
    for text in ("TrainJob task-", "JobSetFailed", "-node-0-1-", "exit code 7", "no more data"):
        assert text in str(outcome.error)
    assert trainer.objects() == []
    again = world.see_through(
        training(), deferrable=True, try_number=2, kubernetes=through(trainer.front, TRAIN, replicas=1)
    )
    assert again.state == "success", again.error


def test_a_queued_train_job_waits_and_is_not_failed(world: PodWorld, trainer: Controller) -> None:
    trainer.is_admitting = False
    timeout = 10  # longer than a busy controller needs to see the job
    options = through(trainer.front, TRAIN, queue="team-a", schedule_timeout=timeout)
    task = in_the_background(world, training(before=ALL_REDUCE), options)

    def is_suspended() -> bool:
        conditions = [(found.get("status") or {}).get("conditions") or [{}] for found in trainer.objects()]
        return any(items[0].get("type") == "Suspended" for items in conditions)

    wait_for(is_suspended, "the queue")
    time.sleep(timeout + 1)
    assert world.cluster.pods(world.dag_id) == []
    assert not task.has_ended()
    trainer.is_admitting = True
    outcome = task.result()
    assert outcome.state == "success", outcome.error


def test_a_train_job_without_a_controller_does_not_wait_for_ever(world: PodWorld, front: Front) -> None:
    outcome = world.see_through(deferrable=True, kubernetes=through(front, TRAIN, schedule_timeout=3))
    assert outcome.state == "up_for_retry"
    assert "it has no pods after 3 s. Check that its controller runs" in str(outcome.error)


# --- RayJob ---------------------------------------------------------------------------------------------------------


@BOTH_MODES
def test_a_ray_job_runs_its_driver_once_and_its_output_is_the_log(
    world: PodWorld, ray: Controller, deferrable: bool
) -> None:
    check = "import os\nassert 'RANK' not in os.environ and os.environ['WORLD_SIZE'] == '2'\nprint('it\\'s \"$HOME\"')"
    outcome = world.see_through(
        training(before=check), deferrable=deferrable, kubernetes=through(ray.front, RAY), config={"depth": 3}
    )
    assert outcome.state == "success", outcome.error
    started = world.cluster.started(outcome.result["identity"])
    assert {name.rpartition("-1-")[2] for name in started} == {"head", "submit", "worker-0"}
    wait_for(lambda: world.cluster.pods(world.dag_id) == [], "the end of the pods")
    world.require_one_result(outcome.result["run_id"])
    assert ray.objects() == []


def test_a_ray_job_that_fails_is_reported_with_its_message_and_output(world: PodWorld, ray: Controller) -> None:
    outcome = world.see_through(shell("echo no more data; exit 7"), deferrable=True, kubernetes=through(ray.front, RAY))
    assert outcome.state == "up_for_retry"
    for text in ("RayJob task-", "AppFailed", "exit code 7", "no more data"):
        assert text in str(outcome.error)
    assert ray.objects() == []


def test_a_person_who_ends_a_deferred_ray_job_deletes_all_of_it(world: PodWorld, ray: Controller) -> None:
    outcome = world.train(shell("sleep 300"), deferrable=True, kubernetes=through(ray.front, RAY))
    assert outcome.state == "deferred", outcome.error
    wait_for(lambda: len(world.cluster.running(world.dag_id)) == 2, "head and worker")
    end_by_a_person(outcome)
    wait_for(lambda: ray.objects() == [] and world.cluster.pods(world.dag_id) == [], "the end of everything")
