"""Training on several pods, as plain data: Airflow watches the pod of rank 0, and the others belong to it.

A group consists of rank 0 (the leader), a Service through which the others find it, and the pods of ranks 1 and up
(followers). The leader owns all of them, so Kubernetes removes them with it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_mcp.core.contract import ENV_MLFLOW_RUN_ID
from airflow_mcp.core.workload.definition import Workload
from airflow_mcp.core.workload.pod import CONTAINER, LABEL_GROUP, LABEL_RANK
from airflow_mcp.core.workload.pod_ending import (
    PodEnding,
    deletion_time,
    ended_well,
    moment,
    read_ending,
    terminated,
)
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError

# --- environment of every replica, by the names of torch.distributed and of indexed Jobs; never renamed --------
ENV_RANK = "RANK"
"""Number of this replica, from 0; rank 0 ends the MLflow run."""
ENV_WORLD_SIZE = "WORLD_SIZE"
"""Number of replicas."""
ENV_LOCAL_RANK = "LOCAL_RANK"
"""Number of the process within its replica: 0."""
ENV_MASTER_ADDR = "MASTER_ADDR"
"""IP address of rank 0."""
ENV_MASTER_PORT = "MASTER_PORT"
"""Port for rank 0 to listen on."""
ENV_COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""The same as ``RANK``."""

ANNOTATION_REPLICAS = "airflow-mcp.io/replicas"
"""Number of pods of the group, including rank 0."""
NEVER_STARTS = frozenset({"ErrImageNeverPull", "InvalidImageName"})
"""Reasons for waiting that never pass."""
OWN_ADDRESS: Mapping[str, Any] = {"fieldRef": {"fieldPath": "status.podIP"}}


@dataclass(frozen=True)
class StartLimits:
    """Time limits for the start of a pod."""

    schedule: float
    """Seconds until it must be scheduled."""
    startup: float
    """Seconds from then until its container must run."""


@dataclass(frozen=True)
class RankFailure:
    """A replica that failed, vanished or did not start."""

    rank: int
    ending: PodEnding
    at: datetime | None = None
    """When it failed; None when that is unknown or it has not started."""

    @property
    def has_ended(self) -> bool:
        """Whether it ran and ended, so that there is a log to look at."""
        return self.ending.has_ended


def follower_name(leader: str, rank: int) -> str:
    """Return the name of a follower's pod."""
    return f"{leader}-r{rank}"


def service_name(leader: str) -> str:
    """Return the name of a group's Service; unlike a pod's, it must begin with a letter."""
    return f"r0-{leader}"


def group_of_one(options: PodOptions) -> dict[str, str]:
    """Return the rank variables of a training that runs alone although it is for several pods; otherwise none.

    :param options: options of its pods.
    """
    if options.replicas == 1:
        return {}
    return {**_ranks(0, 1, options.rendezvous_port), ENV_MASTER_ADDR: "127.0.0.1"}


def as_leader(manifest: Mapping[str, Any], workload: Workload, options: PodOptions) -> dict[str, Any]:
    """Return the manifest of rank 0; that of a single pod stays unchanged.

    :param manifest: manifest of a single pod.
    :param workload: what runs.
    :param options: number of pods, and port of the rendezvous.
    :raises InvalidArgumentError: when the work cannot run on several pods, or ``env`` sets a variable of the ranks.
    """
    pod = copy.deepcopy(dict(manifest))
    if options.replicas == 1:
        return pod
    require_group(workload, options)
    ranks = _ranks(0, options.replicas, options.rendezvous_port)
    name = pod["metadata"]["name"]
    pod["metadata"].setdefault("labels", {}).update({LABEL_GROUP: name, LABEL_RANK: "0"})
    pod["metadata"].setdefault("annotations", {})[ANNOTATION_REPLICAS] = str(options.replicas)
    env = [{"name": variable, "value": value} for variable, value in ranks.items()]
    _base(pod)["env"] = [*_base(pod).get("env", []), *env, {"name": ENV_MASTER_ADDR, "valueFrom": OWN_ADDRESS}]
    return pod


