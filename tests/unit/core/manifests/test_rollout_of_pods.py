"""How a rollout of pods stands, what pods say, and how a Deployment goes back."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.manifests.progress import describe_pods, progress_of
from airflow_mcp.core.manifests.revisions import (
    ANNOTATION_PREVIOUS,
    ANNOTATION_REVISION,
    FIELD_MANAGER,
    back_to,
    current,
    owned_by,
    to_revision,
    way_back,
)
from airflow_mcp.exceptions import InvalidArgumentError

DONE = {"observedGeneration": 7, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
OWNED = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}


def deployment(status: dict[str, Any] | None = None, revision: int = 3, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "fraud",
            "uid": "d",
            "generation": 7,
            "resourceVersion": "99",
            "annotations": {ANNOTATION_REVISION: str(revision), **annotations},
        },
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "fraud"}}, "template": {"spec": {"new": True}}},
        "status": DONE if status is None else status,
    }


def replica_set(revision: int, owner: str = "d") -> dict[str, Any]:
    labels = {"app": "fraud", "pod-template-hash": f"h{revision}"}
    return {
        "metadata": {
            "name": f"fraud-h{revision}",
            "labels": labels,
            "annotations": {ANNOTATION_REVISION: str(revision)} if revision else {},
            "ownerReferences": [{"uid": owner}],
        },
        "spec": {"template": {"metadata": {"labels": labels, "creationTimestamp": None}, "spec": {"of": revision}}},
    }


SETS = owned_by(
    deployment(), [replica_set(3), replica_set(1), replica_set(0), replica_set(2, owner="else"), replica_set(2)]
)


@pytest.mark.parametrize(
    ("status", "phase", "reason"),
    [
        ({**DONE, "observedGeneration": 6}, "waiting", "Kubernetes has not seen the change yet"),
        ({}, "waiting", "Kubernetes has not seen the change yet"),
        ({**DONE, "updatedReplicas": 1}, "waiting", "pods with the new template: 1 of 2"),
        ({**DONE, "replicas": 3}, "waiting", "old pods that have not ended: 1"),
        ({**DONE, "availableReplicas": 1}, "waiting", "new pods that are ready: 1 of 2"),
        (DONE, "complete", "pods that are ready: 2 of 2"),
        (
            {**DONE, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            *("failed", "no pod has become ready for 600 s (ProgressDeadlineExceeded)"),
        ),
        (
            # The condition is about the change before: Kubernetes has not looked at the present one.
            {"observedGeneration": 6, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            *("waiting", "Kubernetes has not seen the change yet"),
        ),
    ],
)
def test_a_rollout_is_complete_when_every_pod_is_new_and_available(
    status: dict[str, Any], phase: str, reason: str
) -> None:
    assert progress_of(deployment(status)) == (phase, reason)


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": status}


def test_pods_that_are_not_ready_say_why() -> None:
    ended = {"exitCode": 2, "reason": "Error", "message": "there is no model to serve\n"}
    looping = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": ended},
        "restartCount": 3,
    }
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    pods = [
        pod("ready", conditions=[{"type": "Ready", "status": "True"}]),
        pod("looping", containerStatuses=[looping]),
        pod("loading", containerStatuses=[{"state": {"running": {}}}]),
        pod("homeless", phase="Pending", conditions=[unscheduled]),
        pod("new", phase="Pending"),
    ]
    assert describe_pods(pods) == [
        "pod looping: waiting: CrashLoopBackOff; ended with exit code 2 (Error): there is no model to serve; "
        "restarted 3 times",
        "pod loading: running, but not ready",
        "pod homeless: not scheduled: 0/1 nodes are available",
        "pod new: phase Pending, no container has started",
    ]


def test_revisions_are_those_of_the_deployment_oldest_first() -> None:
    assert [each["spec"]["template"]["spec"]["of"] for each in SETS] == [1, 2, 3]
    assert current(deployment(), SETS) is SETS[-1]
    assert current(deployment(revision=4), SETS) is None
    assert to_revision(deployment(), SETS, 1) is SETS[0]
    assert to_revision(deployment(), SETS, 0) is SETS[1]


@pytest.mark.parametrize(("revision", "there"), [(7, "1, 2, 3"), (-1, "1, 2, 3")])
def test_a_revision_that_does_not_exist_is_refused_with_those_that_do(revision: int, there: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"must be a revision of Deployment 'fraud': {there}; got {revision}"
    ):
        to_revision(deployment(), SETS, revision)


def test_the_first_revision_has_nothing_before_it() -> None:
    with pytest.raises(InvalidArgumentError, match="Nothing was changed"):
        to_revision(deployment(revision=1), SETS[:1], 0)


def test_the_way_back_leads_to_what_was_complete() -> None:
    assert way_back(deployment(), SETS) == "fraud-h3"
    broken = {**DONE, "availableReplicas": 1}
    assert way_back(deployment(broken, **{ANNOTATION_PREVIOUS: "fraud-h2"}), SETS) == "fraud-h2"
    assert way_back(deployment(broken), SETS) == "fraud-h3"
    assert way_back(deployment(revision=4), SETS) == ""


def test_going_back_takes_the_whole_template_and_no_change_in_between() -> None:
    manifest = back_to(deployment(), SETS[0], {"by": "task"})
    assert manifest["metadata"]["resourceVersion"] == "99"
    assert manifest["metadata"]["annotations"] == {"by": "task"}
    assert manifest["spec"]["template"] == {"metadata": {"labels": {"app": "fraud"}}, "spec": {"of": 1}}
    assert SETS[0]["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == "h1"


def test_going_back_leaves_the_number_of_replicas_to_its_owner() -> None:
    owned = deployment()
    owned["metadata"]["managedFields"] = [OWNED]
    assert back_to(owned, SETS[0], {})["spec"]["replicas"] == 2
    owned["metadata"]["managedFields"] = [{**OWNED, "manager": "kube-controller-manager", "operation": "Update"}]
    assert "replicas" not in back_to(owned, SETS[0], {})["spec"]
