"""The router that an operator or a pipeline file names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.argument import choice
from airflow_mcp.core.rollout.router import TrafficRouter
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.routers.argo import ArgoRouter
from airflow_mcp.routers.gateway_api import GatewayApiRouter
from airflow_mcp.routers.kserve import KServeRouter
from airflow_mcp.routers.nop import NopRouter
from airflow_mcp.routers.service import ServiceRouter

REGISTRY = "registry"
_OF_CLUSTER: Mapping[str, Callable[..., TrafficRouter]] = {
    "gateway_api": GatewayApiRouter,
    "service": ServiceRouter,
    "argo": ArgoRouter,
    "kserve": KServeRouter,
}
KINDS = (REGISTRY, *_OF_CLUSTER, "nop")


def check_router(router: Mapping[str, Any]) -> str:
    """Check the fields of a router, and return its kind.

    :param router: ``kind``, and the fields of that kind.
    :raises InvalidArgumentError: when the kind is not known, or a field is missing or not known.
    """
    kind = choice("kind of router", router.get("kind"), KINDS)
    given = router.keys() - {"kind", "namespace"}
    fields = inspect.signature(_OF_CLUSTER[kind]).parameters if kind in _OF_CLUSTER else {}
    known = {name: field for name, field in fields.items() if name != "cluster"}
    missing = sorted(name for name, field in known.items() if field.default is field.empty and name not in given)
    unknown = sorted(given - known.keys())
    if missing or unknown:
        wanted = ", ".join(known) or "no field"
        raise InvalidArgumentError(
            f"router of kind {kind} must have {wanted}; got {', '.join(sorted(given)) or 'none'}"
        )
    return kind


def require_copies(kind: str) -> None:
    """Check that shadow traffic is possible with a kind of router.

    :param kind: the kind.
    :raises InvalidArgumentError: when the model servers do not split the requests, and so send no copies.
    """
    if kind != REGISTRY:
        raise InvalidArgumentError(
            f"shadow needs the router of kind {REGISTRY}; got {kind}, with which the model servers do not split the "
            "requests and send no copies. Remove shadow, or the router"
        )


def router_of(router: Mapping[str, Any], cluster: Callable[[], ClusterObjects]) -> TrafficRouter | None:
    """Return a router; None when the model servers split the requests themselves.

    :param router: as for :func:`check_router`.
    :param cluster: makes the connection to the cluster, only when it is needed.
    :raises InvalidArgumentError: as :func:`check_router`.
    """
    kind = check_router(router)
    if kind in (REGISTRY, "nop"):
        return NopRouter() if kind == "nop" else None
    fields = {name: value for name, value in router.items() if name not in ("kind", "namespace")}
    return _OF_CLUSTER[kind](cluster(), **fields)
