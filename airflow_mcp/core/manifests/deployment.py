"""The Deployment of a model server."""

from __future__ import annotations

from airflow_mcp.core.manifests.parts import Manifest, metadata, object_labels, selector
from airflow_mcp.core.manifests.pod_template import pod_template
from airflow_mcp.core.manifests.spec import ModelServerSpec

_START_SECONDS = 120
"""Time of a pod before its model loads: scheduling, the pull of the image, the start of the front."""
_REVISIONS = 10


def deployment(spec: ModelServerSpec) -> Manifest:
    """Return the Deployment. With autoscaling it has no ``replicas``, which would undo what the autoscaler did."""
    replicas = {} if spec.autoscaling else {"replicas": spec.replicas}
    body = {
        **replicas,
        "selector": {"matchLabels": selector(spec)},
        "template": pod_template(spec),
    }
    if spec.profile == "safe":
        body |= {
            "revisionHistoryLimit": _REVISIONS,
            "progressDeadlineSeconds": _START_SECONDS + spec.load_timeout,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(spec, spec.deployment_name, object_labels(spec)),
        "spec": body,
    }
