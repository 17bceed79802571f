"""A real Airflow with deferred pods: triggerer killed, task ended by a person, Kubernetes silent, logs complete."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.hooks.mlflow import MlflowHook
from demo.airflow_api import AirflowApi
from demo.airflow_stack import AirflowStack
from demo.services import MlflowServer
from tests.kubernetes.cluster import Cluster, training, wait_for
from tests.kubernetes.stack import airflow_with_pods, killed, wait_until_deferred

EXPERIMENT = "deferred"
OUTAGE_SECONDS = 20
RUN_TIMEOUT_SECONDS = 150
LINES = ("epoch 1", "epoch 2", "epoch 3")
SLOWLY = "import time\nfor number in (1, 2, 3): print('epoch', number); time.sleep(2)"
QUICKLY = "for number in (1, 2, 3): print('epoch', number)"

TASKS = {
    "logs": {
        f"{mode}_{pace}": training(before=code)
        for mode in ("sync", "deferred")
        for pace, code in (("slow", SLOWLY), ("fast", QUICKLY))
    },
    "triggerer_outage": {
        "goes_on": training(before="import time; time.sleep(45)"),
        "ends_meanwhile": training(before="import time; time.sleep(4)"),
        "vanishes_meanwhile": training(after="import time; time.sleep(300)"),
    },
    "stopped": {"hangs": ["sh", "-c", "sleep 300"]},
    "silent_cluster": {"goes_on": training(before="import time; time.sleep(12)")},
}


@pytest.fixture(scope="module")
def stack(
    cluster: Cluster, pod_mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    folder = tmp_path_factory.mktemp("stack")
    with airflow_with_pods(cluster, pod_mlflow.url, folder, TASKS, experiment=EXPERIMENT) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack: AirflowStack) -> Iterator[AirflowApi]:
    with stack.api() as api:
        for dag_id in TASKS:
            api.wait_for_dag(dag_id)
        yield api


@pytest.fixture
def hook(pod_mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowHook]:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": pod_mlflow.url}))
    hook = MlflowHook("mlflow_tests")
    yield hook
    hook.close()


def runs_of(hook: MlflowHook, dag_id: str, task_id: str) -> list[Run]:
    where = f"tags.`{contract.TAG_DAG_ID}` = '{dag_id}' and tags.`{contract.TAG_TASK_ID}` = '{task_id}'"
    return hook.search_runs([hook.get_or_create_experiment(EXPERIMENT)], where)


def pod_of(cluster: Cluster, hook: MlflowHook, dag_id: str, task_id: str) -> str:
    """Name the one pod that ever ran for a task; it must have started by now, or soon."""
    (run,) = runs_of(hook, dag_id, task_id)
    identity = run.tags[contract.TAG_IDENTITY]
    wait_for(lambda: bool(cluster.started(identity)), f"a pod of {task_id}")
    (name,) = cluster.started(identity)
    return name


def test_logs_are_complete_and_nothing_is_written_twice(api: AirflowApi, cluster: Cluster) -> None:
    run_id = api.trigger("logs")
    assert api.wait_for_run("logs", run_id, RUN_TIMEOUT_SECONDS) == "success"
    for task_id in TASKS["logs"]:
        log = api.task_log("logs", run_id, task_id)
        assert {line: log.count(line) for line in LINES} == dict.fromkeys(LINES, 1), f"{task_id}:\n{log}"
        assert log.count("trained model\n") == 1, f"{task_id}:\n{log}"
    assert cluster.pods("logs") == []


def test_a_triggerer_that_is_killed_and_comes_back_loses_no_pod(
    stack: AirflowStack, api: AirflowApi, cluster: Cluster, hook: MlflowHook
) -> None:
    run_id = api.trigger("triggerer_outage")
    wait_until_deferred(api, "triggerer_outage", run_id)
    with killed(stack.component("triggerer")):
        ended = pod_of(cluster, hook, "triggerer_outage", "ends_meanwhile")
        wait_for(lambda: cluster.phase(ended) == "Succeeded", "the end of a pod without a triggerer")
        vanished = pod_of(cluster, hook, "triggerer_outage", "vanishes_meanwhile")
        wait_for(lambda: runs_of(hook, "triggerer_outage", "vanishes_meanwhile")[0].status == "FINISHED", "its result")
        cluster.delete(vanished)
        assert cluster.phase(pod_of(cluster, hook, "triggerer_outage", "goes_on")) == "Running"
    state = api.wait_for_run("triggerer_outage", run_id, RUN_TIMEOUT_SECONDS)
    logs = {task_id: api.task_log("triggerer_outage", run_id, task_id) for task_id in TASKS["triggerer_outage"]}
    assert state == "success", logs
    for task_id in TASKS["triggerer_outage"]:
        (run,) = runs_of(hook, "triggerer_outage", task_id)
        assert run.status == "FINISHED"
        assert pod_of(cluster, hook, "triggerer_outage", task_id).endswith("-1")
    assert "looking whether its work was done before" in logs["vanishes_meanwhile"]
    assert cluster.pods("triggerer_outage") == []


def test_a_task_that_a_person_ends_takes_pod_and_run_along(api: AirflowApi, cluster: Cluster, hook: MlflowHook) -> None:
    run_id = api.trigger("stopped")
    wait_until_deferred(api, "stopped", run_id)
    cluster.running_pod("stopped")
    api.set_task_state("stopped", run_id, "hangs", "failed")
    wait_for(lambda: cluster.pods("stopped") == [], "the deletion of the pod", seconds=15)
    wait_for(lambda: runs_of(hook, "stopped", "hangs")[0].status == "KILLED", "the end of the run", seconds=15)
    (run,) = runs_of(hook, "stopped", "hangs")
    assert "ended by a person" in run.tags[contract.TAG_ERROR]
    assert api.run_state("stopped", run_id) in ("failed", "running")


def test_a_cluster_that_is_silent_for_a_while_is_waited_for(
    api: AirflowApi, cluster: Cluster, hook: MlflowHook, apiserver_pid: int
) -> None:
    run_id = api.trigger("silent_cluster")
    wait_until_deferred(api, "silent_cluster", run_id)
    cluster.running_pod("silent_cluster")
    os.kill(apiserver_pid, signal.SIGSTOP)
    try:
        time.sleep(OUTAGE_SECONDS)
    finally:
        os.kill(apiserver_pid, signal.SIGCONT)
    assert api.wait_for_run("silent_cluster", run_id, RUN_TIMEOUT_SECONDS) == "success"
    (run,) = runs_of(hook, "silent_cluster", "goes_on")
    assert run.status == "FINISHED"
    assert pod_of(cluster, hook, "silent_cluster", "goes_on").endswith("-1")
    assert cluster.pods("silent_cluster") == []
