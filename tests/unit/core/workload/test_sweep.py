"""Which pods and runs are left over: every row of the table in docs/operators/sweep_pods.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.definition import Workload
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.replicas import as_follower, as_leader
from airflow_mcp.core.workload.sweep import (
    FINAL_TASK_STATES,
    SweepFinding,
    TaskName,
    WorkloadPod,
    format_age,
    judge_pod,
    judge_run,
    judge_with_leader,
    parse_age,
    read_workload_pod,
    task_of,
    task_state,
)
from airflow_mcp.exceptions import InvalidArgumentError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TASK = TaskName("nightly", "scheduled__1", "train")
POD = WorkloadPod("train-abc-1", "u1", "Running", 3 * HOUR, False, "abc", "r1", True, TASK)


def milliseconds(ago: timedelta) -> int:
    return int((NOW - ago).timestamp() * 1000)


LIVE = Run("r1", "1", "RUNNING", start_time=milliseconds(3 * HOUR), tags={"airflow_mcp.identity": "abc"})
ENDED = replace(LIVE, status="KILLED", end_time=milliseconds(2 * HOUR))
JUST_ENDED = replace(LIVE, status="FINISHED", end_time=milliseconds(timedelta(minutes=5)))
DELETED = replace(LIVE, lifecycle_stage="deleted")


@pytest.mark.parametrize(
    ("changes", "run", "state", "action", "reason"),
    [
        # at work
        ({}, LIVE, "failed", "remove", "still runs although its task is failed"),
        ({"age": timedelta(seconds=1)}, LIVE, "removed", "remove", "still runs although its task is removed"),
        ({"phase": "Pending"}, None, "success", "remove", "still runs although"),
        ({}, ENDED, "running", "keep", "its task is running"),
        ({}, ENDED, "deferred", "keep", "its task is deferred"),
        ({}, ENDED, "up_for_retry", "keep", "its task is up_for_retry"),
        ({}, ENDED, "none", "keep", "its task is none"),
        ({}, LIVE, None, "keep", "its MLflow run is RUNNING"),
        ({}, ENDED, None, "remove", "its MLflow run is KILLED"),
        ({}, DELETED, None, "remove", "its MLflow run is deleted"),
        ({}, JUST_ENDED, None, "keep", "its MLflow run has been FINISHED for less than 1h"),
        ({"owns_run": False}, ENDED, None, "keep", "a run that ended before"),
        ({"age": timedelta(minutes=59)}, ENDED, None, "keep", "is younger than"),
        ({"is_being_deleted": True}, ENDED, "failed", "keep", "is being deleted already"),
        # ended
        ({"phase": "Failed"}, LIVE, "failed", "remove", "its task is failed"),
        ({"phase": "Succeeded", "age": timedelta(minutes=59)}, ENDED, "success", "keep", "is younger than"),
        ({"phase": "Succeeded"}, LIVE, "deferred", "keep", "its task is deferred"),
        ({"phase": "Succeeded"}, JUST_ENDED, None, "remove", "it has ended and its MLflow run is FINISHED"),
        ({"phase": "Failed", "owns_run": False}, ENDED, None, "remove", "it has ended and its MLflow run is KILLED"),
        ({"phase": "Failed"}, LIVE, None, "keep", "its MLflow run is RUNNING"),
        ({"phase": "Failed"}, None, None, "keep", "run r1 is not known"),
        ({"phase": "Failed", "run_id": ""}, None, None, "keep", "(none named) is not known"),
    ],
)
def test_a_pod_is_left_over_only_when_its_work_is_known_to_be_over(
    changes: dict[str, Any], run: Run | None, state: str | None, action: str, reason: str
) -> None:
    finding = judge_pod(replace(POD, **changes), run, state, grace=HOUR, now=NOW)
    assert finding.action == action
    assert reason in finding.reason
    assert finding.name == POD.name


@pytest.mark.parametrize(("action", "is_unknown"), [("remove", False), ("keep", False), ("keep", True)])
def test_a_pod_that_trains_with_others_shares_the_fate_of_rank_0(action: Any, is_unknown: bool) -> None:
    follower = replace(POD, name="train-abc-1-r2", leader=POD.name)
    finding = judge_with_leader(follower, SweepFinding(POD.name, action, "its task is x", is_unknown))
    assert finding == SweepFinding("train-abc-1-r2", action, "belongs to train-abc-1: its task is x", is_unknown)
    going = judge_with_leader(replace(follower, is_being_deleted=True), SweepFinding(POD.name, "remove", ""))
    assert (going.action, going.reason) == ("keep", "is being deleted already")


@pytest.mark.parametrize(("changes", "run"), [({}, None), ({"owns_run": False}, ENDED)])
def test_what_is_kept_for_want_of_knowledge_is_marked(changes: dict[str, Any], run: Run | None) -> None:
    assert judge_pod(replace(POD, **changes), run, None, grace=HOUR, now=NOW).is_unknown
    assert not judge_pod(replace(POD, **changes), run, "running", grace=HOUR, now=NOW).is_unknown


@pytest.mark.parametrize(
    ("run", "pods", "state", "action", "reason"),
    [
        (LIVE, [], "failed", "remove", "its task is failed and no pod runs for it"),
        (LIVE, [replace(POD, phase="Failed")], "failed", "remove", "no pod runs"),
        (LIVE, [replace(POD, run_id="other", identity="other")], "failed", "remove", "no pod runs"),
        (LIVE, [POD], "failed", "keep", "pod train-abc-1 still runs"),
        (LIVE, [replace(POD, run_id="other")], "failed", "keep", "pod train-abc-1 still runs"),
        (replace(LIVE, tags={}), [replace(POD, run_id="other", identity="")], "failed", "remove", "no pod runs"),
        (LIVE, [], "deferred", "keep", "its task is deferred"),
        (LIVE, [], "up_for_retry", "keep", "its task is up_for_retry"),
        (LIVE, [], None, "keep", "the state of its task is not known"),
        (replace(LIVE, start_time=milliseconds(HOUR / 2)), [], "failed", "keep", "is younger than 1h"),
        (replace(LIVE, start_time=None), [], "failed", "keep", "is younger than 1h"),
    ],
)
def test_a_live_run_is_closed_only_when_its_task_has_ended_and_no_pod_works_for_it(
    run: Run, pods: list[WorkloadPod], state: str | None, action: str, reason: str
) -> None:
    finding = judge_run(run, pods, state, grace=HOUR, now=NOW)
    assert (finding.action, finding.name) == (action, "r1")
    assert reason in finding.reason
    assert finding.is_unknown is (state is None)


@pytest.mark.parametrize("owns_run", [True, False])
def test_a_pod_says_in_its_manifest_all_that_the_sweeper_has_to_know(owns_run: bool) -> None:
    labels = {"dag_id": "nightly", "task_id": "train", "run_id": "scheduled__1", "try_number": "1", "identity": "abc"}
    workload = Workload("train", ("true",), image="x", owns_run=owns_run, labels=labels)
    manifest = pod_manifest(workload, PodOptions(), name="train-abc-1", run_id="r1", companion="train-abc-1")
    manifest["metadata"] |= {"creationTimestamp": "2026-11-21T09:00:00Z", "uid": "u1"}
    manifest["status"] = {"phase": "Running"}
    assert read_workload_pod(manifest, NOW) == replace(POD, owns_run=owns_run)


def test_a_pod_of_a_further_rank_names_its_rank_0() -> None:
    workload = Workload("train", ("true",), image="x", is_replicable=True, labels={"identity": "abc"})
    options = PodOptions(replicas=2)
    alone = pod_manifest(workload, options, name="t-1", run_id="r1", companion="t-1")
    leader = as_leader(alone, workload, options)
    leader["metadata"]["creationTimestamp"] = "2026-11-21T09:00:00Z"
    follower = as_follower(leader, 1, uid="u1", address="10.96.0.7")
    assert [read_workload_pod(pod, NOW).leader for pod in (leader, follower)] == ["", "t-1"]


def test_options_of_a_user_cannot_take_the_place_of_what_the_sweeper_reads() -> None:
    workload = Workload("train", ("true",), image="x", labels={"identity": "abc"})
    options = PodOptions(
        labels={"airflow-mcp.io/identity": "other", "app.kubernetes.io/managed-by": "me", "team": "ml"},
        annotations={"airflow-mcp.io/mlflow-run-id": "other", "note": "x"},
    )
    metadata = pod_manifest(workload, options, name="n", run_id="r1", companion="n")["metadata"]
    assert metadata["labels"] == {
        "airflow-mcp.io/identity": "abc",
        "app.kubernetes.io/managed-by": "airflow-mcp",
        "team": "ml",
    }
    assert metadata["annotations"]["airflow-mcp.io/mlflow-run-id"] == "r1"
    assert metadata["annotations"]["note"] == "x"


def test_a_pod_that_says_nothing_has_no_task_and_no_run() -> None:
    bare = {"metadata": {"name": "x", "creationTimestamp": "2026-11-21T09:00:00Z", "deletionTimestamp": "later"}}
    pod = read_workload_pod(bare, NOW)
    assert (pod.task, pod.run_id, pod.phase, pod.owns_run, pod.is_being_deleted) == (None, "", "Unknown", False, True)


def test_the_task_of_a_run_is_read_from_its_tags() -> None:
    tags = {"airflow_mcp.dag_id": "nightly", "airflow_mcp.dag_run_id": "scheduled__1", "airflow_mcp.task_id": "train"}
    assert task_of(replace(LIVE, tags=tags)) == TASK
    assert task_of(replace(LIVE, tags={**tags, "airflow_mcp.task_id": ""})) is None


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, None),
        ({"scheduled__1": {}}, None),
        ({"scheduled__2": {"train": "success"}}, None),
        ({"scheduled__1": {"train": "success"}}, "success"),
        ({"scheduled__1": {"train": None}}, "none"),
        ({"scheduled__1": {"train_0": "success", "train_1": "running"}}, "running"),
        ({"scheduled__1": {"train_0": "success", "train_1": "failed"}}, "success"),
        ({"scheduled__1": {"train_more": "running", "retrain": "running"}}, None),
    ],
)
def test_the_state_of_a_task_is_found_in_the_answer_of_airflow(states: dict[str, Any], expected: str | None) -> None:
    assert task_state(TASK, states) == expected


def test_the_final_states_are_those_of_airflow() -> None:
    from airflow.sdk.api.datamodels._generated import TerminalTIState

    assert {state.value for state in TerminalTIState} <= FINAL_TASK_STATES
    assert {"success", "failed", "skipped", "upstream_failed", "removed"} == FINAL_TASK_STATES


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 172800), ("0.5h", 1800), (" 0s ", 0)]
)
def test_an_age_is_read(text: str, seconds: int) -> None:
    assert parse_age("--older-than", text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1w", "1h30m", "nan", "9999999d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--older-than must be a number and one of s, m, h, d"):
        parse_age("--older-than", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (90, "90s"), (3600, "1h"), (5400, "90m"), (7300, "2h"), (86400, "1d")],
)
def test_an_age_is_written_in_its_largest_fitting_unit(seconds: int, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text


def test_a_pod_names_the_object_that_would_create_it_again() -> None:
    metadata = {"name": "p", "creationTimestamp": "2026-11-21T12:00:00Z", "labels": {"airflow-mcp.io/group": "train-1"}}
    now = datetime(2026, 11, 21, 13, tzinfo=UTC)
    of_a_group = read_workload_pod({"metadata": metadata}, now)
    assert (of_a_group.target, of_a_group.object_name) == ("", "")
    of_a_job = read_workload_pod({"metadata": {**metadata, "annotations": {"airflow-mcp.io/target": "job"}}}, now)
    assert (of_a_job.target, of_a_job.object_name) == ("job", "train-1")
