"""The ConfigMap and the Secret of a workload's pod: its files and credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes.client import CoreV1Api, models
from kubernetes.client.exceptions import ApiException

if TYPE_CHECKING:
    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload

_CONFLICT = 409


def create_companions(client: CoreV1Api, workload: Workload, pod: models.V1Pod) -> list[str]:
    """Create the ConfigMap and the Secret that a pod needs; existing ones are replaced.

    :param client: client of the cluster.
    :param workload: what runs; it may have no files and no secrets.
    :param pod: the pod that is about to be created.
    :return: the kinds that were created: ``config_map``, ``secret``.
    """
    namespace = pod.metadata.namespace
    metadata = {"name": pod.metadata.name, "labels": dict(pod.metadata.labels)}
    created = []
    if workload.files:
        files: dict[str, Any] = {"metadata": metadata, "data": {file.name: file.content for file in workload.files}}
        _create_or_replace(client, "config_map", namespace, files)
        created.append("config_map")
    if workload.all_secrets:
        secret = {"metadata": metadata, "type": "Opaque", "stringData": workload.all_secrets}
        _create_or_replace(client, "secret", namespace, secret)
        created.append("secret")
    return created


def own_companions(
    client: CoreV1Api, kinds: list[str], pod: models.V1Pod, *, api_version: str = "v1", kind: str = "Pod"
) -> None:
    """Make a pod the owner of its ConfigMap and Secret, so that Kubernetes removes them with it.

    :param client: client of the cluster.
    :param kinds: what :func:`create_companions` created.
    :param pod: the owner; only its metadata is read.
    :param api_version: API of an owner that is not a pod.
    :param kind: its kind.
    """
    owner = {"apiVersion": api_version, "kind": kind, "name": pod.metadata.name, "uid": pod.metadata.uid}
    for companion in kinds:
        getattr(client, f"patch_namespaced_{companion}")(
            pod.metadata.name, pod.metadata.namespace, {"metadata": {"ownerReferences": [owner]}}
        )


def delete_companions(client: CoreV1Api, kinds: list[str], pod: models.V1Pod, log: TaskLog) -> None:
    """Delete the ConfigMap and the Secret of a pod that could not be created."""
    for kind in kinds:
        try:
            getattr(client, f"delete_namespaced_{kind}")(pod.metadata.name, pod.metadata.namespace)
        except ApiException as error:
            log.warning("%s %s could not be removed: %s", kind, pod.metadata.name, error.reason)


def _create_or_replace(client: CoreV1Api, kind: str, namespace: str, body: dict[str, Any]) -> None:
    try:
        getattr(client, f"create_namespaced_{kind}")(namespace, body)
    except ApiException as error:
        if error.status != _CONFLICT:
            raise
        getattr(client, f"replace_namespaced_{kind}")(body["metadata"]["name"], namespace, body)
