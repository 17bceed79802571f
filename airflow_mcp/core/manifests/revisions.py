"""The revisions of a Deployment: its ReplicaSets, and how it goes back to one of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.progress import LABEL_HASH, progress_of
from airflow_mcp.exceptions import InvalidArgumentError

FIELD_MANAGER = "airflow-mcp"
"""Owner of the fields that this package applies."""
ANNOTATION_REVISION = "deployment.kubernetes.io/revision"
ANNOTATION_IDENTITY = "airflow-mcp.io/deployed-by"
"""On a Deployment: identity of the task that changed it last, so that a retry finds its own change."""
ANNOTATION_PREVIOUS = "airflow-mcp.io/previous-replica-set"
"""On a Deployment: the ReplicaSet before that change. Its name stays, while revisions get new numbers."""


def owned_by(deployment: Mapping[str, Any], replica_sets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the ReplicaSets of a Deployment that have a revision, oldest first."""
    uid = deployment["metadata"]["uid"]
    owned = [
        each
        for each in replica_sets
        if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences") or ()) and revision_of(each)
    ]
    return sorted(owned, key=revision_of)


def revision_of(item: Mapping[str, Any]) -> int:
    """Return the revision of a Deployment or a ReplicaSet; 0 when Kubernetes has not given it one."""
    return int((item["metadata"].get("annotations") or {}).get(ANNOTATION_REVISION, "0"))


def current(deployment: Mapping[str, Any], owned: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the ReplicaSet of the present revision; None before Kubernetes has made it."""
    return next((each for each in owned if revision_of(each) == revision_of(deployment)), None)


def way_back(deployment: Mapping[str, Any], owned: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the ReplicaSet that a change now can be undone to; empty without one.

    A Deployment in the middle of a change that never became ready is no way back: what it recorded itself is.

    :param deployment: the Deployment before the change.
    :param owned: its ReplicaSets.
    """
    recorded = annotations_of(deployment).get(ANNOTATION_PREVIOUS, "")
    if progress_of(deployment).phase != "complete" and recorded:
        return recorded
    found = current(deployment, owned)
    return str(found["metadata"]["name"]) if found else ""


def to_revision(deployment: Mapping[str, Any], owned: Sequence[Mapping[str, Any]], revision: int) -> Mapping[str, Any]:
    """Return the ReplicaSet to go back to.

    :param deployment: the Deployment.
    :param owned: its ReplicaSets.
    :param revision: its revision; 0 takes the one before the present one.
    :raises InvalidArgumentError: when there is no such revision.
    """
    now = revision_of(deployment)
    earlier = [each for each in owned if revision_of(each) < now]
    if revision == 0 and earlier:
        return earlier[-1]
    found = next((each for each in owned if revision and revision_of(each) == revision), None)
    if found is None:
        there = ", ".join(str(revision_of(each)) for each in owned)
        wanted = f"to_revision must be a revision of Deployment {deployment['metadata']['name']!r}: {there}"
        raise InvalidArgumentError(f"{wanted}; got {revision}. Nothing was changed")
    return found


def back_to(deployment: Mapping[str, Any], replica_set: Mapping[str, Any], annotations: Mapping[str, str]) -> Manifest:
    """Return the Deployment with the template of an earlier revision.

    :param deployment: the Deployment as it is.
    :param replica_set: ReplicaSet of that revision.
    :param annotations: annotations of the Deployment to write.
    """
    template = copy.deepcopy(dict(replica_set["spec"]["template"]))
    template["metadata"] = {
        key: value for key, value in template.get("metadata", {}).items() if key in ("labels", "annotations")
    }
    template["metadata"].get("labels", {}).pop(LABEL_HASH, None)
    left_out = {"template"} if owns_replicas(deployment) else {"template", "replicas"}
    kept = {name: copy.deepcopy(value) for name, value in deployment["spec"].items() if name not in left_out}
    about = deployment["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": about["name"],
            "resourceVersion": about["resourceVersion"],  # another change since it was read is refused
            "labels": dict(about.get("labels") or {}),
            "annotations": dict(annotations),
        },
        "spec": {**kept, "template": template},
    }


def annotations_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the annotations of an object."""
    return item["metadata"].get("annotations") or {}


def owns_replicas(deployment: Mapping[str, Any]) -> bool:
    """Return whether the number of replicas was applied by this package; an apply without it would make it 1."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields") or ()
    )
