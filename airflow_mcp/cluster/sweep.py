"""Judges the pods of a namespace by what MLflow and Airflow know about their work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_mcp.cluster.client import Cluster
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.sweep import (
    SweepFinding,
    TaskName,
    WorkloadPod,
    judge_pod,
    judge_with_leader,
    read_workload_pod,
)
from airflow_mcp.exceptions import MlflowNotFoundError


@dataclass(frozen=True)
class JudgedPod:
    """A pod and the decision about it."""

    pod: WorkloadPod
    finding: SweepFinding


def workload_pods(cluster: Cluster, now: datetime) -> list[WorkloadPod]:
    """Return the workload pods of a namespace, oldest first.

    :param cluster: the namespace.
    :param now: present time, with a time zone.
    """
    return sorted((read_workload_pod(pod, now) for pod in cluster.workload_pods()), key=lambda pod: -pod.age)


def judge_pods(
    pods: Sequence[WorkloadPod],
    *,
    run_of: Callable[[str], Run],
    task_state_of: Callable[[TaskName], str | None],
    grace: timedelta,
    now: datetime,
) -> list[JudgedPod]:
    """Decide about pods; those of one group share a decision.

    :param pods: the pods.
    :param run_of: returns an MLflow run, or raises that it does not exist.
    :param task_state_of: returns the state of a task; None when unknown.
    :param grace: minimum age of a leftover.
    :param now: present time, with a time zone.
    :raises MlflowError: when MLflow does not answer; nothing was decided.
    """
    found: dict[str, SweepFinding] = {}
    for pod in sorted(pods, key=lambda pod: bool(pod.leader)):
        if pod.leader in found:
            found[pod.name] = judge_with_leader(pod, found[pod.leader])
            continue
        state = task_state_of(pod.task) if pod.task else None
        found[pod.name] = judge_pod(pod, _run_of(pod, run_of), state, grace=grace, now=now)
    return [JudgedPod(pod, found[pod.name]) for pod in pods]


def _run_of(pod: WorkloadPod, run_of: Callable[[str], Run]) -> Run | None:
    if not pod.run_id:
        return None
    try:
        return run_of(pod.run_id)
    except MlflowNotFoundError:
        return None


def remove_leftovers(cluster: Cluster, judged: Iterable[JudgedPod]) -> list[str]:
    """Delete the leftovers, and the Job, TrainJob or RayJob that would create a pod again.

    :return: names of the pods that still existed.
    """
    leftovers = [item.pod for item in judged if item.finding.action == "remove"]
    for target, name in dict.fromkeys((pod.target, pod.object_name) for pod in leftovers if pod.object_name):
        cluster.delete_object(target, name)
    return [pod.name for pod in leftovers if cluster.delete_pod(pod.name, pod.uid)]
