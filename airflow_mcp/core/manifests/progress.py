"""How the rollout of a Deployment's pods stands, and what its pods say when it does not end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

LABEL_HASH = "pod-template-hash"
"""Kubernetes puts it on a ReplicaSet and its pods."""


class Progress(NamedTuple):
    """How a rollout stands."""

    phase: Literal["waiting", "complete", "failed"]
    reason: str


def progress_of(deployment: Mapping[str, Any]) -> Progress:
    """Return how the rollout of a Deployment stands.

    :param deployment: the Deployment, as JSON.
    """
    status, spec = deployment.get("status") or {}, deployment["spec"]
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return Progress("waiting", "Kubernetes has not seen the change yet")
    reasons = {each.get("reason") for each in status.get("conditions") or () if each["type"] == "Progressing"}
    if "ProgressDeadlineExceeded" in reasons:
        seconds = spec.get("progressDeadlineSeconds", 600)
        return Progress("failed", f"no pod has become ready for {seconds} s (ProgressDeadlineExceeded)")
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    total, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    if updated < wanted:
        return Progress("waiting", f"pods with the new template: {updated} of {wanted}")
    if total > updated:
        return Progress("waiting", f"old pods that have not ended: {total - updated}")
    if available < updated:
        return Progress("waiting", f"new pods that are ready: {available} of {updated}")
    return Progress("complete", f"pods that are ready: {available} of {wanted}")


def describe_pods(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the pods that are not ready, one line each: why their containers wait, or how they ended.

    :param pods: pods, as JSON.
    """
    return [f"pod {pod['metadata']['name']}: {'; '.join(_problems(pod))}" for pod in pods if not _is_ready(pod)]


def _is_ready(pod: Mapping[str, Any]) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def _problems(pod: Mapping[str, Any]) -> list[str]:
    status = pod.get("status") or {}
    found = [text for item in status.get("containerStatuses") or () for text in _of_container(item)]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            found.append(f"not scheduled: {condition.get('message', condition.get('reason', ''))}")
    return found or [f"phase {status.get('phase', 'unknown')}, no container has started"]


def _of_container(item: Mapping[str, Any]) -> Iterator[str]:
    state, last = item.get("state") or {}, (item.get("lastState") or {}).get("terminated")
    if waiting := state.get("waiting"):
        yield _with_message(f"waiting: {waiting.get('reason', '')}", waiting)
    elif "running" in state:
        yield "running, but not ready"
    if ended := state.get("terminated") or last:
        yield _with_message(f"ended with exit code {ended.get('exitCode')} ({ended.get('reason', '')})", ended)
    if item.get("restartCount"):
        yield f"restarted {item['restartCount']} times"


def _with_message(text: str, state: Mapping[str, Any]) -> str:
    message = str(state.get("message") or "").strip()
    return f"{text}: {message}" if message else text
