"""The base of the tasks of a release: its version, its request in the audit log, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from airflow_mcp import settings
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy, ApprovedAct
from airflow_mcp.core.argument import choice, required_text, version_number
from airflow_mcp.core.contract import TAG_PASSPORT, TAG_PASSPORT_ENVELOPE
from airflow_mcp.core.passport.dsse import read_envelope
from airflow_mcp.core.passport.statement import read_statement
from airflow_mcp.exceptions import InvalidArgumentError, PassportError
from airflow_mcp.hooks.airflow_people import AirflowApiHook
from airflow_mcp.notifications.release import notify
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.approvals import ReleaseBook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.approvals.policy import Occasion
    from airflow_mcp.core.approvals.state import RequestState
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.passport.statement import CodeFacts

_MOST_SEATS = 20


class ReleaseOperator(ModelControlOperator):
    """Base of the tasks of a release.

    :param model_name: registered model (templated).
    :param version: version to release, which has a passport (templated).
    :param seats: number of ``ApprovalSeatOperator`` tasks in the Dag.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param act: ``release``, or ``rollback`` to ask before a ``RollbackModelOperator``.
    """

    template_fields: Sequence[str] = ("model_name", "version")
    ui_color = "#fdf1d8"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        seats: int,
        environment: str | None = None,
        act: ApprovedAct = RELEASE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= seats <= _MOST_SEATS:
            raise InvalidArgumentError(f"seats must be 1 to {_MOST_SEATS}; got {seats}")
        choice("act", act, get_args(ApprovedAct))
        self.model_name = model_name
        self.version = version
        self.seats = seats
        self.environment = environment
        self.approved_act = act

    def release_key(self) -> ReleaseKey:
        """Return what is released; the passport is read from the registry, because an XCom can be forged.

        :raises PassportError: when the version has none.
        """
        name = required_text("model_name", self.model_name)
        version = self.hook.get_model_version(name, version_number("version", self.version))
        passport = version.tags.get(TAG_PASSPORT, "")
        if not passport:
            raise PassportError(
                f"version {version.version} of {name!r} has no passport, and approvals are bound to one. Nobody was "
                "asked; issue it with IssuePassportOperator"
            )
        return ReleaseKey(name, self.environment or settings.environment(), passport, self.approved_act)

    def release_book(self, key: ReleaseKey) -> tuple[ReleaseBook, ApprovalPolicy]:
        """Return the request in the log, and the policy in force.

        :raises InvalidArgumentError: when there is no log, or no policy in it.
        """
        if self.governance.open_log is None:
            raise InvalidArgumentError(
                "[airflow_mcp] audit_conn_id must be the ID of a connection of type audit_log; got nothing. Nobody was "
                "asked: approvals are events of the audit log"
            )
        log: AuditLog = self.governance.open_log()
        in_force = read_in_force(log)
        if in_force is None:
            raise InvalidArgumentError("no policy is in force, so nobody knows who must approve. Nobody was asked")
        policy = ApprovalPolicy.of(in_force.policy)
        return ReleaseBook(log, key, policy), policy

    def code_of(self, key: ReleaseKey) -> CodeFacts:
        """Return the code behind the version, as its passport says; the digest proves that it is the one asked for.

        :param key: what is released.
        :raises PassportError: when the version has another passport by now, or it cannot be read.
        """
        version = self.hook.get_model_version(key.model_name, version_number("version", self.version))
        statement = read_statement(read_envelope(version.tags.get(TAG_PASSPORT_ENVELOPE, "")).payload)
        if statement.digest != key.passport:
            raise PassportError(
                f"version {version.version} of {key.model_name!r} must have passport {key.passport}; got "
                f"{statement.digest}. Nobody was asked"
            )
        return statement.passport.code

    @property
    def airflow(self) -> AirflowApiHook:
        """The hook for Airflow's REST API.

        :raises InvalidArgumentError: when no connection is configured.
        """
        conn_id = settings.airflow_api_conn_id()
        if not conn_id:
            raise InvalidArgumentError(
                "[airflow_mcp] airflow_api_conn_id must be the ID of a connection of type airflow_api; got nothing. "
                "Nobody was asked: without it nobody knows who asks and who answers"
            )
        return AirflowApiHook(conn_id)

    def tell(
        self, policy: ApprovalPolicy, occasion: Occasion, state: RequestState, context: Context, **details: Any
    ) -> list[str]:
        """Send a message; what was not delivered is logged and returned."""
        facts = {"version": str(self.version), "url": str(context["ti"].log_url), **details}
        problems = notify(policy.channels, occasion, state.key, facts)
        for problem in problems:
            self.log.error("A message was not delivered: %s", problem)
        return problems
