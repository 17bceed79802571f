"""The route of the Gateway API that leads to a model server."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from airflow_mcp.core.document import Document
from airflow_mcp.core.kubernetes_fields import ObjectName, ObjectNameOrEmpty
from airflow_mcp.core.manifests.parts import SERVICE_PORT, Manifest, metadata, object_labels
from airflow_mcp.core.manifests.spec import ModelServerSpec
from airflow_mcp.exceptions import InvalidArgumentError

_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_ALL = 1000
"""What counts is the share of a weight in the sum of both, so both are written."""


class Route(Document):
    """Where requests come from, and which two Services share them."""

    gateway: ObjectName
    """Name of the Gateway."""
    hostnames: tuple[Annotated[str, Field(pattern=_HOST)], ...] = ()
    """Empty: every host name of the Gateway."""
    canary: ObjectNameOrEmpty = ""
    """Service of the new side, which begins with no request; empty: there is only one side."""


def http_route(spec: ModelServerSpec, route: Route) -> Manifest:
    """Return the HTTPRoute. A rollout with the router ``gateway_api`` changes its weights.

    :param spec: the model server, whose Service is the present side.
    :param route: where requests come from.
    :raises InvalidArgumentError: when both sides are the same Service.
    """
    if route.canary == spec.base_name:
        raise InvalidArgumentError(
            f"canary Service must be another one than the server's own; got {route.canary!r} for both. A weight could "
            "not move any request"
        )
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
