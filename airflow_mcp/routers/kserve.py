"""Requests split by KServe, from 0.20 on: named canaries of an InferenceService in Standard mode."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.routers.kubernetes_object import RoutingObject

API_VERSION = "serving.kserve.io/v1beta1"
_HUNDRED = 100


class KServeRouter:
    """An InferenceService with an entry for the canary in ``spec.canary``.

    :param cluster: its namespace.
    :param inference_service: name of the InferenceService.
    :param canary: name of the canary's predictor.
    """

    def __init__(self, cluster: ClusterObjects, *, inference_service: str, canary: str) -> None:
        self._object = RoutingObject(cluster, API_VERSION, "InferenceService", inference_service)
        self._canary = canary

    def prepare(self) -> None:
        """Check that the canary is there.

        :raises InvalidArgumentError: when it is not.
        """
        self._entry(self._object.read())

    def set_weight(self, percent: float) -> None:
        """Write the percentage, which is a whole number in KServe.

        :raises InvalidArgumentError: when it is not.
        """
        if percent != round(percent):
            raise InvalidArgumentError(
                f"router: weights of {self._object} must be whole numbers; got {percent:g}. Nothing was changed"
            )
        found = self._object.read()
        if self._entry(found).get("trafficPercent", 0) == percent:
            return
        changed = deepcopy(found)
        self._entry(changed)["trafficPercent"] = round(percent)
        self._object.change(found, {"spec": {"canary": changed["spec"]["canary"]}})

    def get_weight(self) -> float | None:
        """Return the percentage."""
        return float(self._entry(self._object.read()).get("trafficPercent", 0))

    def ready(self) -> str:
        """Return why the canary does not get its share yet; empty when KServe says that it is ready."""
        conditions = (self._object.read().get("status") or {}).get("conditions") or []
        found: dict[str, Any] = next((each for each in conditions if each["type"] == "CanaryReady"), {})
        if found.get("status") == "True":
            return ""
        return f"{self._object}: CanaryReady is not true: {found.get('message', 'not reported yet')}"

    def finish(self, *, succeeded: bool) -> None:
        """Send all requests to the side that has won; KServe's own promotion renames the predictor later."""
        self.set_weight(_HUNDRED if succeeded else 0)

    def _entry(self, found: dict[str, Any]) -> dict[str, Any]:
        for entry in found["spec"].get("canary") or []:
            if entry.get("predictor", {}).get("name") == self._canary:
                return entry  # type: ignore[no-any-return]
        raise InvalidArgumentError(
            f"router: {self._object} must have an entry in spec.canary whose predictor is {self._canary!r}. Nothing "
            "was changed; it needs KServe 0.20 or newer in Standard mode"
        )
