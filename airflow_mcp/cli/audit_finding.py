"""What ``airflow-mcp doctor`` finds about the audit log: whether it answers, and which moves in MLflow it lacks."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_settings, environment
from airflow_mcp.core.audit.log import LOG
from airflow_mcp.core.doctor.diagnosis import Diagnosis
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import as_taken
from airflow_mcp.registry.reconcile import missing_events

if TYPE_CHECKING:
    from airflow_mcp.audit.settings import AuditSettings
    from airflow_mcp.mlflow_client.settings import MlflowSettings

_SUBJECT = "audit log"


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


def _compared(settings: AuditSettings, mlflow: MlflowSettings | None) -> Diagnosis:
    """Compare the moves in MLflow with the log; nothing is recorded."""
    with closing(open_log(settings)) as log:
        log.facts(LOG, "log.created")
        if mlflow is None:
            return Diagnosis(_SUBJECT, "ok", f"{log.name} answers")
        with closing(DirectMlflow(mlflow)) as server:
            missing = [
                event
                for model in server.search_registered_models()
                for event in missing_events(as_taken(server, model), log, settings.environment, datetime.now(UTC))
            ]
        if missing:
            first = f"{missing[0].action} of {missing[0].subject}"
            says = f"{log.name} lacks {len(missing)} events, such as {first}"
            return Diagnosis(_SUBJECT, "warning", says, "airflow-mcp audit reconcile records them")
        return Diagnosis(_SUBJECT, "ok", f"{log.name} answers and has every move in MLflow")
