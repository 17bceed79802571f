"""Requests split by the weights of an HTTPRoute of the Gateway API."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.routers.kubernetes_object import RoutingObject

API_VERSION = "gateway.networking.k8s.io/v1"
_HUNDRED = 100
_STEPS = 10
"""A weight is a whole number, and percents may have a decimal: both weights sum to 1000."""


class GatewayApiRouter:
    """An HTTPRoute with a backend for each side, in every rule that names them.

    :param cluster: its namespace.
    :param route: name of the HTTPRoute.
    :param stable: Service of the champion.
    :param canary: Service of the canary.
    """

    def __init__(self, cluster: ClusterObjects, *, route: str, stable: str, canary: str) -> None:
        self._object = RoutingObject(cluster, API_VERSION, "HTTPRoute", route)
        self._stable, self._canary = stable, canary

    def prepare(self) -> None:
        """Check that a rule names both Services.

        :raises InvalidArgumentError: when none does.
        """
        self._weights(self._object.read())

    def set_weight(self, percent: float) -> None:
        """Write both weights, in every rule that has both Services; other backends keep theirs."""
        route = self._object.read()
        self._weights(route)
        rules = deepcopy(route["spec"]["rules"])
        share = round(percent * _STEPS)
        for rule in rules:
            sides = self._sides(rule)
            if len(sides) == 2:
                sides[self._canary]["weight"] = share
                sides[self._stable]["weight"] = _HUNDRED * _STEPS - share
        if rules != route["spec"]["rules"]:
            self._object.change(route, {"spec": {"rules": rules}})

    def get_weight(self) -> float | None:
        """Return the share of the canary in percent; None when rules differ, or no request is sent at all."""
        shares = {
            round(_HUNDRED * canary / (canary + stable), 6) if canary + stable else None
            for canary, stable in self._weights(self._object.read())
        }
        return shares.pop() if len(shares) == 1 else None

    def ready(self) -> str:
        """Return why the gateway does not use the present weights yet; empty when every gateway has accepted them."""
        route = self._object.read()
        generation, parents = route["metadata"].get("generation"), route.get("status", {}).get("parents", [])
        for parent in parents:
            for condition in parent.get("conditions", []):
                if condition["type"] in ("Accepted", "ResolvedRefs"):
                    if condition.get("observedGeneration", 0) < (generation or 0):
                        return f"{self._object}: a gateway has not seen generation {generation} yet"
                    if condition["status"] != "True":
                        return f"{self._object}: {condition['type']} is not true: {condition.get('message', '')}"
        return "" if parents else f"{self._object}: no gateway has accepted it"

    def finish(self, *, succeeded: bool) -> None:
        """Send all requests to the side that has won."""
        self.set_weight(_HUNDRED if succeeded else 0)

    def _sides(self, rule: dict[str, Any]) -> dict[str, dict[str, Any]]:
        backends = rule.get("backendRefs") or []
        return {each["name"]: each for each in backends if each["name"] in (self._stable, self._canary)}

    def _weights(self, route: dict[str, Any]) -> list[tuple[int, int]]:
        rules = [self._sides(rule) for rule in route["spec"].get("rules") or []]
        found = [
            (sides[self._canary].get("weight", 1), sides[self._stable].get("weight", 1))
            for sides in rules
            if len(sides) == 2
        ]
        if not found:
            raise InvalidArgumentError(
                f"router: {self._object} must have a rule with both backends {self._stable} and {self._canary}. "
                "Nothing was changed; add them, with the weights 100 and 0"
            )
        return found
