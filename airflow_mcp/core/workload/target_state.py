"""How a training that runs as a Job, a TrainJob or a RayJob stands, read from the JSON that the API returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from airflow_mcp.core.workload.pod import CONTAINER, LABEL_QUEUE, LABEL_RANK
from airflow_mcp.core.workload.pod_ending import (
    PodEnding,
    deletion_time,
    ended_well,
    has_ended,
    moment,
    read_ending,
)
from airflow_mcp.core.workload.replicas import StartLimits, end_time, may_start
from airflow_mcp.core.workload.targets import ANNOTATION_TARGET, TARGETS

Phase = Literal["queued", "running", "succeeded", "failed"]
Standing = Literal["waiting", "success", "failed", "gone"]

_INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation of the pods of an indexed Job; a label too since Kubernetes 1.28."""
_RAY_ENDED_BADLY = frozenset({"FAILED", "STOPPED"})


@dataclass(frozen=True)
class TargetState:
    """What the controller of an object says about it."""

    phase: Phase
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    """Since when its pods may exist; None when unknown."""

    @property
    def is_timeout(self) -> bool:
        """Whether it was stopped at its deadline."""
        return self.reason == "DeadlineExceeded"

    def describe(self) -> str:
        """Return reason and message; empty without either."""
        return ": ".join(part for part in (self.reason, self.message.strip()) if part)


@dataclass(frozen=True)
class Look:
    """What one look at an object and its pods concludes."""

    standing: Standing
    says: str
    """One sentence for the log; why, when it failed."""


def read_state(target: str, found: Mapping[str, Any]) -> TargetState:
    """Read what the controller of an object says.

    :param target: ``job``, ``train_job`` or ``ray_job``.
    :param found: the object as the API returns it in JSON.
    """
    return _ray_state(found) if target == "ray_job" else _state_of_conditions(found)


def as_workload_pod(target: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod with the container of the work under the name that it has in single pods.

    :param target: what created the pod.
    :param pod: the pod as the API returns it in JSON.
    """
    name, status, spec = TARGETS[target].container, dict(pod.get("status") or {}), dict(pod.get("spec") or {})
    if name == CONTAINER:
        return dict(pod)
    for part, field in ((status, "containerStatuses"), (spec, "containers")):
        part[field] = [
            {**item, "name": CONTAINER if item.get("name") == name else item.get("name")}
            for item in part.get(field) or []
        ]
    return {**pod, "status": status, "spec": spec}


def leading_pod(pods: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the pod whose output is the log of the task: rank 0, or the submitter of a RayJob.

    :param pods: pods of one object as the API returns them in JSON.
    :return: the newest such pod; None when there is none.
    """
    found = [pod for pod in pods if _rank(pod) == "0"]
    return max(found, key=lambda pod: str((pod.get("metadata") or {}).get("creationTimestamp")), default=None)


def failed_endings(target: str, pods: Iterable[Mapping[str, Any]]) -> list[PodEnding]:
    """Return how pods ended that failed or were deleted, in the order in which they did.

    :param target: what created the pods.
    :param pods: the pods as the API returns them in JSON.
    """
    bad = []
    for pod in (as_workload_pod(target, each) for each in pods):
        asked = deletion_time(pod)
        if (has_ended(pod) or asked) and not ended_well(pod):
            at = asked or end_time(pod.get("status") or {})
            bad.append((at is None, at.timestamp() if at else 0.0, asked is not None, read_ending(pod)))
    return [ending for *_, ending in sorted(bad, key=lambda item: item[:3])]


def look(
    target: str,
    found: Mapping[str, Any] | None,
    pods: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    limits: StartLimits,
) -> Look:
    """Conclude how a training stands.

    :param target: what it runs as.
    :param found: the object as the API returns it in JSON; None when there is none.
    :param pods: its pods.
    :param now: present time, with a time zone.
    :param limits: time limits for the start of its pods; they do not run while it is queued.
    """
    kind = TARGETS[target].kind
    if found is None or (found.get("metadata") or {}).get("deletionTimestamp"):
        return Look("gone", f"the {kind} was deleted")
    state, name = read_state(target, found), found["metadata"]["name"]
    if state.phase == "succeeded":
        return Look("success", f"{kind} {name} has succeeded")
    if state.phase == "failed":
        return Look("failed", f"{kind} {name} failed{_with(state.describe())}")
    if state.phase == "queued":
        queue = (found["metadata"].get("labels") or {}).get(LABEL_QUEUE)
        waits = f"waits in queue {queue!r}" if queue else "is suspended"
        return Look("waiting", f"{kind} {name} {waits}{_with(state.message)}")
    late = _late(target, pods, state, now, limits)
    if late:
        return Look("failed", f"{kind} {name} did not start: {late}")
    running = sum((pod.get("status") or {}).get("phase") == "Running" for pod in pods)
    return Look("waiting", f"{kind} {name}: {running} of {len(pods)} pods run")


def _late(
    target: str, pods: Sequence[Mapping[str, Any]], state: TargetState, now: datetime, limits: StartLimits
) -> str:
    """Return why the training has not started in time; empty while it has time."""
    for pod in (as_workload_pod(target, each) for each in pods):
        if (pod.get("status") or {}).get("phase") == "Pending" and not may_start(pod, now, limits):
            return read_ending(pod).describe()
    if not pods and state.since is not None and now - state.since > timedelta(seconds=limits.schedule):
        return f"it has no pods after {limits.schedule:g} s. Check that its controller runs, and its events"
    return ""


def _with(text: str) -> str:
    return f" ({text})" if text else ""


def _rank(pod: Mapping[str, Any]) -> str:
    """Return the rank of a pod; a Job of one pod does not number it."""
    metadata, labels = pod.get("metadata") or {}, (pod.get("metadata") or {}).get("labels") or {}
    notes = metadata.get("annotations") or {}
    index = notes.get(_INDEX) or labels.get(_INDEX) or labels.get(LABEL_RANK)
    is_ray = notes.get(ANNOTATION_TARGET) == "ray_job"
    return str(index) if index else "" if is_ray else "0"


def _state_of_conditions(found: Mapping[str, Any]) -> TargetState:
    """Read the conditions of a Job or a TrainJob, which have the same names."""
    status = found.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    held = {name: item for name, item in conditions.items() if item.get("status") == "True"}
    for name, phase in (("Failed", "failed"), ("Complete", "succeeded")):
        if name in held:
            told = held[name].get("reason") or "", held[name].get("message") or ""
            return TargetState(phase, *told)  # type: ignore[arg-type]  # a phase
    suspended = conditions.get("Suspended") or {}
    if "Suspended" in held or (found.get("spec") or {}).get("suspend"):
        return TargetState("queued", "Suspended", suspended.get("message") or "")
    since = suspended.get("lastTransitionTime") or found["metadata"].get("creationTimestamp")
    return TargetState("running", since=moment(since))


def _ray_state(found: Mapping[str, Any]) -> TargetState:
    """Read the status of a RayJob: that of the cluster that KubeRay makes, and that of the job in it."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    deployment, job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    told = status.get("reason") or "", status.get("message") or ""
    if deployment == "Failed" or job in _RAY_ENDED_BADLY:
        return TargetState("failed", told[0] or job, told[1])
    if deployment == "Complete" or job == "SUCCEEDED":
        return TargetState("succeeded", *told)
    if deployment in ("Suspended", "Suspending") or (spec.get("suspend") and not deployment):
        return TargetState("queued", "Suspended", told[1])
    since = status.get("startTime") or found["metadata"].get("creationTimestamp")
    return TargetState("running", since=moment(since))