def require_group(workload: Workload, options: PodOptions) -> None:
    """Check that a workload can run as the ranks of one training.

    :param workload: what runs.
    :param options: number of pods, and who creates them.
    :raises InvalidArgumentError: when it cannot, or ``env`` sets a variable of the ranks.
    """
    if not workload.is_replicable:
        name, value, only = "replicas", str(options.replicas), "1"
        if options.target != "pods":
            name, value, only = "target", repr(options.target), "'pods'"
        raise InvalidArgumentError(
            f"kubernetes.{name} must be {only} for {workload.name!r}; got {value}. Only trainings run on "
            "several pods: set the option on their operator, not as a default. Nothing was started"
        )
    taken = sorted({*_ranks(0, 1, 0), ENV_MASTER_ADDR} & workload.env.keys())
    if taken:
        raise InvalidArgumentError(
            f"env sets {', '.join(taken)}, which kubernetes.replicas={options.replicas} sets itself. Remove them"
        )


def as_follower(leader: Mapping[str, Any], rank: int, *, uid: str, address: str) -> dict[str, Any]:
    """Return the manifest of a follower: like rank 0, but unable to end the MLflow run by accident.

    :param leader: manifest that rank 0 was created from.
    :param rank: 1 or above.
    :param uid: UID of rank 0's pod, the owner.
    :param address: address of rank 0.
    """
    pod = copy.deepcopy(dict(leader))
    name = pod["metadata"]["name"]
    pod["metadata"].update(name=follower_name(name, rank), ownerReferences=[owner_reference(name, uid)])
    pod["metadata"]["labels"][LABEL_RANK] = str(rank)
    changed = {
        ENV_RANK: str(rank),
        ENV_COMPLETION_INDEX: str(rank),
        ENV_MASTER_ADDR: address,
    }
    left_out = {ENV_MLFLOW_RUN_ID, *changed}
    env = [variable for variable in _base(pod)["env"] if variable["name"] not in left_out]
    _base(pod)["env"] = [*env, *({"name": variable, "value": value} for variable, value in changed.items())]
    return pod


