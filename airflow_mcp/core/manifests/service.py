"""The Services of a model server: one for requests, and one by which its replicas are found."""

from __future__ import annotations

from airflow_mcp.core.manifests.parts import (
    LABEL_TRACK,
    PORT,
    SERVICE_PORT,
    Manifest,
    headless_name,
    metadata,
    object_labels,
    replica_labels,
    selector,
)
from airflow_mcp.core.manifests.spec import ModelServerSpec


def service(spec: ModelServerSpec) -> Manifest:
    """Return the Service that callers ask. With a track, its selector decides which of the two Deployments answers."""
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec, spec.base_name, object_labels(spec)),
        "spec": {"type": "ClusterIP", "selector": selector(spec), "ports": [port]},
    }


def headless_service(spec: ModelServerSpec) -> Manifest:
    """Return the Service whose name leads to every replica that is ready, of both tracks."""
    port = {"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}
    labels = {name: value for name, value in selector(spec).items() if name != LABEL_TRACK}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(spec, headless_name(spec), replica_labels(spec)),
        "spec": {"clusterIP": "None", "selector": labels, "ports": [port]},
    }
