"""A model server whose Deployment, Service and autoscaler KServe makes."""

from __future__ import annotations

from airflow_mcp.core.manifests.parts import Manifest, metadata, object_labels, pod_labels
from airflow_mcp.core.manifests.pod_template import pod_template
from airflow_mcp.core.manifests.spec import ModelServerSpec
from airflow_mcp.exceptions import InvalidArgumentError

_CONTAINER = "kserve-container"
"""KServe finds the container that serves by this name."""


def inference_service(spec: ModelServerSpec) -> Manifest:
    """Return the InferenceService, in KServe's mode without Knative.

    :param spec: the model server.
    :raises InvalidArgumentError: when it is one of two tracks: KServe has canaries of its own.
    """
    if spec.track:
        raise InvalidArgumentError(f"track must be empty for the target kserve; got {spec.track!r}")
    template = pod_template(spec)
    (container,) = template["spec"]["containers"]
    scaling = spec.autoscaling
    replicas = {
        "minReplicas": scaling.min_replicas if scaling else spec.replicas,
        "maxReplicas": scaling.max_replicas if scaling else spec.replicas,
        **({"scaleMetric": "cpu", "scaleTarget": scaling.cpu_percent} if scaling else {}),
    }
    about = metadata(spec, spec.base_name, object_labels(spec))
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {**about, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {
            "predictor": {
                **template["spec"],
                **replicas,
                "labels": {**spec.labels, **pod_labels(spec)},
                "annotations": template["metadata"]["annotations"],
                "containers": [{**container, "name": _CONTAINER}],
            }
        },
    }
