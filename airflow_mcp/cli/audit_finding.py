"""What ``airflow-mcp doctor`` finds about the audit log: whether it answers, is anchored, and agrees with MLflow."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.audit.checkpoints import LONGEST_WITHOUT, last_anchored, why_unanchored
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_settings, environment, governance_standing
from airflow_mcp.core.audit.log import LOG
from airflow_mcp.core.doctor.diagnosis import Diagnosis, Level
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import as_taken
from airflow_mcp.registry.reconcile import contradictions, missing_events
from airflow_mcp.registry.reconcile_decisions import MissingDecisions

if TYPE_CHECKING:
    from airflow_mcp.audit.settings import AuditSettings
    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.mlflow_client.settings import MlflowSettings

_SUBJECT = "audit log"
_CHECKPOINTS = "checkpoints"
_POLICY = "policy"


def audit_finding(mlflow: MlflowSettings | None) -> Diagnosis:
    """Return what is to be said about the audit log.

    :param mlflow: the MLflow server whose moves are compared with the log; None when it does not answer.
    """
    try:
        settings = audit_settings()
        if settings is not None:
            return _compared(settings, mlflow)
        if environment() == "prod":
            raise InvalidArgumentError("not governed, so prod promotes nothing")
    except ModelControlPlaneError as error:
        return Diagnosis(_SUBJECT, "problem", str(error), "see docs/audit.md, section When the log is down")
    return Diagnosis(_SUBJECT, "ok", "not governed: moves are recorded in MLflow only")


def policy_finding() -> Diagnosis | None:
    """Return which policy decides about moves; None without an audit log, or when the log does not answer."""
    try:
        found = governance_standing()
    except InvalidArgumentError as error:
        return Diagnosis(_POLICY, "problem", str(error), "see docs/governance.md")
    if not found["audit_log"] or (found["policy_error"] and not found["governance_off"]):
        return None  # the finding about the log itself says so
    if found["governance_off"]:
        return Diagnosis(
            _POLICY, "warning", f"none is enforced: {found['governance_off']}", "unset AIRFLOW_MCP_GOVERNANCE"
        )
    if policy := found["policy"]:
        return Diagnosis(_POLICY, "ok", f"{policy['digest']} is in force since {policy['since']}")
    if environment() == "prod":
        return Diagnosis(_POLICY, "problem", "none is in force, so prod promotes nothing", "see docs/governance.md")
    return Diagnosis(_POLICY, "ok", "not governed: no policy is in force, so nobody is asked who may move a model")


def anchor_finding() -> Diagnosis | None:
    """Return whether checkpoints protect the audit log; None without a log, or where nobody has asked for them yet."""
    try:
        settings = audit_settings()
        if settings is None:
            return None
        with closing(open_log(settings)) as log:
            problem = why_unanchored(log, datetime.now(UTC))
            if not problem:
                return Diagnosis(
                    _CHECKPOINTS, "ok", f"reached an anchor within {LONGEST_WITHOUT.total_seconds() / 3600:g} h"
                )
            if settings.environment != "prod" and last_anchored(log) is None:
                return None
    except ModelControlPlaneError:
        return None  # the finding about the log itself says so
    level: Level = "problem" if settings.environment == "prod" else "warning"
    advice = "run airflow-mcp audit checkpoint every hour, or the Dag audit_keeper; see docs/audit.md#checkpoints"
    return Diagnosis(_CHECKPOINTS, level, problem, advice)


def _compared(settings: AuditSettings, mlflow: MlflowSettings | None) -> Diagnosis:
    """Compare what MLflow keeps with the log, both ways; nothing is recorded."""
    with closing(open_log(settings)) as log:
        log.facts(LOG, "log.created")
        if mlflow is None:
            return Diagnosis(_SUBJECT, "ok", f"{log.name} answers")
        missing: list[AuditEvent] = []
        contradicting: list[str] = []
        with closing(DirectMlflow(mlflow)) as server:
            now = datetime.now(UTC)
            decisions = MissingDecisions(server, log, settings.environment, now)
            for found in server.search_registered_models():
                model = as_taken(server, found)
                missing += missing_events(model, log, settings.environment, now)
                missing += decisions.of(model.name)
                contradicting += contradictions(model, log)
        if contradicting:
            says = f"{log.name} and MLflow differ in {len(contradicting)} moves, such as: {contradicting[0]}"
            advice = "find out whether an event was forged, or the tags in MLflow changed; see docs/audit.md"
            return Diagnosis(_SUBJECT, "problem", says, advice)
        if missing:
            first = f"{missing[0].action} of {missing[0].subject}"
            says = f"{log.name} lacks {len(missing)} events, such as {first}"
            return Diagnosis(_SUBJECT, "warning", says, "airflow-mcp audit reconcile records them")
        return Diagnosis(_SUBJECT, "ok", f"{log.name} answers and has every move in MLflow")
