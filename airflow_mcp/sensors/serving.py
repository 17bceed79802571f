"""Wait until model servers answer with a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_mcp.core.argument import required_text, version_number
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.serving import ServingHook
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.serving import ModelServedTrigger


class ModelServedSensor(WaitingSensor):
    """Wait until every replica of a model server, or a share of them, answers requests with a version.

    A replica counts when the version can answer there, gets requests, and its breaker is closed. While a replica does
    not answer at all, the sensor keeps waiting.

    XCom: ``model_name``, ``version``, ``replicas`` and ``answering`` (numbers of replicas).

    :param model_name: registered model (templated).
    :param version: number of the version (templated).
    :param share: share of the replicas, above 0 and at most 1.
    :param serving_conn_id: Airflow connection of type ``model_server``.
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "version")
    ui_color = "#dff0e6"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        share: float = 1.0,
        serving_conn_id: str = ServingHook.default_conn_name,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.model_name = model_name
        self.version = version
        self.share = share
        self.serving_conn_id = serving_conn_id
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InvalidArgumentError(f"share must be a number above 0 and at most 1; got {share!r}")

    def goal_trigger(self) -> ModelServedTrigger:
        """Return the trigger for the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        return ModelServedTrigger(
            model_name=required_text("model_name", self.model_name),
            version=version_number("version", self.version),
            share=float(self.share),
            serving_conn_id=self.serving_conn_id,
            poll_seconds=self.poll_seconds,
        )
