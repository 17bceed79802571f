"""Requests split by the controller of Argo Rollouts, whose steps this package moves on."""

from __future__ import annotations

from typing import Any

from airflow_mcp.cluster.objects import ClusterObjects
from airflow_mcp.exceptions import FailedError, InvalidArgumentError
from airflow_mcp.routers.kubernetes_object import RoutingObject

API_VERSION = "argoproj.io/v1alpha1"
_STATUS = "status"


class ArgoRouter:
    """A Rollout with a step ``setWeight`` and a ``pause: {}`` after it for each weight of the plan.

    The controller waits in each pause. This router moves it to the next weight, and ends it.

    :param cluster: its namespace.
    :param rollout: name of the Rollout.
    """

    def __init__(self, cluster: ClusterObjects, *, rollout: str) -> None:
        self._object = RoutingObject(cluster, API_VERSION, "Rollout", rollout)

    def prepare(self) -> None:
        """Check that the Rollout waits in its steps, and pauses after every weight.

        :raises InvalidArgumentError: when it does not.
        """
        steps = self._steps(self._object.read())
        for index, step in enumerate(steps):
            after = steps[index + 1] if index + 1 < len(steps) else {}
            if "setWeight" in step and after.get("pause") != {}:
                raise InvalidArgumentError(
                    f"router: every setWeight of {self._object} must have pause: {{}} after it, because the rules of "
                    f"the rollout decide when to go on; got step {index}. Nothing was changed"
                )

    def set_weight(self, percent: float) -> None:
        """Move the Rollout on to the step with a weight.

        :raises InvalidArgumentError: when no step has it.
        """
        found = self._object.read()
        if percent == 0 or self._weight(found) == percent:
            return  # it begins at 0, and goes back to it only by being aborted
        if percent == 100:
            self._object.change(found, {_STATUS: {"promoteFull": True}}, subresource=_STATUS)
            return
        steps = self._steps(found)
        index = next((index for index, step in enumerate(steps) if step.get("setWeight") == percent), None)
        if index is None:
            known = ", ".join(f"{step['setWeight']:g}" for step in steps if "setWeight" in step)
            raise InvalidArgumentError(
                f"router: weights of {self._object} are {known}; got {percent:g}. Nothing was changed; give it the "
                "steps of the plan"
            )
        change = {"pauseConditions": None, "controllerPause": False, "currentStepIndex": index}
        self._object.change(found, {_STATUS: change}, subresource=_STATUS)

    def get_weight(self) -> float | None:
        """Return the weight that the controller reports; None before it has reported one."""
        return self._weight(self._object.read())

    def ready(self) -> str:
        """Return why the controller has not finished the last change; empty when it waits, or is healthy.

        :raises FailedError: when the Rollout is degraded.
        """
        status = self._object.read().get(_STATUS) or {}
        phase, message = status.get("phase", ""), status.get("message", "")
        if phase == "Degraded":
            raise FailedError(f"{self._object} is degraded: {message}. The canary cannot answer")
        return "" if phase in ("Paused", "Healthy") else f"{self._object} is {phase or 'not seen yet'}: {message}"

    def finish(self, *, succeeded: bool) -> None:
        """Promote the Rollout fully, or abort it."""
        change = {"promoteFull": True} if succeeded else {"abort": True}
        found = self._object.read()
        if all((found.get(_STATUS) or {}).get(name) != value for name, value in change.items()):
            self._object.change(found, {_STATUS: change}, subresource=_STATUS)

    def _steps(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        steps = (found["spec"].get("strategy", {}).get("canary") or {}).get("steps") or []
        if not steps:
            raise InvalidArgumentError(
                f"router: {self._object} must have strategy.canary.steps. Nothing was changed; give it the steps of "
                "the plan"
            )
        return list(steps)

    @staticmethod
    def _weight(found: dict[str, Any]) -> float | None:
        weights = ((found.get(_STATUS) or {}).get("canary") or {}).get("weights") or {}
        weight = (weights.get("canary") or {}).get("weight")
        return None if weight is None else float(weight)
