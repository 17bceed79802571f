"""All objects of a model server, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from airflow_mcp.core.manifests.argo_rollout import argo_manifests
from airflow_mcp.core.manifests.deployment import deployment
from airflow_mcp.core.manifests.gateway_route import Route, http_route
from airflow_mcp.core.manifests.inference_service import inference_service
from airflow_mcp.core.manifests.monitoring import service_monitor
from airflow_mcp.core.manifests.network import network_policy
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.policy_files import policy_config_map, policy_files
from airflow_mcp.core.manifests.scaling import autoscaler, disruption_budget
from airflow_mcp.core.manifests.service import headless_service, service
from airflow_mcp.core.manifests.spec import ModelServerSpec

Target = Literal["deployment", "argo", "kserve"]


def model_server_manifests(
    spec: ModelServerSpec, target: Target = "deployment", route: Route | None = None
) -> tuple[Manifest, ...]:
    """Return the objects of a model server. For Deployments, the Service for requests is the last one.

    :param spec: the model server.
    :param target: what replaces pods: a Deployment, Argo Rollouts or KServe.
    :param route: the route that leads to it; None makes none.
    :raises InvalidArgumentError: when the target cannot serve what the spec asks for.
    """
    policies = [policy_config_map(spec)] if policy_files(spec) else []
    routes = [http_route(spec, route)] if route else []
    if target == "kserve":
        return (*policies, inference_service(spec), *routes)
    found = [*policies, *(_around(spec) if spec.profile == "safe" else [])]
    found += argo_manifests(spec, route) if target == "argo" else [deployment(spec)]
    if spec.autoscaling:
        found.append(autoscaler(spec, spec.autoscaling, "Rollout" if target == "argo" else "Deployment"))
    if spec.profile == "safe" and spec.disruption_budget:
        found.append(disruption_budget(spec))
    return (*found, *routes, service(spec))


def _around(spec: ModelServerSpec) -> list[Manifest]:
    """Return the objects that exist before the first pod."""
    found = [headless_service(spec)]
    if spec.network:
        found.insert(0, network_policy(spec, spec.network))
    if spec.service_monitor:
        found.append(service_monitor(spec))
    return found


def traffic_service(spec: ModelServerSpec, manifests: Sequence[Manifest]) -> Manifest:
    """Return the Service for requests. With a track, applying it moves them, so it is applied when the pods are ready.

    :param spec: the model server.
    :param manifests: its objects.
    """
    return next(each for each in manifests if (each["kind"], each["metadata"]["name"]) == ("Service", spec.base_name))
