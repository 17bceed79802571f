"""Wait until people have decided about a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mcp import settings
from airflow_mcp.core.argument import required_text, version_number
from airflow_mcp.exceptions import ApprovalMissingError, InvalidArgumentError
from airflow_mcp.sensors.waiting import WaitingSensor
from airflow_mcp.triggers.release import ReleaseDecidedTrigger

STATUSES = ("granted", "rejected", "expired", "superseded", "withdrawn")
"""How a request can end."""


class ReleaseGrantedSensor(WaitingSensor):
    """Wait until people have approved the release of a version, or have decided otherwise.

    It reads the audit log, and waits while nobody has asked. A request that ends in another way than those of
    ``statuses`` fails the task: waiting longer would not change it. The guard of a promotion does not trust this
    sensor: it checks every vote again.

    XCom: ``model_name``, ``version``, ``environment``, ``passport``, ``status``, ``reason``, ``by`` (people who
    approved).

    :param model_name: registered model (templated).
    :param version: number of the version (templated).
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param statuses: ends that let the Dag go on: ``granted``, ``rejected``, ``expired``, ``superseded``, ``withdrawn``.
    :param deferrable: wait in the triggerer; None takes ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "version")
    ui_color = "#fdf1d8"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        environment: str | None = None,
        statuses: Sequence[str] = ("granted",),
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(deferrable=deferrable, **kwargs)
        self.model_name = model_name
        self.version = version
        self.environment = environment
        self.statuses = statuses
        if isinstance(statuses, str) or not statuses or set(statuses) - set(STATUSES):
            raise InvalidArgumentError(f"statuses must be a list of {', '.join(STATUSES)}; got {statuses!r}")

    def goal_trigger(self) -> ReleaseDecidedTrigger:
        """Return the trigger for the rendered arguments.

        :raises InvalidArgumentError: when an argument is wrong, or no audit log is configured.
        """
        audit_conn_id = settings.audit_conn_id()
        if not audit_conn_id:
            raise InvalidArgumentError(
                "[airflow_mcp] audit_conn_id must be the ID of a connection of type audit_log; got nothing. Approvals "
                "are events of the audit log"
            )
        return ReleaseDecidedTrigger(
            model_name=required_text("model_name", self.model_name),
            version=version_number("version", self.version),
            environment=self.environment or settings.environment(),
            mlflow_conn_id=self.hook.mlflow_conn_id,
            audit_conn_id=audit_conn_id,
            poll_seconds=self.poll_seconds,
        )

    def result(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the decision.

        :raises ApprovalMissingError: when the request ended in a way that does not let the Dag go on.
        """
        if found["status"] not in self.statuses:
            reason = f", {found['reason']}" if found["reason"] else ""
            raise ApprovalMissingError(
                f"the release of version {found['version']} of {found['model_name']!r} to {found['environment']} is "
                f"{found['status']}{reason}. Ask for it again, then clear this task"
            )
        return dict(found)