def group_service(leader: Mapping[str, Any], *, uid: str) -> dict[str, Any]:
    """Return the Service through which the other ranks find rank 0; its address needs no DNS.

    :param leader: manifest of rank 0.
    :param uid: UID of rank 0's pod, the owner.
    """
    name, labels = leader["metadata"]["name"], leader["metadata"]["labels"]
    port = next(int(item["value"]) for item in _base(leader)["env"] if item["name"] == ENV_MASTER_PORT)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(name),
            "labels": dict(labels),
            "ownerReferences": [owner_reference(name, uid)],
        },
        "spec": {
            "selector": {LABEL_GROUP: name, LABEL_RANK: "0"},
            "ports": [{"name": "rendezvous", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def owner_reference(name: str, uid: str) -> dict[str, Any]:
    """Return a reference to a pod as owner; Kubernetes removes what it owns with it."""
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


def group_size(pod: Mapping[str, Any]) -> int:
    """Return the number of pods in the group of a pod; 1 for a single pod."""
    return int(((pod.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_REPLICAS, "1"))


def rank_of(pod: Mapping[str, Any]) -> int:
    """Return the rank of a pod; 0 for a single pod."""
    return int(((pod.get("metadata") or {}).get("labels") or {}).get(LABEL_RANK, "0"))


def group_failures(
    pods: Iterable[Mapping[str, Any]],
    leader: str,
    size: int,
    *,
    now: datetime,
    limits: StartLimits | None = None,
    done: Collection[int] = (),
) -> list[RankFailure]:
    """Return the replicas of a group that failed, were deleted or did not start, in the order in which they failed.

    Once rank 0 has ended well, only earlier failures count: ranks that still wait for it may fail.

    :param pods: pods of the group as the API returns them in JSON.
    :param leader: name of rank 0's pod.
    :param size: number of pods of the group.
    :param now: present time, with a time zone.
    :param limits: time limits for the start; None sets none.
    :param done: ranks that are known to have ended well; their pods may be gone.
    """
    by_rank = {rank_of(pod): pod for pod in pods}
    failures = []
    for rank in range(size):
        pod = by_rank.get(rank)
        failure = _missing(leader, rank) if pod is None else _failure(rank, pod, now, limits)
        if failure is not None and not (pod is None and rank in done):
            failures.append(failure)
    first = by_rank.get(0)
    if first is not None and ended_well(first):
        end = moment((terminated(first) or {}).get("finishedAt"))
        failures = [item for item in failures if item.at is not None and end is not None and item.at < end]
    return sorted(failures, key=_order)


def describe_failures(failures: Sequence[RankFailure], size: int) -> str:
    """Describe what ended a group.

    :param failures: in the order in which they failed.
    :param size: number of pods.
    """
    first, *others = failures
    also = "".join(f"; rank {item.rank} too: {item.ending.describe()}" for item in others)
    return f"rank {first.rank} of {size} replicas failed, so all were stopped: {first.ending.describe()}{also}"


def _ranks(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        ENV_RANK: str(rank),
        ENV_COMPLETION_INDEX: str(rank),
        ENV_LOCAL_RANK: "0",
        ENV_WORLD_SIZE: str(size),
        ENV_MASTER_PORT: str(port),
    }


def _base(pod: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in pod["spec"]["containers"] if item["name"] == CONTAINER)
    return found


def _missing(leader: str, rank: int) -> RankFailure:
    return RankFailure(rank, PodEnding(name=follower_name(leader, rank) if rank else leader, deleted=True))


def _failure(rank: int, pod: Mapping[str, Any], now: datetime, limits: StartLimits | None) -> RankFailure | None:
    if ended_well(pod):
        return None
    ending, asked = read_ending(pod), deletion_time(pod)
    if asked is not None or ending.has_ended:
        return RankFailure(rank, ending, asked or end_time(pod.get("status") or {}))
    if limits is not None and ending.phase == "Pending" and not may_start(pod, now, limits):
        return RankFailure(rank, ending)
    return None


def may_start(pod: Mapping[str, Any], now: datetime, limits: StartLimits) -> bool:
    """Return whether a pod that waits to start still has time, and no reason that never passes.

    :param pod: the pod as the API returns it in JSON.
    :param now: present time, with a time zone.
    :param limits: time limits for the start.
    """
    status = pod["status"]
    states = [item.get("state") or {} for item in status.get("containerStatuses") or []]
    if {(state.get("waiting") or {}).get("reason") for state in states} & NEVER_STARTS:
        return False
    scheduled = next(
        (
            moment(item.get("lastTransitionTime"))
            for item in status.get("conditions") or []
            if item.get("type") == "PodScheduled" and item.get("status") == "True"
        ),
        None,
    )
    since = scheduled or moment(pod["metadata"].get("creationTimestamp")) or now
    return now - since < timedelta(seconds=limits.schedule if scheduled is None else limits.startup)


def end_time(status: Mapping[str, Any]) -> datetime | None:
    """Return when the last container of a pod ended, which may be an init container."""
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ended = [(item.get("state") or {}).get("terminated") or {} for item in containers]
    return max((at for item in ended if (at := moment(item.get("finishedAt")))), default=None)


def _order(failure: RankFailure) -> tuple[bool, float, bool, int]:
    """Return a sort key by time, which Kubernetes reports in seconds; in the same second rank 0 comes last.

    Rank 0 then failed because another did. A pod that is gone was deleted earlier; one that has not started comes last.
    """
    waits = failure.at is None and not failure.ending.deleted
    return waits, failure.at.timestamp() if failure.at else 0, failure.rank == 0, failure.rank
