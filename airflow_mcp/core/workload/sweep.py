"""Which pods and MLflow runs nobody works on any more: decided from plain data. Unknown means keep."""

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
from airflow_mcp.exceptions import InvalidArgumentError

FINAL_TASK_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance after which nothing comes of itself."""
_UNITS: Mapping[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SweepAction = Literal["remove", "keep"]


@dataclass(frozen=True)
class TaskName:
    """Names one task of one Dag run."""

    dag_id: str
    dag_run_id: str
    task_id: str


@dataclass(frozen=True)
class WorkloadPod:
    """What the decision has to know about a pod."""

    name: str
    uid: str
    phase: str
    age: timedelta
    is_being_deleted: bool
    identity: str
    run_id: str
    """MLflow run it logs to; empty when it does not say."""
    owns_run: bool
    """Whether that run ends with this pod; an evaluation writes into a run that has ended before."""
    task: TaskName | None
    leader: str = ""
    """Pod of rank 0 that it trains with; empty for rank 0 itself and for a pod alone."""
    container_ended: bool = False
    """Whether its container has ended; the phase may follow about a second later."""

    @property
    def has_ended(self) -> bool:
        """Whether the work in it is over."""
        return self.container_ended or self.phase in ENDED_PHASES


@dataclass(frozen=True)
class SweepFinding:
    """What is to be done about a pod or a run, and why."""

    name: str
    action: SweepAction
    reason: str
    is_unknown: bool = False
    """Kept because something is not known, not because somebody works on it."""


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
        container_ended=has_ended(pod),
    )


def judge_with_leader(pod: WorkloadPod, leader: SweepFinding) -> SweepFinding:
    """Decide about a pod that trains with others: what becomes of rank 0 becomes of it.

    :param pod: the pod.
    :param leader: what is to be done about rank 0.
    """
    if pod.is_being_deleted:
        return SweepFinding(pod.name, "keep", "is being deleted already")
    return SweepFinding(pod.name, leader.action, f"belongs to {leader.name}: {leader.reason}", leader.is_unknown)


def judge_pod(
    pod: WorkloadPod, run: Run | None, task_state: str | None, *, grace: timedelta, now: datetime
) -> SweepFinding:
    """Decide about one pod.

    :param pod: the pod.
    :param run: its MLflow run; None when it is not known.
    :param task_state: state of its task; None when it is not known, or not asked for.
    :param grace: age that a pod, and the end of its run, must have for it to be a leftover.
    :param now: present time, with a time zone.
    """
    if pod.is_being_deleted:
        return SweepFinding(pod.name, "keep", "is being deleted already")
    if task_state in FINAL_TASK_STATES and not pod.has_ended:
        return SweepFinding(pod.name, "remove", f"runs on although its task is {task_state}")
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
        return SweepFinding(pod.name, "keep", "it works on a run that had ended before it began", is_unknown=True)
    if run.end_time is not None and now.timestamp() - run.end_time / 1000 < grace.total_seconds():
        return SweepFinding(pod.name, "keep", f"its MLflow run is {status} since less than {format_age(grace)}")
    return SweepFinding(pod.name, "remove", f"its MLflow run is {status}")


def judge_run(
    run: Run, pods: Iterable[WorkloadPod], task_state: str | None, *, grace: timedelta, now: datetime
) -> SweepFinding:
    """Decide about a live MLflow run: it is abandoned when its task has ended and it has no pod at work.

    :param run: the run.
    :param pods: every pod of ours in the namespace.
    :param task_state: state of its task; None when it is not known.
    :param grace: age that the run must have.
    :param now: present time, with a time zone.
    """
    identity = run.tags.get(TAG_IDENTITY, "")
    for pod in pods:
        if not pod.has_ended and (pod.run_id == run.run_id or (identity and pod.identity == identity)):
            return SweepFinding(run.run_id, "keep", f"pod {pod.name} is at work for it")
    if run.start_time is None or now.timestamp() - run.start_time / 1000 < grace.total_seconds():
        return SweepFinding(run.run_id, "keep", f"is younger than {format_age(grace)}")
    if task_state is None:
        return SweepFinding(run.run_id, "keep", "the state of its task is not known", is_unknown=True)
    if task_state not in FINAL_TASK_STATES:
        return SweepFinding(run.run_id, "keep", f"its task is {task_state}")
    return SweepFinding(run.run_id, "remove", f"its task is {task_state} and no pod works for it")


def task_of(run: Run) -> TaskName | None:
    """Name the task that created a run, as far as its tags say."""
    parts = [run.tags.get(tag, "") for tag in (TAG_DAG_ID, TAG_DAG_RUN_ID, TAG_TASK_ID)]
    return TaskName(*parts) if all(parts) else None


def task_state(task: TaskName, states: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Find the state of a task in Airflow's answer about task states.

    :param task: the task.
    :param states: Dag run id to a mapping of task id to state; mapped tasks are ``<task id>_<map index>``.
    :return: its state, or None when it is not known. Of a mapped task: the first that is not final, because
        which index a pod belongs to is not recorded.
    """
    mapped = re.compile(rf"{re.escape(task.task_id)}(_\d+)?")
    found = [
        str(state or "none") for name, state in (states.get(task.dag_run_id) or {}).items() if mapped.fullmatch(name)
    ]
    return next((state for state in found if state not in FINAL_TASK_STATES), found[0] if found else None)


def parse_age(name: str, text: str) -> timedelta:
    """Read an age such as ``90s``, ``30m``, ``1h`` or ``2d``.

    :param name: name of the argument, for the message.
    :param text: the age.
    :raises InvalidArgumentError: for anything else.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise InvalidArgumentError(f"{name} is {text!r}; allowed: a number and one of s, m, h, d, for example 1h")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def format_age(age: timedelta) -> str:
    """Write an age in its largest whole unit, for example ``90s``, ``3h``."""
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
