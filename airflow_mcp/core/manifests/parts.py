"""What the objects of a model server have in common: metadata, labels, ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from airflow_mcp.core.manifests.spec import ModelServerSpec
from airflow_mcp.core.workload.pod import LABEL_MANAGED_BY, LABEL_MODEL, MANAGED_BY, label_value

Manifest: TypeAlias = dict[str, Any]
CONTAINER = "model-server"
PORT = 8000
SERVICE_PORT = 80
LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_VERSION = "app.kubernetes.io/version"
LABEL_TRACK = "airflow-mcp.io/track"
COMPONENT = "model-server"
REPLICAS = "model-server-replicas"
"""Component of the headless Service, which Prometheus tells apart by it."""
FOLLOWS = "champion"
"""Stands for the version where the server follows the alias."""


def metadata(spec: ModelServerSpec, name: str, labels: Mapping[str, str]) -> Manifest:
    """Return the metadata of an object.

    :param spec: the model server.
    :param name: name of the object.
    :param labels: its labels besides those of the user.
    """
    namespace = {"namespace": spec.namespace} if spec.namespace else {}
    return {"name": name, **namespace, "labels": {**spec.labels, **labels}}


def object_labels(spec: ModelServerSpec) -> dict[str, str]:
    """Return the labels of every object."""
    return {**pod_labels(spec), LABEL_MANAGED_BY: MANAGED_BY}


def pod_labels(spec: ModelServerSpec) -> dict[str, str]:
    """Return the labels of the pods. The sweeper of workload pods goes by ``managed-by``, so that is not among them."""
    return {
        **selector(spec),
        LABEL_MODEL: label_value(spec.model_name),
        LABEL_VERSION: spec.version or FOLLOWS,
    }


def selector(spec: ModelServerSpec) -> dict[str, str]:
    """Return the labels that choose the pods of one Deployment; they never change."""
    if spec.profile == "seed":
        return {"app": spec.base_name}
    track = {LABEL_TRACK: spec.track} if spec.track else {}
    return {LABEL_NAME: spec.base_name, LABEL_COMPONENT: COMPONENT, **track}


def replica_labels(spec: ModelServerSpec) -> dict[str, str]:
    """Return the labels of objects that lead to every replica, whatever its version and track."""
    return {**replica_selector(spec), LABEL_MODEL: label_value(spec.model_name), LABEL_MANAGED_BY: MANAGED_BY}


def replica_selector(spec: ModelServerSpec) -> dict[str, str]:
    """Return the labels by which Prometheus finds the headless Service."""
    return {LABEL_NAME: spec.base_name, LABEL_COMPONENT: REPLICAS}


def headless_name(spec: ModelServerSpec) -> str:
    """Return the name of the Service that leads to every replica."""
    return f"{spec.base_name}-headless"


def scrape_annotations() -> dict[str, str]:
    """Return the annotations by which Prometheus finds pods without an operator of its own."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
