"""How many replicas there are, and how many may be away at once."""

from __future__ import annotations

from airflow_mcp.core.manifests.parts import Manifest, metadata, object_labels, selector
from airflow_mcp.core.manifests.spec import Autoscaling, ModelServerSpec

_SCALE_DOWN_SECONDS = 300
"""A new replica has to load its model, so replicas stay for a while after a peak."""


def autoscaler(spec: ModelServerSpec, rule: Autoscaling, kind: str = "Deployment") -> Manifest:
    """Return the HorizontalPodAutoscaler.

    :param spec: the model server.
    :param rule: how it scales.
    :param kind: kind of the object that it scales, ``Deployment`` or ``Rollout``.
    """
    api_version = "argoproj.io/v1alpha1" if kind == "Rollout" else "apps/v1"
    target = {"type": "Utilization", "averageUtilization": rule.cpu_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(spec, spec.deployment_name, object_labels(spec)),
        "spec": {
            "scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": spec.deployment_name},
            "minReplicas": rule.min_replicas,
            "maxReplicas": rule.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _SCALE_DOWN_SECONDS}},
        },
    }


def disruption_budget(spec: ModelServerSpec) -> Manifest:
    """Return the PodDisruptionBudget: when nodes are drained, replicas leave one after the other."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(spec, spec.deployment_name, object_labels(spec)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(spec)}},
    }
