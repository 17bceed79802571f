"""When the work in a pod is over: recorded sequences of pod states of two versions of Kubernetes.

1.20 changes phase and container together; 1.32 reports the container first, and the phase about a second later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.workload.pod_ending import ended_well, has_ended, read_ending
from airflow_mcp.core.workload.replicas import group_failures
from airflow_mcp.core.workload.sweep import judge_pod, read_workload_pod

NAME = "train-abc-1"
CREATED, STARTED, FINISHED = "2026-11-21T12:00:00Z", "2026-11-21T12:00:02Z", "2026-11-21T12:00:09Z"
NOW = datetime(2026, 11, 21, 15, tzinfo=UTC)
LEADER_AT_WORK = {"metadata": {"name": NAME, "creationTimestamp": CREATED}, "status": {"phase": "Running"}}
WAITING = {"waiting": {"reason": "PodInitializing"}}
RUNNING = {"running": {"startedAt": STARTED}}


def terminated(code: int, reason: str = "") -> dict[str, Any]:
    reason = reason or ("Error" if code else "Completed")
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": FINISHED}}


def pod(
    phase: str, state: dict[str, Any] | None, *, fetch: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    """Write a pod of rank 1 as the API returns it."""
    found: dict[str, Any] = {"phase": phase, **status}
    if state:
        found["containerStatuses"] = [{"name": "base", "state": state}]
    if fetch:
        found["initContainerStatuses"] = [{"name": "checkout", "state": fetch}]
    labels = {"airflow-mcp.io/rank": "1", "airflow-mcp.io/group": NAME}
    return {"metadata": {"name": f"{NAME}-r1", "creationTimestamp": CREATED, "labels": labels}, "status": found}


BEFORE = [pod("Pending", None), pod("Pending", WAITING), pod("Running", RUNNING)]
FETCHING = [
    pod("Pending", WAITING, fetch={"waiting": {"reason": "PodInitializing"}}),
    pod("Pending", WAITING, fetch=RUNNING),
]
DEADLINE = {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}

FAILED_1_20 = [*BEFORE, pod("Failed", terminated(1))]
FAILED_1_32 = [*BEFORE, pod("Running", terminated(1)), pod("Failed", terminated(1))]
DONE_1_20 = [*BEFORE, pod("Succeeded", terminated(0))]
DONE_1_32 = [*BEFORE, pod("Running", terminated(0)), pod("Succeeded", terminated(0))]
NOT_FETCHED_1_20 = [*FETCHING, pod("Failed", WAITING, fetch=terminated(2))]
NOT_FETCHED_1_32 = [*FETCHING, pod("Pending", WAITING, fetch=terminated(2)), *NOT_FETCHED_1_20[-1:]]
LATE_1_20 = [*BEFORE, pod("Failed", None, **DEADLINE)]
LATE_1_32 = [*BEFORE, pod("Running", terminated(0), **DEADLINE), pod("Failed", terminated(0), **DEADLINE)]


@pytest.mark.parametrize(
    ("states", "first_over"),
    [
        (FAILED_1_20, 3),
        (FAILED_1_32, 3),
        (DONE_1_20, 3),
        (DONE_1_32, 3),
        (NOT_FETCHED_1_20, 2),
        (NOT_FETCHED_1_32, 2),
        (LATE_1_20, 3),
        (LATE_1_32, 3),
    ],
)
def test_the_work_is_over_when_its_container_has_ended(states: Sequence[dict[str, Any]], first_over: int) -> None:
    over = [False] * first_over + [True] * (len(states) - first_over)
    assert [has_ended(state) for state in states] == over
    assert [read_workload_pod(state, NOW).has_ended for state in states] == over


@pytest.mark.parametrize(
    ("states", "well"),
    [
        (FAILED_1_20, []),
        (FAILED_1_32, []),
        (DONE_1_20, [3]),
        (DONE_1_32, [3, 4]),
        (NOT_FETCHED_1_32, []),
        (LATE_1_20, []),
        (LATE_1_32, []),
    ],
)
def test_only_work_that_was_not_stopped_ended_well(states: Sequence[dict[str, Any]], well: list[int]) -> None:
    assert [number for number, state in enumerate(states) if ended_well(state)] == well


@pytest.mark.parametrize("states", [FAILED_1_20, FAILED_1_32, NOT_FETCHED_1_20, NOT_FETCHED_1_32])
def test_the_pod_of_a_rank_that_failed_is_kept_however_early_it_is_seen(states: Sequence[dict[str, Any]]) -> None:
    for state in states:
        failures = group_failures([LEADER_AT_WORK, state], NAME, 2, now=NOW)
        assert [(failure.rank, failure.has_ended) for failure in failures] == ([(1, True)] if has_ended(state) else [])


@pytest.mark.parametrize("states", [FAILED_1_20, FAILED_1_32])
def test_the_sweeper_does_not_take_a_pod_that_has_ended_for_one_at_work(states: Sequence[dict[str, Any]]) -> None:
    for state in states:
        finding = judge_pod(read_workload_pod(state, NOW), None, "failed", grace=timedelta(hours=1), now=NOW)
        assert finding.action == "remove"
        assert ("still runs" in finding.reason) is not has_ended(state)


def test_a_pod_with_a_sidecar_has_ended_with_its_own_container() -> None:
    state = pod("Running", terminated(0))
    state["status"]["containerStatuses"].append({"name": "proxy", "state": RUNNING})
    assert has_ended(state)
    assert ended_well(state)


@pytest.mark.parametrize(
    "image_id",
    [
        "docker-pullable://registry.example.com/trainer@sha256:" + "ab" * 32,
        "docker://sha256:" + "ab" * 32,
        "registry.example.com/trainer@sha256:" + "ab" * 32,
        "sha256:" + "ab" * 32,
    ],
)
def test_the_digest_is_read_from_docker_and_from_containerd(image_id: str) -> None:
    state = pod("Running", RUNNING)
    state["status"]["containerStatuses"][0]["imageID"] = image_id
    assert read_ending(state).image_digest == "sha256:" + "ab" * 32
