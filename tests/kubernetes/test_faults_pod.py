"""Pods that fail, are killed, evicted, deleted or never start: the task says so precisely and leaves nothing behind."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.workload.container_log import ANNOTATION_LOG_POSITION
from tests.kubernetes.cluster import HOLD, PodWorld, let_go, shell, training, wait_for
from tests.support.forked import ForkedTask
from tests.support.task_harness import TaskOutcome

OUTAGE_SECONDS = 20
LONG_RUN = shell("echo started; sleep 300")
EACH_MODE = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferred"])


def test_a_pod_that_is_evicted_says_why(world: PodWorld) -> None:
    template = world.folder / "pod.yaml"
    template.write_text(
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: base\n    image: x\n"
        "    volumeMounts: [{name: bounded, mountPath: /bounded}]\n"
        "  volumes: [{name: bounded, emptyDir: {sizeLimit: 1Mi}}]\n"
    )
    fill = shell("echo filling; head -c 20000000 /dev/zero > /bounded/data; sleep 300")
    outcome = world.see_through(fill, deferrable=True, kubernetes={"pod_template_file": str(template)})
    run = world.require_failure(outcome, "Evicted", "exceeds the limit", "a retry may run elsewhere")
    assert "Evicted" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


@EACH_MODE
def test_a_script_that_fails_shows_pod_code_and_last_lines(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(deferrable=deferrable, command=shell("echo epoch 1; echo out of range: 7 >&2; exit 3"))
    run = world.require_failure(outcome, "ended with exit code 3", "epoch 1", "out of range: 7")
    assert run.tags[contract.TAG_IMAGE_DIGEST].startswith("sha256:")
    world.require_clean_retry()


def test_a_script_that_ends_well_but_logs_nothing(world: PodWorld) -> None:
    outcome = world.train(shell("echo nothing learnt"))
    (run,) = world.runs()
    assert outcome.state == "up_for_retry"
    assert f"its MLflow run {run.run_id} is RUNNING, not FINISHED" in str(outcome.error)
    assert run.status == "FAILED"
    assert world.cluster.pods(world.dag_id) == []
    world.require_clean_retry()


def test_a_pod_out_of_memory_names_the_limit_as_the_cause(world: PodWorld) -> None:
    hungry = "print('allocating', flush=True); blocks = [bytearray(2**20) for _ in range(512)]"
    command = ["python", "-I", "-S", "-c", hungry]
    outcome = world.see_through(command, deferrable=True, workload_resources={"memory": "32Mi"})
    texts = ("ended with exit code 137, OOMKilled", "its memory limit is too small", "allocating")
    run = world.require_failure(outcome, *texts)
    assert "OOMKilled" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


@EACH_MODE
def test_a_pod_that_is_deleted_while_it_runs(world: PodWorld, deferrable: bool) -> None:
    task = in_the_background(world, LONG_RUN, deferrable=deferrable, kubernetes={"log_interval": 1})
    pod = world.cluster.running_pod(world.dag_id)
    if deferrable:
        wait_for(lambda: ANNOTATION_LOG_POSITION in world.cluster.annotations(pod), "the copy of its first line")
    world.cluster.delete(pod, grace_seconds=0 if deferrable else 2)  # the worker needs a moment to open the log
    run = world.require_failure(task.result(), "deleted", "started")
    assert "deleted" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


@EACH_MODE
def test_a_pod_that_no_node_takes_fails_after_its_schedule_timeout(world: PodWorld, deferrable: bool) -> None:
    with world.cluster.cordoned():
        outcome = world.see_through(deferrable=deferrable, kubernetes={"schedule_timeout": 4})
    run = world.require_failure(outcome, "Unschedulable", "no node has room")
    assert "Unschedulable" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


@EACH_MODE
def test_an_image_that_does_not_exist_is_named(world: PodWorld, deferrable: bool) -> None:
    image = "airflow-mcp/no-such-image:1"
    pod = {"startup_timeout": 60, "image_pull_policy": "Never", "on_finish": "keep"}  # what never ran is not kept
    outcome = world.see_through(deferrable=deferrable, image=image, kubernetes=pod)
    run = world.require_failure(outcome, "ErrImageNeverPull", f"image '{image}' cannot be pulled")
    assert "ErrImageNeverPull" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


def test_mlflow_that_the_pod_cannot_reach_fails_the_task_with_the_pods_words(world: PodWorld) -> None:
    connection = {"workload_url": "http://127.0.0.1:9", "retries": 0, "timeout": 20}
    outcome = world.see_through(deferrable=False, extra=connection)
    run = world.require_failure(outcome, "ended with exit code 1", "Connection refused")
    assert "ended with exit code 1" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


def test_a_worker_that_is_killed_while_the_pod_runs_is_continued_by_the_next_try(world: PodWorld) -> None:
    command = training(before="import time; time.sleep(8)")
    task = in_the_background(world, command)
    pod = world.cluster.running_pod(world.dag_id)
    task.kill(signal.SIGKILL)
    assert task.result() is None
    (run,) = world.runs("RUNNING")
    outcome = world.train(command, try_number=2)
    assert outcome.state == "success", outcome.error
    assert outcome.result["run_id"] == run.run_id
    world.require_one_result(run.run_id)
    assert world.cluster.started(run.tags[contract.TAG_IDENTITY]) == {pod}


def test_a_worker_that_is_killed_and_comes_back_after_the_pod_ended_well(world: PodWorld) -> None:
    command = training(before="import time; time.sleep(3)")
    task = in_the_background(world, command)
    pod = world.cluster.running_pod(world.dag_id)
    task.kill(signal.SIGKILL)
    wait_for(lambda: world.cluster.phase(pod) == "Succeeded", "the end of the pod")
    outcome = world.train(command, try_number=2)
    assert outcome.state == "success", outcome.error
    assert world.cluster.started(outcome.result["identity"]) == {pod}
    world.require_one_result(outcome.result["run_id"])


def test_a_pod_that_is_gone_before_its_end_was_seen_counts_by_its_mlflow_run(world: PodWorld) -> None:
    task = in_the_background(world, training(after="import time; time.sleep(300)"))
    pod = world.cluster.running_pod(world.dag_id)
    wait_for(lambda: bool(world.runs("FINISHED")), "a finished run")
    world.cluster.delete(pod)
    outcome = task.result()
    assert outcome.state == "success", outcome.error
    world.require_one_result(outcome.result["run_id"])


def test_a_cluster_that_cannot_be_reached_leaves_pod_and_run_to_the_next_try(world: PodWorld) -> None:
    command = training(before="import time; time.sleep(15)")
    with world.cluster.gated(world.folder) as (gate, kubeconfig):
        task = in_the_background(world, command, kubernetes={"config_file": kubeconfig})
        pod = world.cluster.running_pod(world.dag_id)
        with gate.shut():
            outcome = task.result()
    assert outcome.state == "up_for_retry"
    assert f"pod {pod}: Kubernetes does not answer" in str(outcome.error)
    assert "A retry attaches to it again" in str(outcome.error)
    (run,) = world.runs("RUNNING", "FINISHED")  # the work goes on meanwhile
    assert world.cluster.phase(pod) in ("Running", "Succeeded")
    again = world.train(command, try_number=2)
    assert again.state == "success", again.error
    assert again.result["run_id"] == run.run_id
    assert world.cluster.started(again.result["identity"]) == {pod}
    world.require_one_result(run.run_id)


def test_a_deferred_task_waits_for_a_cluster_that_cannot_be_reached_for_a_while(world: PodWorld) -> None:
    command = training(before=f"print('started'){HOLD}")
    with world.cluster.gated(world.folder) as (gate, kubeconfig):
        pod_options = {"config_file": kubeconfig, "log_interval": 1}
        task = in_the_background(world, command, deferrable=True, kubernetes=pod_options)
        pod = world.cluster.running_pod(world.dag_id)
        wait_for(lambda: ANNOTATION_LOG_POSITION in world.cluster.annotations(pod), "the first look of the trigger")
        (run,) = world.runs("RUNNING")
        with gate.shut():
            let_go(world.hook, run)
            time.sleep(OUTAGE_SECONDS)
        outcome = task.result()
    assert outcome.state == "success", outcome.error
    world.require_one_result(run.run_id)
    assert world.cluster.started(run.tags[contract.TAG_IDENTITY]) == {pod}


@EACH_MODE
def test_the_time_limit_of_airflow_deletes_the_pod_and_kills_the_run(world: PodWorld, deferrable: bool) -> None:
    outcome = world.see_through(LONG_RUN, deferrable=deferrable, execution_timeout=timedelta(seconds=15))
    assert outcome.state == "up_for_retry"
    assert type(outcome.error).__name__ == ("WorkloadTimeoutError" if deferrable else "AirflowTaskTimeout")
    if deferrable:
        for text in (outcome.xcom["pod_name"], "execution_timeout", "started"):
            assert text in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "KILLED"
    assert world.cluster.pods(world.dag_id) == []
    world.require_clean_retry()


@EACH_MODE
def test_a_pod_that_has_not_started_goes_when_the_time_of_its_task_is_up(world: PodWorld, deferrable: bool) -> None:
    with world.cluster.cordoned():
        outcome = world.see_through(deferrable=deferrable, execution_timeout=timedelta(seconds=8))
    assert type(outcome.error).__name__ == ("WorkloadTimeoutError" if deferrable else "AirflowTaskTimeout")
    assert [run.status for run in world.runs()] == ["KILLED"]
    assert world.cluster.pods(world.dag_id) == []
    world.require_clean_retry()


def test_the_time_limit_of_the_workload_is_kept_by_kubernetes(world: PodWorld) -> None:
    outcome = world.see_through(LONG_RUN, deferrable=False, workload_timeout=timedelta(seconds=4))
    texts = ("DeadlineExceeded", "it ran longer than workload_timeout", "started")
    run = world.require_failure(outcome, *texts, status="KILLED")
    assert "DeadlineExceeded" in run.tags[contract.TAG_ERROR]
    world.require_clean_retry()


def in_the_background(world: PodWorld, command: list[str], *, deferrable: bool = False, **options: Any) -> ForkedTask:
    """Run a training task in a process of its own."""

    def run() -> TaskOutcome:
        outcome = world.see_through(command, deferrable=deferrable, **options)
        return TaskOutcome(outcome.state, outcome.error, outcome.xcom, None, None, None)  # type: ignore[arg-type]

    return ForkedTask(run)
