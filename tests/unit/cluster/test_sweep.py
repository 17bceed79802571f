"""Pods that train together are judged together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_mcp.cluster.sweep import judge_pods
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.sweep import TaskName, WorkloadPod

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TASK = TaskName("nightly", "scheduled__1", "train")


def pod(name: str, phase: str = "Running", leader: str = "") -> WorkloadPod:
    return WorkloadPod(name, f"uid-{name}", phase, 3 * HOUR, False, "abc", "r1", True, TASK, leader)


def judged(*pods: WorkloadPod, state: str | None) -> dict[str, str]:
    found = judge_pods(
        pods, run_of=lambda run_id: Run(run_id, "1", "RUNNING"), task_state_of=lambda _: state, grace=HOUR, now=NOW
    )
    assert [item.pod for item in found] == list(pods)
    return {item.pod.name: f"{item.finding.action}: {item.finding.reason}" for item in found}


def test_the_ranks_of_one_training_stay_and_go_with_rank_0() -> None:
    group = (pod("t-1-r1", "Succeeded", "t-1"), pod("t-1"), pod("t-1-r2", leader="t-1"))
    assert judged(*group, state="failed") == {
        "t-1": "remove: still runs although its task is failed",
        "t-1-r1": "remove: belongs to t-1: still runs although its task is failed",
        "t-1-r2": "remove: belongs to t-1: still runs although its task is failed",
    }
    assert {text.split(":")[0] for text in judged(*group, state="deferred").values()} == {"keep"}


def test_a_rank_whose_rank_0_is_gone_is_judged_by_its_own_work() -> None:
    assert judged(pod("t-1-r1", "Failed", "t-1"), state="failed") == {"t-1-r1": "remove: its task is failed"}
