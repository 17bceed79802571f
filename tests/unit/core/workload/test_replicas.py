"""A group of pods that train together: the manifest of each rank, and which failure ended the group."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.pod_ending import ended_well
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.core.workload.replicas import (
    StartLimits,
    as_follower,
    as_leader,
    describe_failures,
    group_failures,
    group_of_one,
    group_service,
    group_size,
    rank_of,
)
from airflow_mcp.exceptions import InvalidArgumentError

NAME = "train-abc-1"
ADDRESS = "10.96.0.7"
WORK = Workload(
    "train",
    ("python", "train.py"),
    env={"MLFLOW_RUN_ID": "r1", "AIRFLOW_MCP_RUN_ID": "r1", "DEPTH": "3"},
    secret_env={"MLFLOW_TRACKING_TOKEN": "secret-token"},
    files=(WorkloadFile("AIRFLOW_MCP_CONFIG_PATH", "config.yaml", "depth: 3"),),
    image="image:1",
    is_replicable=True,
    labels={"identity": "abc"},
)
OPTIONS = PodOptions(replicas=3, rendezvous_port=29600, labels={"team": "ml"})
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
LIMITS = StartLimits(schedule=600, startup=300)


def leader(workload: Workload = WORK, options: PodOptions = OPTIONS) -> dict[str, Any]:
    return as_leader(pod_manifest(workload, options, name=NAME, run_id="r1", companion=NAME), workload, options)


def follower(rank: int) -> dict[str, Any]:
    return as_follower(leader(), rank, uid="u-0", address=ADDRESS)


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    variables = pod["spec"]["containers"][0]["env"]
    names = [variable["name"] for variable in variables]
    assert len(set(names)) == len(names)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}


def without(pod: dict[str, Any], *names: str) -> str:
    """Write a pod without some variables and without what must differ, to compare it."""
    copy = json.loads(json.dumps(pod))
    container = copy["spec"]["containers"][0]
    container["env"] = sorted(
        (variable for variable in container["env"] if variable["name"] not in names), key=lambda item: item["name"]
    )
    copy["metadata"].pop("name")
    copy["metadata"].pop("ownerReferences", None)
    copy["metadata"]["labels"].pop("airflow-mcp.io/rank")
    return json.dumps(copy, sort_keys=True)


# --- manifests -----------------------------------------------------------------------------------------------------


def test_a_pod_alone_is_what_it_was() -> None:
    alone = pod_manifest(WORK, PodOptions(), name=NAME, run_id="r1", companion=NAME)
    assert as_leader(alone, WORK, PodOptions()) == alone
    assert (group_size(alone), rank_of(alone)) == (1, 0)


def test_rank_0_knows_its_rank_and_listens_on_its_own_address() -> None:
    pod = leader()
    env = environment(pod)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "JOB_COMPLETION_INDEX", "MASTER_PORT")
    assert [env[name] for name in names] == ["0", "3", "0", "0", "29600"]
    assert env["MASTER_ADDR"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["MLFLOW_RUN_ID"] == "r1"
    assert (group_size(pod), rank_of(pod)) == (3, 0)


@pytest.mark.parametrize("rank", [1, 2])
def test_every_other_rank_is_the_same_pod_with_another_rank_and_the_way_to_rank_0(rank: int) -> None:
    pod = follower(rank)
    env = environment(pod)
    assert (env["RANK"], env["JOB_COMPLETION_INDEX"], env["MASTER_ADDR"]) == (str(rank), str(rank), ADDRESS)
    assert (env["WORLD_SIZE"], env["LOCAL_RANK"], env["MASTER_PORT"]) == ("3", "0", "29600")
    assert (rank_of(pod), group_size(pod), pod["metadata"]["name"]) == (rank, 3, f"{NAME}-r{rank}")
    own = ("RANK", "JOB_COMPLETION_INDEX", "MASTER_ADDR", "MLFLOW_RUN_ID")
    assert without(pod, *own) == without(leader(), *own)


def test_only_rank_0_is_told_the_run_that_mlflow_would_end() -> None:
    env = environment(follower(1))
    assert "MLFLOW_RUN_ID" not in env
    assert env["AIRFLOW_MCP_RUN_ID"] == "r1"


def test_whatever_belongs_to_rank_0_goes_with_it() -> None:
    owner = [{"apiVersion": "v1", "kind": "Pod", "name": NAME, "uid": "u-0"}]
    assert follower(2)["metadata"]["ownerReferences"] == owner
    assert group_service(leader(), uid="u-0")["metadata"]["ownerReferences"] == owner


def test_the_service_finds_rank_0_of_this_group_alone() -> None:
    service = group_service(leader(), uid="u-0")
    labels = leader()["metadata"]["labels"]
    selector = service["spec"]["selector"]
    assert selector.items() <= labels.items()
    assert not selector.items() <= follower(1)["metadata"]["labels"].items()
    assert selector["airflow-mcp.io/group"] == NAME
    assert service["spec"]["ports"][0]["port"] == service["spec"]["ports"][0]["targetPort"] == 29600
    assert service["metadata"]["name"][0].isalpha()


def test_nothing_secret_is_in_any_manifest() -> None:
    pods = [leader(), follower(1), group_service(leader(), uid="u-0")]
    assert "secret-token" not in json.dumps(pods)


def test_work_that_is_done_once_is_not_replicated() -> None:
    once = Workload("evaluate", ("python",), image="image:1", labels={"identity": "abc"})
    with pytest.raises(InvalidArgumentError, match=r"kubernetes.replicas must be 1 for 'evaluate'; got 3"):
        leader(once)


def test_a_users_variable_does_not_take_the_place_of_a_rank() -> None:
    workload = Workload(
        "train", ("python",), {"RANK": "5", "MASTER_ADDR": "x"}, image="i", is_replicable=True, labels={"identity": "a"}
    )
    with pytest.raises(InvalidArgumentError, match="env sets MASTER_ADDR, RANK"):
        leader(workload)


def test_a_training_that_runs_alone_is_a_group_of_one_where_replicas_are_asked_for() -> None:
    assert group_of_one(PodOptions()) == {}
    env = group_of_one(OPTIONS)
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")


# --- failures ------------------------------------------------------------------------------------------------------


def seen(rank: int, phase: str = "Running", code: int | None = None, after: int = 0, **metadata: Any) -> dict[str, Any]:
    """Write a pod as Kubernetes returns it; it ended so many seconds after the start."""
    pod = leader() if rank == 0 else follower(rank)
    pod["metadata"] |= {"creationTimestamp": stamp(0), **metadata}
    pod["status"] = {"phase": phase}
    if code is not None:
        ended = {"exitCode": code, "finishedAt": stamp(after), "reason": "Error"}
        pod["status"]["containerStatuses"] = [{"name": "base", "state": {"terminated": ended}}]
    return pod


def stamp(after: int) -> str:
    return (START + timedelta(seconds=after)).isoformat().replace("+00:00", "Z")


def failed_ranks(*pods: dict[str, Any], at: int = 60, limits: StartLimits | None = LIMITS, **more: Any) -> list[int]:
    now = START + timedelta(seconds=at)
    return [failure.rank for failure in group_failures(pods, NAME, 3, now=now, limits=limits, **more)]


def test_a_group_at_work_has_not_failed() -> None:
    assert failed_ranks(seen(0), seen(1), seen(2)) == []
    assert failed_ranks(seen(0), seen(1, "Succeeded", 0, 5), seen(2, "Pending")) == []


def test_the_rank_that_failed_first_comes_first() -> None:
    pods = [seen(0, "Failed", 1, 9), seen(1, "Failed", 1, 8), seen(2, "Failed", 7, 4)]
    assert failed_ranks(*pods) == [2, 1, 0]
    failures = group_failures(pods, NAME, 3, now=START)
    text = describe_failures(failures, 3)
    assert text.startswith(f"rank 2 of 3 replicas failed, so all were stopped: pod {NAME}-r2 ended with exit code 7")
    assert f"; rank 0 too: pod {NAME} ended with exit code 1" in text


def test_a_rank_whose_code_could_not_be_fetched_failed_when_that_was_tried() -> None:
    pod = seen(1, "Failed")
    ended = {"exitCode": 2, "finishedAt": stamp(3)}
    pod["status"]["initContainerStatuses"] = [{"name": "source", "state": {"terminated": ended}}]
    assert failed_ranks(seen(0, "Failed", 1, 9), pod, seen(2, "Failed", 1, 8)) == [1, 2, 0]


def test_in_the_same_second_rank_0_failed_because_another_did() -> None:
    assert failed_ranks(seen(0, "Failed", 1, 4), seen(1), seen(2, "Failed", 1, 4)) == [2, 0]


def test_a_rank_that_is_gone_or_going_has_failed_unless_its_work_was_done() -> None:
    assert failed_ranks(seen(0), seen(1)) == [2]
    assert failed_ranks(seen(0), seen(1), done={2}) == []
    going = {"deletionTimestamp": stamp(40), "deletionGracePeriodSeconds": 30}
    assert failed_ranks(seen(0), seen(1), seen(2, **going)) == [2]
    assert failed_ranks(seen(0), seen(1), seen(2, "Succeeded", 0, 9, **going)) == []
    stopped = seen(2, "Succeeded", 0, 11, **going)
    assert not ended_well(stopped)
    assert failed_ranks(seen(0, "Failed", 1, 12), seen(1), stopped) == [2, 0]


def test_after_the_good_end_of_rank_0_nobody_has_failed_any_more() -> None:
    done = seen(0, "Succeeded", 0, 10)
    assert failed_ranks(done, seen(1, "Failed", 1, 10), seen(2, "Failed", 1, 11)) == []
    assert failed_ranks(done, seen(1)) == []


def test_a_rank_that_failed_before_the_good_end_of_rank_0_counts() -> None:
    assert failed_ranks(seen(0, "Succeeded", 0, 10), seen(1), seen(2, "Failed", 7, 9)) == [2]


def test_a_rank_that_finds_no_node_or_does_not_start_fails_the_group_in_time() -> None:
    waiting = seen(2, "Pending")
    assert failed_ranks(seen(0), seen(1), waiting, at=599) == []
    assert failed_ranks(seen(0), seen(1), waiting, at=600) == [2]
    assert failed_ranks(seen(0), seen(1), waiting, at=600, limits=None) == []
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(100)}
    waiting["status"]["conditions"] = [scheduled]
    assert failed_ranks(seen(0), seen(1), waiting, at=399) == []
    assert failed_ranks(seen(0), seen(1), waiting, at=400) == [2]
    waiting["status"]["containerStatuses"] = [{"name": "base", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}]
    assert failed_ranks(seen(0), seen(1), waiting, at=101) == [2]


def test_who_has_not_started_is_named_after_who_failed() -> None:
    assert failed_ranks(seen(0), seen(1, "Pending"), seen(2, "Failed", 7, 50), at=700) == [2, 1]
