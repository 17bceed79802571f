"""Which pods and MLflow runs are left over, decided from plain data. When in doubt they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from airflow_mcp.core.contract import TAG_DAG_ID, TAG_DAG_RUN_ID, TAG_IDENTITY, TAG_TASK_ID
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.pod import (
    ANNOTATION_OWNS_RUN,
    ANNOTATION_PREFIX,
    ANNOTATION_RUN,
    LABEL_GROUP,
    LABEL_IDENTITY,
    LABEL_RANK,
)
from airflow_mcp.core.workload.pod_ending import ENDED_PHASES, has_ended
from airflow_mcp.core.workload.targets import ANNOTATION_TARGET
from airflow_mcp.exceptions import InvalidArgumentError

FINAL_TASK_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance that do not change without somebody's doing."""
_UNITS: Mapping[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SweepAction = Literal["remove", "keep"]


@dataclass(frozen=True)
class TaskName:
    """The name of one task of one Dag run."""

    dag_id: str
    dag_run_id: str
    task_id: str


@dataclass(frozen=True)
class WorkloadPod:
    """The facts about a pod that the decision needs."""

    name: str
    uid: str
    phase: str
    age: timedelta
    is_being_deleted: bool
    identity: str
    run_id: str
    """MLflow run that it logs to; empty when unknown."""
    owns_run: bool
    """Whether that run ends with this pod; an evaluation logs to a run that ended before."""
    task: TaskName | None
    leader: str = ""
    """Pod of rank 0 that it trains with; empty for rank 0 itself and for a single pod."""
    target: str = ""
    """What created it, by the name of ``kubernetes.target``; empty for Airflow."""
    object_name: str = ""
    """The Job, TrainJob or RayJob that created it."""
    container_ended: bool = False
    """Whether its container has ended; the phase may follow about a second later."""

    @property
    def has_ended(self) -> bool:
        """Whether the work in it is over."""
        return self.container_ended or self.phase in ENDED_PHASES


@dataclass(frozen=True)
class SweepFinding:
    """The decision about a pod or a run, and its reason."""

    name: str
    action: SweepAction
    reason: str
    is_unknown: bool = False
    """Whether it is kept because something is unknown, and not because it is in use."""


def read_workload_pod(pod: Mapping[str, Any], now: datetime) -> WorkloadPod:
    """Read a pod as the API returns it in JSON.

    :param pod: the pod.
    :param now: present time, with a time zone.
    """
    metadata = pod.get("metadata") or {}
    notes, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    parts = [notes.get(f"{ANNOTATION_PREFIX}{name}", "") for name in ("dag-id", "run-id", "task-id")]
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    return WorkloadPod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        phase=(pod.get("status") or {}).get("phase", "Unknown"),
        age=now - created,
        is_being_deleted=bool(metadata.get("deletionTimestamp")),
        identity=labels.get(LABEL_IDENTITY, ""),
        run_id=notes.get(ANNOTATION_RUN, ""),
        owns_run=notes.get(ANNOTATION_OWNS_RUN) == "true",
        task=TaskName(*parts) if all(parts) else None,
        leader=labels.get(LABEL_GROUP, "") if labels.get(LABEL_RANK, "0") != "0" else "",
        target=notes.get(ANNOTATION_TARGET, ""),
        object_name=labels.get(LABEL_GROUP, "") if ANNOTATION_TARGET in notes else "",
        container_ended=has_ended(pod),
    )


def judge_with_leader(pod: WorkloadPod, leader: SweepFinding) -> SweepFinding:
    """Decide about a follower: it shares the decision about rank 0.

    :param pod: the pod.
    :param leader: the decision about rank 0.
    """
    if pod.is_being_deleted:
        return SweepFinding(pod.name, "keep", "is being deleted already")
    return SweepFinding(pod.name, leader.action, f"belongs to {leader.name}: {leader.reason}", leader.is_unknown)


