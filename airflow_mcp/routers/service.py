"""Requests that change sides all at once, by the selector of a Service."""

from __future__ import annotations

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.core.manifests.parts import LABEL_TRACK
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.routers.kubernetes_object import RoutingObject

_HUNDRED = 100


class ServiceRouter:
    """A Service whose selector has one label that tells two Deployments apart: blue-green.

    :param cluster: its namespace.
    :param service: name of the Service.
    :param stable: value of the label for the champion, such as ``blue``.
    :param canary: value of the label for the canary, such as ``green``.
    :param label: name of the label.
    """

    def __init__(
        self, cluster: ClusterObjects, *, service: str, stable: str, canary: str, label: str = LABEL_TRACK
    ) -> None:
        self._object = RoutingObject(cluster, "v1", "Service", service)
        self._values = {0.0: stable, float(_HUNDRED): canary}
        self._label = label

    def prepare(self) -> None:
        """Check that the selector names one of both sides.

        :raises InvalidArgumentError: when it does not.
        """
        if self.get_weight() is None:
            known = ", ".join(self._values.values())
            raise InvalidArgumentError(
                f"router: the selector of {self._object} must have the label {self._label} with one of {known}. "
                "Nothing was changed"
            )

    def set_weight(self, percent: float) -> None:
        """Point the selector at one side.

        :raises InvalidArgumentError: when the percent is neither 0 nor 100.
        """
        value = self._values.get(float(percent))
        if value is None:
            raise InvalidArgumentError(
                f"router: a Service sends all requests to one side, so weights must be 0 or 100; got {percent:g}. "
                "Nothing was changed; use strategy blueGreen, or another router"
            )
        found = self._object.read()
        if (found["spec"].get("selector") or {}).get(self._label) != value:
            self._object.change(found, {"spec": {"selector": {self._label: value}}})

    def get_weight(self) -> float | None:
        """Return 0 or 100; None when the selector names neither side."""
        value = (self._object.read()["spec"].get("selector") or {}).get(self._label)
        return next((percent for percent, each in self._values.items() if each == value), None)

    def ready(self) -> str:
        """Return nothing: endpoints follow a selector within moments, and nothing reports when."""
        return ""

    def finish(self, *, succeeded: bool) -> None:
        """Send all requests to the side that has won."""
        self.set_weight(_HUNDRED if succeeded else 0)
