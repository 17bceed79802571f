"""Calls to Kubernetes about a training that runs as one object; see core/workload/targets.py for its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubernetes.client import CoreV1Api, CustomObjectsApi, models
from kubernetes.client.exceptions import ApiException

from airflow_mcp.core.workload.pod import LABEL_GROUP, LABEL_IDENTITY
from airflow_mcp.core.workload.targets import TARGETS, dropped_fields, rendezvous_service
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.workloads.kubernetes_companions import create_companions, delete_companions, own_companions

if TYPE_CHECKING:
    from airflow_mcp.core.ports import TaskLog
    from airflow_mcp.core.workload.definition import Workload
    from airflow_mcp.core.workload.pod_options import PodOptions

_GONE, _CONFLICT = 404, 409
_REFUSED = (400, 403, 422)


class TargetObjects:
    """The objects of one kind in one namespace, with their pods.

    :param core: client of the cluster.
    :param namespace: the namespace.
    :param target: ``job``, ``train_job`` or ``ray_job``.
    """

    def __init__(self, core: CoreV1Api, namespace: str, target: str) -> None:
        self.core, self.namespace, self.target = core, namespace, target
        self.kind = TARGETS[target]
        self._api = CustomObjectsApi(core.api_client)
        self._where = (self.kind.group, self.kind.version, namespace, self.kind.plural)

    def create(self, workload: Workload, manifest: dict[str, Any], options: PodOptions, log: TaskLog) -> dict[str, Any]:
        """Create an object with its ConfigMap, its Secret and its Service, or nothing.

        :param workload: what runs.
        :param manifest: the object.
        :param options: its options.
        :param log: receives what could not be removed after a failure.
        :raises InvalidArgumentError: when the cluster does not have the kind, does not know a field that is needed, or
            refuses the object.
        """
        self._require_kind()
        self._require_fields(manifest)
        request = self._as_pod(manifest["metadata"])
        companions = create_companions(self.core, workload, request)
        try:
            created = self._create(manifest)
        except ApiException:
            delete_companions(self.core, companions, request, log)
            raise
        owner = {"api_version": self.kind.api_version, "kind": self.kind.kind}
        own_companions(self.core, companions, self._as_pod(created["metadata"]), **owner)
        self.complete(created, options)
        return created

    def complete(self, created: Mapping[str, Any], options: PodOptions) -> None:
        """Create the Service of an object, unless it exists.

        :param created: the object as the API returns it.
        :param options: its options.
        """
        service = rendezvous_service(created, options, uid=created["metadata"]["uid"])
        if service is None:
            return
        try:
            self.core.create_namespaced_service(self.namespace, service)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise

    def find(self, name: str) -> dict[str, Any] | None:
        """Return an object; None when it is gone."""
        try:
            return dict(self._api.get_namespaced_custom_object(*self._where, name))
        except ApiException as error:
            if error.status != _GONE:
                raise
            return None

    def of_identity(self, identity: str) -> list[dict[str, Any]]:
        """Return the objects of a piece of work that are not being deleted, newest first."""
        try:
            answer = self._api.list_namespaced_custom_object(
                *self._where, label_selector=f"{LABEL_IDENTITY}={identity}"
            )
        except ApiException as error:
            if error.status != _GONE:  # the cluster does not have the kind
                raise
            return []
        alive = [item for item in answer["items"] if not item["metadata"].get("deletionTimestamp")]
        return sorted(alive, key=lambda item: str(item["metadata"]["creationTimestamp"]), reverse=True)

    def delete(self, name: str) -> None:
        """Delete an object; Kubernetes deletes its pods, its Service, its ConfigMap and its Secret after it."""
        try:
            self._api.delete_namespaced_custom_object(*self._where, name, propagation_policy="Background")
        except ApiException as error:
            if error.status != _GONE:
                raise

    def pods(self, name: str) -> list[models.V1Pod]:
        """Return the pods of an object."""
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=f"{LABEL_GROUP}={name}").items)

    def _create(self, manifest: dict[str, Any], **how: Any) -> dict[str, Any]:
        try:
            return dict(self._api.create_namespaced_custom_object(*self._where, manifest, **how))
        except ApiException as error:
            if error.status not in _REFUSED:
                raise
            raise InvalidArgumentError(
                f"Kubernetes refuses {self.kind.kind} {manifest['metadata']['name']} in namespace {self.namespace!r} "
                f"({error.reason}): {error.body}. Nothing was started"
            ) from error

    def _require_kind(self) -> None:
        """Ask the API discovery whether the kind is installed."""
        try:
            found = self._api.get_api_resources(self.kind.group, self.kind.version).resources
        except ApiException as error:
            if error.status != _GONE:
                raise
            found = []
        if self.kind.kind not in {item.kind for item in found}:
            raise InvalidArgumentError(
                f"kubernetes.target={self.target!r} needs {self.kind.kind} ({self.kind.api_version}), which this "
                f"cluster does not have. Install {self.kind.needs}, or use the target 'pods'. Nothing was started"
            )

    def _require_fields(self, manifest: dict[str, Any]) -> None:
        """Let Kubernetes check the object without keeping it: fields that it does not know are dropped silently."""
        dropped = dropped_fields(manifest, self._create(manifest, dry_run="All"))
        if dropped:
            raise InvalidArgumentError(
                f"kubernetes.target={self.target!r} needs {self.kind.needs}: the {self.kind.kind} of this cluster does "
                f"not know {', '.join(f'spec.{name}' for name in dropped)}. Use the target 'pods' there. Nothing was "
                "started"
            )

    def _as_pod(self, metadata: Mapping[str, Any]) -> models.V1Pod:
        """Return an object's metadata in the form that its companions are made from."""
        return models.V1Pod(
            metadata=models.V1ObjectMeta(
                name=metadata["name"],
                namespace=self.namespace,
                labels=metadata["labels"],
                uid=metadata.get("uid"),
            )
        )