def judge_pod(
    pod: WorkloadPod, run: Run | None, task_state: str | None, *, grace: timedelta, now: datetime
) -> SweepFinding:
    """Decide about one pod.

    :param pod: the pod.
    :param run: its MLflow run; None when unknown.
    :param task_state: state of its task; None when unknown.
    :param grace: minimum age of a leftover pod, and minimum time since the end of its run.
    :param now: present time, with a time zone.
    """
    if pod.is_being_deleted:
        return SweepFinding(pod.name, "keep", "is being deleted already")
    if task_state in FINAL_TASK_STATES and not pod.has_ended:
        return SweepFinding(pod.name, "remove", f"still runs although its task is {task_state}")
    if pod.age < grace:
        return SweepFinding(pod.name, "keep", f"is younger than {format_age(grace)}")
    if task_state in FINAL_TASK_STATES:
        return SweepFinding(pod.name, "remove", f"its task is {task_state}")
    if task_state is not None:
        return SweepFinding(pod.name, "keep", f"its task is {task_state}")
    return _judge_by_run(pod, run, grace, now)


def _judge_by_run(pod: WorkloadPod, run: Run | None, grace: timedelta, now: datetime) -> SweepFinding:
    if run is None:
        return SweepFinding(
            pod.name, "keep", f"its MLflow run {pod.run_id or '(none named)'} is not known", is_unknown=True
        )
    if run.is_live:
        return SweepFinding(pod.name, "keep", f"its MLflow run is {run.status}")
    status = run.status if run.lifecycle_stage == "active" else run.lifecycle_stage
    if pod.has_ended:
        return SweepFinding(pod.name, "remove", f"it has ended and its MLflow run is {status}")
    if not pod.owns_run:
        return SweepFinding(pod.name, "keep", "it logs to a run that ended before it began", is_unknown=True)
    if run.end_time is not None and now.timestamp() - run.end_time / 1000 < grace.total_seconds():
        return SweepFinding(pod.name, "keep", f"its MLflow run has been {status} for less than {format_age(grace)}")
    return SweepFinding(pod.name, "remove", f"its MLflow run is {status}")


def judge_run(
    run: Run, pods: Iterable[WorkloadPod], task_state: str | None, *, grace: timedelta, now: datetime
) -> SweepFinding:
    """Decide about a live MLflow run: it is abandoned if its task has ended and no pod of it runs.

    :param run: the run.
    :param pods: all workload pods of the namespace.
    :param task_state: state of its task; None when unknown.
    :param grace: minimum age of an abandoned run.
    :param now: present time, with a time zone.
    """
    identity = run.tags.get(TAG_IDENTITY, "")
    for pod in pods:
        if not pod.has_ended and (pod.run_id == run.run_id or (identity and pod.identity == identity)):
            return SweepFinding(run.run_id, "keep", f"pod {pod.name} still runs for it")
    if run.start_time is None or now.timestamp() - run.start_time / 1000 < grace.total_seconds():
        return SweepFinding(run.run_id, "keep", f"is younger than {format_age(grace)}")
    if task_state is None:
        return SweepFinding(run.run_id, "keep", "the state of its task is not known", is_unknown=True)
    if task_state not in FINAL_TASK_STATES:
        return SweepFinding(run.run_id, "keep", f"its task is {task_state}")
    return SweepFinding(run.run_id, "remove", f"its task is {task_state} and no pod runs for it")


def task_of(run: Run) -> TaskName | None:
    """Return the task that created a run; None when its tags do not name one."""
    parts = [run.tags.get(tag, "") for tag in (TAG_DAG_ID, TAG_DAG_RUN_ID, TAG_TASK_ID)]
    return TaskName(*parts) if all(parts) else None


def task_state(task: TaskName, states: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the state of a task from Airflow's answer about task states.

    :param task: the task.
    :param states: Dag run id to a mapping of task id to state; mapped tasks are ``<task id>_<map index>``.
    :return: its state; None when unknown. For a mapped task the first state that is not final, because pods do not
        record their map index.
    """
    mapped = re.compile(rf"{re.escape(task.task_id)}(_\d+)?")
    found = [
        str(state or "none") for name, state in (states.get(task.dag_run_id) or {}).items() if mapped.fullmatch(name)
    ]
    return next((state for state in found if state not in FINAL_TASK_STATES), found[0] if found else None)


def parse_age(name: str, text: str) -> timedelta:
    """Parse an age such as ``90s``, ``30m``, ``1h`` or ``2d``.

    :param name: name of the argument, for the message.
    :param text: the age.
    :raises InvalidArgumentError: for anything else.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise InvalidArgumentError(f"{name} must be a number and one of s, m, h, d, for example 1h; got {text!r}")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def format_age(age: timedelta) -> str:
    """Return an age in its largest whole unit, for example ``90s``, ``3h``."""
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
