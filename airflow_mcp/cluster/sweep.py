"""Look at the pods of a namespace, with what MLflow and Airflow know about their work."""

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
    """A pod and what is to be done about it."""

    pod: WorkloadPod
    finding: SweepFinding


def workload_pods(cluster: Cluster, now: datetime) -> list[WorkloadPod]:
    """Read the pods of ours, oldest first.

    :param cluster: where to look.
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
    """Decide about pods; those that train together stay or go together.

    :param pods: the pods.
    :param run_of: reads an MLflow run; a run that does not exist is not known.
    :param task_state_of: reads the state of a task; None when it is not known.
    :param grace: age below which a pod that has ended is kept.
    :param now: present time, with a time zone.
    :raises MlflowError: when MLflow cannot be asked; nothing was decided.
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
    """Delete the pods that are to be removed.

    :return: names of those that were still there.
    """
    leftovers = [item.pod for item in judged if item.finding.action == "remove"]
    return [pod.name for pod in leftovers if cluster.delete_pod(pod.name, pod.uid)]
