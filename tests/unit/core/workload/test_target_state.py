"""How a Job, a TrainJob and a RayJob stand: recorded statuses, mapped to waiting, success, failed and gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.workload.replicas import StartLimits
from airflow_mcp.core.workload.target_state import (
    as_workload_pod,
    failed_endings,
    leading_pod,
    look,
    read_state,
)

NOW = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)
LIMITS = StartLimits(schedule=600, startup=300)
BEGUN = "2026-11-21T12:00:00Z"


def found(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "train-abc-1", "creationTimestamp": BEGUN, "labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> dict[str, Any]:
    told = {"type": kind, "status": status, "reason": reason, "message": message}
    return {"conditions": [{**told, "lastTransitionTime": "2026-11-21T12:05:00Z"}]}


def pod(
    name: str = "p",
    *,
    phase: str = "Running",
    index: str | None = None,
    code: int | None = None,
    at: str = BEGUN,
    container: str = "base",
    target: str = "job",
) -> dict[str, Any]:
    notes = {"airflow-mcp.io/target": target}
    if index is not None:
        notes["batch.kubernetes.io/job-completion-index"] = index
    state = {} if code is None else {"terminated": {"exitCode": code, "finishedAt": at, "reason": "Error"}}
    statuses = [{"name": "sidecar", "state": {}}, {"name": container, "state": state}]
    return {
        "metadata": {"name": name, "creationTimestamp": at, "annotations": notes, "labels": {}},
        "spec": {"containers": [{"name": container, "image": "image:1"}]},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


BOTH = pytest.mark.parametrize("target", ["job", "train_job"])


@BOTH
@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({}, "running"),
        (condition("Complete"), "succeeded"),
        (condition("Complete", "False"), "running"),
        (condition("Failed", reason="BackoffLimitExceeded"), "failed"),
        (condition("Suspended"), "queued"),
        (condition("Suspended", "False", "Resumed"), "running"),
        (condition("FailureTarget"), "running"),
    ],
)
def test_conditions_of_jobs_and_train_jobs(target: str, status: dict[str, Any], phase: str) -> None:
    assert read_state(target, found(status)).phase == phase


@BOTH
def test_suspended_by_its_spec_before_a_controller_has_said_so(target: str) -> None:
    assert read_state(target, found(suspend=True)).phase == "queued"


@pytest.mark.parametrize(
    ("deployment", "job", "phase"),
    [
        ("", "", "running"),
        ("Initializing", "", "running"),
        ("Running", "RUNNING", "running"),
        ("Waiting", "", "running"),
        ("Suspending", "RUNNING", "queued"),
        ("Suspended", "", "queued"),
        ("Complete", "SUCCEEDED", "succeeded"),
        ("Running", "SUCCEEDED", "succeeded"),
        ("Complete", "FAILED", "failed"),
        ("Failed", "FAILED", "failed"),
        ("Complete", "STOPPED", "failed"),
        ("Failed", "", "failed"),
    ],
)
def test_statuses_of_ray_jobs(deployment: str, job: str, phase: str) -> None:
    status = {"jobDeploymentStatus": deployment, "jobStatus": job}
    assert read_state("ray_job", found(status)).phase == phase


def test_a_ray_job_that_kueue_has_not_admitted_waits() -> None:
    assert read_state("ray_job", found(suspend=True)).phase == "queued"


def test_the_deadline_of_an_object_is_a_timeout() -> None:
    assert read_state("job", found(condition("Failed", reason="DeadlineExceeded"))).is_timeout
    assert not read_state("job", found(condition("Failed", reason="BackoffLimitExceeded"))).is_timeout
    ray = {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}
    assert read_state("ray_job", found(ray)).is_timeout


def test_an_object_that_is_gone_or_being_deleted_is_gone() -> None:
    assert look("job", None, [], now=NOW, limits=LIMITS).standing == "gone"
    deleted = found(condition("Complete"))
    deleted["metadata"]["deletionTimestamp"] = BEGUN
    assert look("job", deleted, [], now=NOW, limits=LIMITS).standing == "gone"


def test_a_queued_object_waits_without_a_limit_and_names_its_queue() -> None:
    status = condition("Suspended", message="couldn't assign flavors: insufficient quota")
    seen = look("job", found(status), [], now=NOW + timedelta(days=3), limits=LIMITS)
    assert seen.standing == "waiting"
    assert seen.says == ("Job train-abc-1 waits in queue 'team-a' (couldn't assign flavors: insufficient quota)")


def test_an_object_without_pods_fails_when_the_time_to_schedule_is_over() -> None:
    assert look("train_job", found(), [], now=NOW, limits=LIMITS).standing == "waiting"
    seen = look("train_job", found(), [], now=NOW + timedelta(seconds=1), limits=LIMITS)
    assert seen.standing == "failed"
    assert "it has no pods after 600 s. Check that its controller runs" in seen.says


def test_the_time_to_schedule_begins_when_the_queue_lets_it_go() -> None:
    resumed = condition("Suspended", "False", "Resumed")
    assert look("job", found(resumed), [], now=NOW + timedelta(minutes=4), limits=LIMITS).standing == "waiting"
    assert look("job", found(resumed), [], now=NOW + timedelta(minutes=6), limits=LIMITS).standing == "failed"


def test_a_pod_that_does_not_start_in_time_fails_the_training() -> None:
    waits = pod("p-1", phase="Pending", index="1", target="train_job", container="node")
    waits["status"]["containerStatuses"][1]["state"] = {"waiting": {"reason": "ErrImageNeverPull"}}
    seen = look("train_job", found(), [pod("p-0", index="0"), waits], now=NOW, limits=LIMITS)
    assert seen.standing == "failed"
    assert "did not start: pod p-1" in seen.says
    assert "image 'image:1' cannot be pulled" in seen.says


def test_a_running_training_says_how_many_pods_run() -> None:
    pods = [pod("p-0", index="0"), pod("p-1", phase="Pending", index="1", at="2026-11-21T12:09:00Z")]
    seen = look("job", found(), pods, now=NOW, limits=LIMITS)
    assert (seen.standing, seen.says) == ("waiting", "Job train-abc-1: 1 of 2 pods run")


def test_the_log_is_that_of_the_newest_pod_of_rank_0() -> None:
    pods = [pod("old", index="0"), pod("new", index="0", at="2026-11-21T12:01:00Z"), pod("other", index="1")]
    leader = leading_pod(pods)
    assert leader is not None
    assert leader["metadata"]["name"] == "new"
    assert leading_pod([pod("other", index="1")]) is None


def test_the_log_of_a_ray_job_is_that_of_its_submitter() -> None:
    submitter = pod("submit", target="ray_job")
    submitter["metadata"]["labels"] = {"airflow-mcp.io/rank": "0"}
    assert leading_pod([pod("head", target="ray_job")]) is None
    assert leading_pod([pod("head", target="ray_job"), submitter]) is submitter


def test_a_job_of_one_pod_does_not_number_it() -> None:
    assert leading_pod([pod("only")]) is not None


def test_the_container_of_the_work_is_found_under_the_name_that_its_kind_gives_it() -> None:
    ended = pod("p-1", phase="Failed", index="1", code=7, container="node", target="train_job")
    (ending,) = failed_endings("train_job", [ended, pod("p-0", index="0", container="node", target="train_job")])
    assert (ending.name, ending.exit_code, ending.image) == ("p-1", 7, "image:1")
    assert as_workload_pod("job", ended) == ended


def test_pods_that_were_stopped_because_another_failed_come_after_it() -> None:
    first = pod("p-1", phase="Failed", index="1", code=7, at="2026-11-21T12:05:00Z")
    stopped = pod("p-0", phase="Failed", index="0", code=143, at="2026-11-21T12:05:00Z")
    stopped["metadata"] |= {"deletionTimestamp": "2026-11-21T12:05:10Z", "deletionGracePeriodSeconds": 10}
    well = pod("p-2", phase="Succeeded", index="2", code=0)
    assert [ending.name for ending in failed_endings("job", [stopped, well, first])] == ["p-1", "p-0"]
