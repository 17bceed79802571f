"""The Dag ``pod_maintenance`` in a real Airflow: what it leaves alone, what it removes, and how it knows."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core import contract
from demo.airflow_api import AirflowApi
from tests.kubernetes.cluster import PodWorld, shell, wait_for
from tests.kubernetes.stack import airflow_with_pods, killed, wait_until_deferred

EXPERIMENT = "swept"
TASKS = {name: {name: shell("sleep 300")} for name in ("abandoned", "at_work")}
RUN_TIMEOUT_SECONDS = 120


def sweep(api: AirflowApi, **params: Any) -> dict[str, Any]:
    """Run the Dag and give what its task returned."""
    run_id = api.trigger("pod_maintenance", params)
    state = api.wait_for_run("pod_maintenance", run_id, RUN_TIMEOUT_SECONDS)
    assert state == "success", api.task_log("pod_maintenance", run_id, "sweep")
    return dict(api.xcom("pod_maintenance", run_id, "sweep"))


def status_of(world: PodWorld, dag_id: str) -> str:
    """Give the status of the MLflow run of a Dag's task."""
    where = f"tags.`{contract.TAG_DAG_ID}` = '{dag_id}'"
    (run,) = world.hook.search_runs([world.hook.get_or_create_experiment(EXPERIMENT)], where)
    return str(run.status)


def test_the_dag_removes_the_pod_of_a_failed_task_and_keeps_that_of_a_deferred_one(
    lonely_world: PodWorld,
) -> None:
    world, cluster = lonely_world, lonely_world.cluster
    stack = airflow_with_pods(cluster, world.url, world.folder, TASKS, experiment=EXPERIMENT)
    with stack as airflow, airflow.api() as api:
        for dag_id in (*TASKS, "pod_maintenance"):
            api.wait_for_dag(dag_id)
        runs = {dag_id: api.trigger(dag_id) for dag_id in TASKS}
        for dag_id, run_id in runs.items():
            wait_until_deferred(api, dag_id, run_id)
        names = {dag_id: cluster.running_pod(dag_id) for dag_id in TASKS}
        with killed(airflow.component("triggerer")):  # nobody is there to remove the pod of a task that a person ends
            api.set_task_state("abandoned", runs["abandoned"], "abandoned", "failed")

            dry = sweep(api)
            assert (dry["dry_run"], dry["removed"]) == (True, [names["abandoned"]])
            assert [cluster.phase(name) for name in names.values()] == ["Running", "Running"]

            done = sweep(api, dry_run=False)
            assert (done["dry_run"], done["removed"]) == (False, [names["abandoned"]])
            wait_for(lambda: cluster.pods("abandoned") == [], "the deletion of the leftover")
            assert cluster.phase(names["at_work"]) == "Running"
            assert sweep(api, dry_run=False)["removed"] == []
        api.set_task_state("at_work", runs["at_work"], "at_work", "failed")
        wait_for(lambda: cluster.pods("at_work") == [], "the deletion of the other pod")
        wait_for(lambda: status_of(world, "at_work") == "KILLED", "the end of its run")
