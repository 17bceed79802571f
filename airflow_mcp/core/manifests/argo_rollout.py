"""A model server whose pods are replaced by the controller of Argo Rollouts."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.manifests.deployment import deployment
from airflow_mcp.core.manifests.gateway_route import Route
from airflow_mcp.core.manifests.parts import Manifest, metadata, object_labels
from airflow_mcp.core.manifests.service import service
from airflow_mcp.core.manifests.spec import ModelServerSpec
from airflow_mcp.exceptions import InvalidArgumentError

API_VERSION = "argoproj.io/v1alpha1"
WEIGHTS = (5, 25, 50)
"""Percent of the requests after each step; a pause that something must end follows each."""
_ERROR_LIMIT = 0.01
_INTERVAL, _FAILURES, _UNKNOWN = "1m", 2, 5
"""One look a minute; the third that fails ends the rollout, and the sixth that says nothing pauses it."""
_PROMETHEUS = "http://prometheus.monitoring.svc:9090"


def argo_manifests(spec: ModelServerSpec, route: Route | None) -> tuple[Manifest, ...]:
    """Return Rollout, AnalysisTemplate and the Service of the canary, which stand in for the Deployment.

    :param spec: the model server; it names a version, because a Rollout moves when its template changes.
    :param route: the HTTPRoute whose weights the plugin of Argo for the Gateway API writes; None: the weight of the
        canary is its share of the pods.
    :raises InvalidArgumentError: when the server follows the champion, or is one of two tracks.
    """
    if not spec.version or spec.track:
        raise InvalidArgumentError(
            f"version must be a number and track must be empty for the target argo; got {spec.version!r} and "
            f"{spec.track!r}"
        )
    canary = service(spec)
    canary["metadata"]["name"] = _canary(spec)
    return analysis_template(spec), canary, argo_rollout(spec, route)


def argo_rollout(spec: ModelServerSpec, route: Route | None) -> Manifest:
    """Return the Rollout: the Deployment with steps. A rollout with the router ``argo`` ends its pauses.

    :param spec: the model server.
    :param route: see :func:`argo_manifests`.
    """
    found = deployment(spec)
    steps: list[dict[str, Any]] = []
    for weight in WEIGHTS:
        steps += [{"setWeight": weight}, {"pause": {}}]
    canary: dict[str, Any] = {
        "stableService": spec.base_name,
        "canaryService": _canary(spec),
        "maxUnavailable": 0,
        "maxSurge": 1,
        "analysis": {"templates": [{"templateName": spec.base_name}], "startingStep": 1},
        "steps": steps,
    }
    if route is not None:
        where = {"namespace": spec.namespace} if spec.namespace else {}
        canary["trafficRouting"] = {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": spec.base_name, **where}}}
    return {
        **found,
        "apiVersion": API_VERSION,
        "kind": "Rollout",
        "spec": {**found["spec"], "strategy": {"canary": canary}},
    }


def analysis_template(spec: ModelServerSpec) -> Manifest:
    """Return the AnalysisTemplate: the share of answers that are errors of the new version.

    No requests are neither success nor failure: then both conditions are false, which Argo counts as inconclusive.
    """
    series = f'airflow_mcp_serving_requests_total{{model="{spec.model_name}",version="{spec.version}"'
    has_value = "len(result) > 0 && !isNaN(result[0])"
    return {
        "apiVersion": API_VERSION,
        "kind": "AnalysisTemplate",
        "metadata": metadata(spec, spec.base_name, object_labels(spec)),
        "spec": {
            "args": [{"name": "prometheus", "value": _PROMETHEUS}],
            "metrics": [
                {
                    "name": "http-5xx-rate",
                    "interval": _INTERVAL,
                    "successCondition": f"{has_value} && result[0] <= {_ERROR_LIMIT}",
                    "failureCondition": f"{has_value} && result[0] > {_ERROR_LIMIT}",
                    "failureLimit": _FAILURES,
                    "inconclusiveLimit": _UNKNOWN,
                    "provider": {
                        "prometheus": {
                            "address": "{{args.prometheus}}",
                            "query": f'sum(rate({series},code=~"5.."}}[5m])) / sum(rate({series}}}[5m]))',
                        }
                    },
                }
            ],
        },
    }


def _canary(spec: ModelServerSpec) -> str:
    return f"{spec.base_name}-canary"
