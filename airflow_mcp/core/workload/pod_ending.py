"""How a pod ended, read from the JSON that the API returns.

The containers decide, not the phase alone. Up to Kubernetes 1.26 the phase leaves ``Running`` in the same update that
reports the container as terminated; since then it may follow about a second later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_mcp.core.workload.pod import CONTAINER

ENDED_PHASES = frozenset({"Succeeded", "Failed"})
_STOPPED = (137, 143)
"""Exit codes of a container that was ended by SIGKILL and SIGTERM."""
_HINTS: Mapping[str, str] = {
    "OOMKilled": "its memory limit is too small for the work: raise workload_resources memory",
    "Evicted": "the node ran short of a resource; a retry may run elsewhere",
    "DeadlineExceeded": "it ran longer than workload_timeout",
    "Unschedulable": "no node has room for its requests, or none matches its selector and tolerations",
    "CreateContainerConfigError": "a Secret or ConfigMap that it names does not exist",
}


class PodEnding(BaseModel):
    """How a pod ended, or why it has not started, as far as Kubernetes still knows."""

    model_config = ConfigDict(frozen=True)

    name: str
    container: str = CONTAINER
    """The container that decided it: the workload's own, or an init container that kept it from starting."""
    node: str = ""
    phase: str = ""
    reason: str = ""
    """Reason of the pod or the container, for example ``OOMKilled``, ``Evicted``, ``ImagePullBackOff``."""
    message: str = ""
    exit_code: int | None = None
    """Exit code of the deciding container; None while it has not terminated."""
    image: str = ""
    image_digest: str = ""
    """Digest of the image that ran, ``sha256:<hex>``; empty when no container was started."""
    deleted: bool = False
    """Whether it was deleted: by a person, a drain, or the scheduler in favour of a pod of higher priority."""

    @property
    def has_ended(self) -> bool:
        """Whether the work in the pod is over, well or not."""
        return self.phase in ENDED_PHASES or self.exit_code is not None

    @property
    def is_timeout(self) -> bool:
        """Whether Kubernetes stopped it at its deadline."""
        return self.reason == "DeadlineExceeded"

    @property
    def is_lost(self) -> bool:
        """Whether it was deleted while it worked: a stopped container ends by a signal, or leaves no exit code."""
        return self.deleted and self.exit_code in (None, 0, *_STOPPED)

    def describe(self) -> str:
        """Describe the ending in one sentence, with its most likely cause."""
        where = f" on node {self.node}" if self.node else ""
        if self.is_lost:
            code = "" if self.exit_code is None else f" (exit code {self.exit_code})"
            return f"pod {self.name}{where} was deleted while it ran{code}: by a person, a drain or a preemption"
        which = "" if self.container == CONTAINER else f" in its init container {self.container!r}"
        how = f"exit code {self.exit_code}" if self.exit_code is not None else f"phase {self.phase or 'unknown'}"
        reason = f", {self.reason}" if self.reason and self.reason != "Error" else ""
        message = f": {self.message.strip()}" if self.message.strip() else ""
        return f"pod {self.name}{where} ended{which} with {how}{reason}{message}{_hint(self)}"


def _hint(ending: PodEnding) -> str:
    if ending.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
        return f" (image {ending.image!r} cannot be pulled: check its name, the registry and image_pull_secrets)"
    hint = _HINTS.get(ending.reason)
    return f" ({hint})" if hint else ""


def read_ending(pod: Mapping[str, Any]) -> PodEnding:
    """Read how a pod ended, or why it did not start.

    :param pod: the pod as the API returns it in JSON.
    """
    status = pod.get("status") or {}
    container, state = _deciding_container(status)
    terminated, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    unscheduled: Mapping[str, Any] = next(
        (
            condition
            for condition in status.get("conditions") or []
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
        ),
        {},
    )
    spec = pod.get("spec") or {}
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    image = next((item.get("image", "") for item in containers if item.get("name") == container), "")
    of_pod = {"reason": status.get("reason"), "message": status.get("message")}
    sources = (terminated, of_pod, waiting, unscheduled)
    first = next((source for source in sources if source.get("reason") and source.get("reason") != "Completed"), {})
    # The pod's own reason (Evicted, DeadlineExceeded) says more than the signal that ended its container.
    told = of_pod if of_pod["reason"] else first
    return PodEnding(
        name=(pod.get("metadata") or {}).get("name", "unknown"),
        container=container,
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "",
        reason=told.get("reason") or "",
        message=told.get("message") or "",
        exit_code=terminated.get("exitCode"),
        image=image,
        image_digest=image_digest(status),
        deleted=bool((pod.get("metadata") or {}).get("deletionTimestamp")),
    )


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Return whether the work in a pod is over, well or not: its container has terminated, or can never start.

    :param pod: the pod as the API returns it in JSON.
    """
    return read_ending(pod).has_ended


def ended_well(pod: Mapping[str, Any]) -> bool:
    """Return whether the work in a pod is done, rather than stopped by a deletion, a deadline or an eviction.

    :param pod: the pod as the API returns it in JSON.
    """
    status = pod.get("status") or {}
    phase, ended = status.get("phase"), terminated(pod)
    if ended is None:
        return bool(phase == "Succeeded")
    if phase == "Failed" or (phase != "Succeeded" and status.get("reason")):
        return False  # a container that is stopped by its pod's deadline may still exit with 0
    asked, at = deletion_time(pod), moment(ended.get("finishedAt"))
    return ended.get("exitCode") == 0 and (asked is None or at is None or at <= asked)


def terminated(pod: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the terminated state of the workload's container; None while it has not ended."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    state = next((item.get("state") or {} for item in statuses if item.get("name") == CONTAINER), {})
    return state.get("terminated") or None


def deletion_time(pod: Mapping[str, Any]) -> datetime | None:
    """Return when the deletion of a pod was requested; None when it was not.

    Kubernetes writes down the end of the grace period instead of its beginning.
    """
    metadata = pod.get("metadata") or {}
    until = moment(metadata.get("deletionTimestamp"))
    return until and until - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def moment(text: str | None) -> datetime | None:
    """Parse a time of the API; None for none."""
    return datetime.fromisoformat(text) if text else None


def _deciding_container(status: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and state of the workload's container, or of the init container that keeps it from starting."""
    containers = [item for item in status.get("containerStatuses") or [] if item.get("name") == CONTAINER]
    state = (containers[0].get("state") or {}) if containers else {}
    if not (state.get("terminated") or state.get("running")):
        for item in status.get("initContainerStatuses") or []:
            before = item.get("state") or {}
            has_failed = (before.get("terminated") or {}).get("exitCode")
            if has_failed or (before.get("waiting") or {}).get("reason") not in (None, "PodInitializing"):
                return str(item.get("name")), before
    return CONTAINER, state


def image_digest(status: Mapping[str, Any], container: str = CONTAINER) -> str:
    """Return the digest of the image that a container of a pod runs; empty before it has started.

    It is in the image ID: ``docker-pullable://name@sha256:…``, or containerd's ``name@sha256:…``.

    :param status: status of the pod.
    :param container: name of the container.
    """
    used = [item.get("imageID") or "" for item in status.get("containerStatuses") or [] if item["name"] == container]
    found = re.search(r"sha256:[0-9a-f]{64}", "".join(used))
    return found[0] if found else ""
