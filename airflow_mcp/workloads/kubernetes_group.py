"""Calls to Kubernetes about a group of pods that train together; see core/workload/replicas.py for their form."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import ApiClient, CoreV1Api, models
from kubernetes.client.exceptions import ApiException

from airflow_mcp.core.workload.pod import LABEL_GROUP
from airflow_mcp.core.workload.pod_ending import has_ended
from airflow_mcp.core.workload.replicas import (
    RankFailure,
    StartLimits,
    as_follower,
    group_failures,
    group_service,
    group_size,
    rank_of,
)

_GONE = 404


def group_of(pod: models.V1Pod) -> str:
    """Return the group of a pod; empty for a single pod."""
    return str((pod.metadata.labels or {}).get(LABEL_GROUP, ""))


def plain(value: Any) -> Any:
    """Return an object of the client as JSON."""
    return ApiClient().sanitize_for_serialization(value)


def read_pod(client: CoreV1Api, name: str, namespace: str) -> models.V1Pod | None:
    """Return a pod; None when it is gone."""
    try:
        return client.read_namespaced_pod(name, namespace)
    except ApiException as error:
        if error.status != _GONE:
            raise
        return None


def read_group(client: CoreV1Api, pod: models.V1Pod) -> list[dict[str, Any]]:
    """Return the pods of a group as JSON, including rank 0."""
    found = client.list_namespaced_pod(pod.metadata.namespace, label_selector=f"{LABEL_GROUP}={group_of(pod)}")
    return [plain(item) for item in found.items]


def failures_of(client: CoreV1Api, pod: models.V1Pod, limits: StartLimits | None = None) -> list[RankFailure]:
    """Return the failures in the group of a pod.

    :param client: client of the cluster.
    :param pod: rank 0.
    :param limits: time limits for the start; None sets none.
    :return: in the order in which they failed; none for a single pod.
    """
    if not group_of(pod):
        return []
    pods = read_group(client, pod)
    return group_failures(pods, group_of(pod), group_size(plain(pod)), now=datetime.now(UTC), limits=limits)


def start_followers(client: CoreV1Api, request: models.V1Pod, leader: models.V1Pod) -> None:
    """Create the Service and the pods of the other ranks, owned by rank 0 from the start.

    :param client: client of the cluster.
    :param request: the pod that rank 0 was created from.
    :param leader: rank 0, as Kubernetes created it.
    """
    manifest, namespace, uid = plain(request), leader.metadata.namespace, leader.metadata.uid
    service = client.create_namespaced_service(namespace, group_service(manifest, uid=uid))
    for rank in range(1, group_size(manifest)):
        pod = as_follower(manifest, rank, uid=uid, address=service.spec.cluster_ip)
        client.create_namespaced_pod(namespace, pod)


def delete_followers(client: CoreV1Api, leader: models.V1Pod, *, only_at_work: bool = False) -> None:
    """Delete the pods of the other ranks; a single pod has none.

    Kubernetes would delete them too, but only when rank 0 has stopped.

    :param client: client of the cluster.
    :param leader: rank 0; it may be gone.
    :param only_at_work: keep those that have ended.
    """
    if not group_of(leader):
        return
    for pod in read_group(client, leader):
        if rank_of(pod) and not (only_at_work and has_ended(pod)):
            _delete(client, pod)


def release(client: CoreV1Api, leader: models.V1Pod, ranks: Collection[int]) -> None:
    """Detach pods of some ranks from the group, so that they stay when it is deleted."""
    for pod in read_group(client, leader):
        if rank_of(pod) in ranks:
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            free = {"ownerReferences": None, "labels": {LABEL_GROUP: None}}
            client.patch_namespaced_pod(name, namespace, {"metadata": free})


def _delete(client: CoreV1Api, pod: dict[str, Any]) -> None:
    try:
        client.delete_namespaced_pod(pod["metadata"]["name"], pod["metadata"]["namespace"])
    except ApiException as error:
        if error.status != _GONE:
            raise
