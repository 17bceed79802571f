"""The route of the Gateway API that leads to a model server."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.document import Document
from airflow_mcp.core.manifests.parts import SERVICE_PORT, Manifest, metadata, object_labels
from airflow_mcp.core.manifests.spec import ModelServerSpec

_ALL = 1000
"""What counts is the share of a weight in the sum of both, so both are written."""


class Route(Document):
    """Where requests come from, and which two Services share them."""

    gateway: str
    """Name of the Gateway."""
    hostnames: tuple[str, ...] = ()
    """Empty: every host name of the Gateway."""
    canary: str = ""
    """Service of the new side, which begins with no request; empty: there is only one side."""


def http_route(spec: ModelServerSpec, route: Route) -> Manifest:
    """Return the HTTPRoute. A rollout with the router ``gateway_api`` changes its weights.

    :param spec: the model server, whose Service is the present side.
    :param route: where requests come from.
    """
    backends: list[dict[str, Any]] = [{"name": spec.base_name, "port": SERVICE_PORT, "weight": _ALL}]
    if route.canary:
        backends.append({"name": route.canary, "port": SERVICE_PORT, "weight": 0})
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(spec, spec.base_name, object_labels(spec)),
        "spec": {
            "parentRefs": [{"name": route.gateway}],
            **({"hostnames": list(route.hostnames)} if route.hostnames else {}),
            "rules": [{"backendRefs": backends}],
        },
    }
