"""A real Airflow with deferred pods: triggerer killed, task ended by a person, logs complete, leftovers swept up."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.hooks.mlflow import MlflowHook
from tests.kubernetes.cluster import HOLD, Cluster, let_go, shell, training, wait_for
from tests.kubernetes.stack import airflow_with_pods, killed, wait_until_deferred, wait_until_watched
from tests.support.airflow_api import AirflowClient
from tests.support.airflow_stack import AirflowStack
from tests.support.services import MlflowServer

EXPERIMENT = "deferred"
RUN_TIMEOUT_SECONDS = 150
LOG_INTERVAL_SECONDS = 2
LINES = ("epoch 1", "epoch 2", "epoch 3")
SLOWLY = "import time\nfor number in (1, 2, 3): print('epoch', number); time.sleep(2)"
QUICKLY = "for number in (1, 2, 3): print('epoch', number)"
STEADILY = "import time\nfor number in range({}, {}): print('epoch', number); time.sleep(0.5)"
ONLY_ONCE = "import os, time\nif os.environ['HOSTNAME'].endswith('-1'): time.sleep(300)"
"""Hangs in the pod of the first try."""
FLOOD = "for number in range(4000): print(f'flood {number:04} {100 * chr(120)}')"
"""More than the triggerer copies at once."""

TASKS = {
    "logs": {
        f"{mode}_{pace}": training(before=code)
        for mode in ("sync", "deferred")
        for pace, code in (("slow", SLOWLY), ("fast", QUICKLY))
    },
    "flood": {"deferred": training(before=FLOOD + HOLD)},
    "triggerer_outage": {
        "goes_on": training(before=STEADILY.format(1, 11) + HOLD + STEADILY.format(11, 21)),
        "ends_meanwhile": training(before=HOLD),
        "vanishes_meanwhile": training(after="import time; time.sleep(300)"),
    },
    "stopped": {"hangs": training(before=ONLY_ONCE)},
    "abandoned": {"abandoned": shell("sleep 300")},
    "at_work": {"at_work": shell("sleep 300")},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A namespace of its own: the sweeper looks at every pod of it."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stack(
    cluster: Cluster, pod_mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStack]:
    folder = tmp_path_factory.mktemp("stack")
    with airflow_with_pods(
        cluster, pod_mlflow.url, folder, TASKS, experiment=EXPERIMENT, log_interval=LOG_INTERVAL_SECONDS
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack: AirflowStack) -> Iterator[AirflowClient]:
    with stack.api() as api:
        for dag_id in (*TASKS, "pod_maintenance"):
            api.wait_for_dag(dag_id)
        yield api


@pytest.fixture(scope="module")
def at_once(api: AirflowClient) -> Mapping[str, str]:
    """Dag runs that do not disturb each other, started together: Dag id to run id."""
    return {dag_id: api.trigger(dag_id) for dag_id in ("logs", "stopped", "flood")}


@pytest.fixture
def hook(pod_mlflow: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowHook]:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": pod_mlflow.url}))
    hook = MlflowHook("mlflow_tests")
    yield hook
    hook.close()


def runs_of(hook: MlflowHook, dag_id: str, task_id: str) -> list[Run]:
    where = f"tags.`{contract.TAG_DAG_ID}` = '{dag_id}' and tags.`{contract.TAG_TASK_ID}` = '{task_id}'"
    return hook.search_runs([hook.get_or_create_experiment(EXPERIMENT)], where)


def go_on(hook: MlflowHook, dag_id: str, task_id: str) -> None:
    (run,) = runs_of(hook, dag_id, task_id)
    let_go(hook, run)


def pod_of(cluster: Cluster, hook: MlflowHook, dag_id: str, task_id: str) -> str:
    """Name the one pod that ever ran for a task; it must have started by now, or soon."""
    (run,) = runs_of(hook, dag_id, task_id)
    identity = run.tags[contract.TAG_IDENTITY]
    wait_for(lambda: bool(cluster.started(identity)), f"a pod of {task_id}")
    (name,) = cluster.started(identity)
    return name


def test_a_task_that_a_person_ends_takes_pod_and_run_along_and_can_be_run_again(
    api: AirflowClient, cluster: Cluster, hook: MlflowHook, at_once: Mapping[str, str]
) -> None:
    run_id = at_once["stopped"]
    wait_until_deferred(api, "stopped", run_id)
    wait_until_watched(api, "stopped", run_id, "hangs")
    cluster.running_pod("stopped")
    api.set_task_state("stopped", run_id, "hangs", "failed")
    wait_for(lambda: cluster.pods("stopped") == [], "the deletion of the pod", seconds=30)
    wait_for(lambda: runs_of(hook, "stopped", "hangs")[0].status == "KILLED", "the end of the run", seconds=30)
    (run,) = runs_of(hook, "stopped", "hangs")
    assert "ended by a person" in run.tags[contract.TAG_ERROR]
    # A scheduler that is just judging the run would overwrite what clearing does.
    assert api.wait_for_run("stopped", run_id, RUN_TIMEOUT_SECONDS) == "failed"
    api.clear_task("stopped", run_id, "hangs")
    state = api.wait_for_run("stopped", run_id, RUN_TIMEOUT_SECONDS)
    assert state == "success", api.task_log("stopped", run_id, "hangs", try_number=2)
    assert sorted(run.status for run in runs_of(hook, "stopped", "hangs")) == ["FINISHED", "KILLED"]
    assert cluster.pods("stopped") == []


def test_logs_are_complete_and_nothing_is_written_twice(
    api: AirflowClient, cluster: Cluster, at_once: Mapping[str, str]
) -> None:
    run_id = at_once["logs"]
    state = api.wait_for_run("logs", run_id, RUN_TIMEOUT_SECONDS)
    assert state == "success", "\n".join(f"{task}:\n{api.task_log('logs', run_id, task)}" for task in TASKS["logs"])
    for task_id in TASKS["logs"]:
        log = api.task_log("logs", run_id, task_id)
        assert {line: log.count(line) for line in LINES} == dict.fromkeys(LINES, 1), f"{task_id}:\n{log}"
        assert log.count("trained model\n") == 1, f"{task_id}:\n{log}"
    assert cluster.pods("logs") == []


def test_a_log_that_is_too_much_for_the_triggerer_is_completed_when_the_pod_has_ended(
    api: AirflowClient, hook: MlflowHook, at_once: Mapping[str, str]
) -> None:
    run_id, notice = at_once["flood"], "more than is copied while it runs"
    wait_for(lambda: notice in api.task_log("flood", run_id, "deferred"), "the end of the copying")
    go_on(hook, "flood", "deferred")
    assert api.wait_for_run("flood", run_id, RUN_TIMEOUT_SECONDS) == "success"
    log = api.task_log("flood", run_id, "deferred")
    assert Counter(re.findall(r"flood (\d{4}) x{100}$", log, re.M)) == {f"{number:04}": 1 for number in range(4000)}
    assert log.count(notice) == 1


def test_a_triggerer_that_is_killed_and_comes_back_loses_no_pod(
    stack: AirflowStack, api: AirflowClient, cluster: Cluster, hook: MlflowHook
) -> None:
    run_id = api.trigger("triggerer_outage")
    wait_until_deferred(api, "triggerer_outage", run_id)
    wait_for(lambda: "epoch 1" in api.task_log("triggerer_outage", run_id, "goes_on"), "the log of a pod at work")
    with killed(stack.component("triggerer")):
        go_on(hook, "triggerer_outage", "ends_meanwhile")
        ended = pod_of(cluster, hook, "triggerer_outage", "ends_meanwhile")
        wait_for(lambda: cluster.phase(ended) == "Succeeded", "the end of a pod without a triggerer")
        vanished = pod_of(cluster, hook, "triggerer_outage", "vanishes_meanwhile")
        wait_for(lambda: runs_of(hook, "triggerer_outage", "vanishes_meanwhile")[0].status == "FINISHED", "its result")
        cluster.delete(vanished)
        assert cluster.phase(pod_of(cluster, hook, "triggerer_outage", "goes_on")) == "Running"
    go_on(hook, "triggerer_outage", "goes_on")
    state = api.wait_for_run("triggerer_outage", run_id, RUN_TIMEOUT_SECONDS)
    logs = {task_id: api.task_log("triggerer_outage", run_id, task_id) for task_id in TASKS["triggerer_outage"]}
    assert state == "success", logs
    for task_id in TASKS["triggerer_outage"]:
        (run,) = runs_of(hook, "triggerer_outage", task_id)
        assert run.status == "FINISHED"
        assert pod_of(cluster, hook, "triggerer_outage", task_id).endswith("-1")
    written = Counter(re.findall(r"epoch \d+$", logs["goes_on"], re.M))
    assert written == dict.fromkeys((f"epoch {number}" for number in range(1, 21)), 1), logs["goes_on"]
    assert "checking whether its work was done before" in logs["vanishes_meanwhile"]
    assert cluster.pods("triggerer_outage") == []


def test_the_sweeping_dag_removes_the_pod_of_a_failed_task_and_keeps_that_of_a_deferred_one(
    stack: AirflowStack, api: AirflowClient, cluster: Cluster
) -> None:
    runs = {dag_id: api.trigger(dag_id) for dag_id in ("abandoned", "at_work")}
    for dag_id, run_id in runs.items():
        wait_until_deferred(api, dag_id, run_id)
    names = {dag_id: cluster.running_pod(dag_id) for dag_id in runs}
    with killed(stack.component("triggerer")):  # nobody is there to remove the pod of a task that a person ends
        api.set_task_state("abandoned", runs["abandoned"], "abandoned", "failed")
        dry = sweep(api)
        assert (dry["dry_run"], dry["removed"]) == (True, [names["abandoned"]])
        assert [cluster.phase(name) for name in names.values()] == ["Running", "Running"]
        done = sweep(api, dry_run=False)
        assert (done["dry_run"], done["removed"]) == (False, [names["abandoned"]])
        wait_for(lambda: cluster.pods("abandoned") == [], "the deletion of the leftover")
        assert cluster.phase(names["at_work"]) == "Running"


def sweep(api: AirflowClient, **params: Any) -> dict[str, Any]:
    """Run the Dag that sweeps up and give what its task returned."""
    run_id = api.trigger("pod_maintenance", params)
    state = api.wait_for_run("pod_maintenance", run_id, RUN_TIMEOUT_SECONDS)
    assert state == "success", api.task_log("pod_maintenance", run_id, "sweep")
    return dict(api.xcom("pod_maintenance", run_id, "sweep"))
