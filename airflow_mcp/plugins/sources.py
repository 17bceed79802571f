"""MLflow and the audit log as the API server reads them: by the connections of Airflow."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from threading import get_ident

from airflow_mcp import settings
from airflow_mcp.core.access.in_force import PolicyInForce, read_in_force
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.hooks.audit import AuditLogHook
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.plugins.side_facts import StoredState

_KEPT_SECONDS = 300.0
"""How long a connection is not read again: a changed one counts after that."""
_PAGE_TIMEOUT, _SWEEP_TIMEOUT = 5.0, 30.0


def page_mlflow(conn_id: str) -> DirectMlflow:
    """Return MLflow for a page: somebody waits, so no request is repeated.

    :param conn_id: the connection.
    """
    return _mlflow(conn_id, _PAGE_TIMEOUT, 0, int(time.monotonic() // _KEPT_SECONDS))


def sweep_mlflow(conn_id: str) -> DirectMlflow:
    """Return MLflow for a sweep.

    :param conn_id: the connection.
    """
    return _mlflow(conn_id, _SWEEP_TIMEOUT, 1, int(time.monotonic() // _KEPT_SECONDS))


@lru_cache(maxsize=4)
def _mlflow(conn_id: str, timeout: float, retries: int, _period: int) -> DirectMlflow:
    given = MlflowHook(conn_id).settings
    return DirectMlflow(replace(given, timeout=min(given.timeout, timeout), retries=min(given.retries, retries)))


def audit_log() -> AuditLog | None:
    """Return the audit log; None when none is configured."""
    conn_id = settings.audit_conn_id()
    return _audit_log(conn_id, int(time.monotonic() // _KEPT_SECONDS), get_ident()) if conn_id else None


def policy_in_force() -> PolicyInForce | None:
    """Return the access policy in force; None without a log or a policy, and when no policy is enforced."""
    opened = None if settings.governance_off() else audit_log()
    return read_in_force(opened) if opened is not None else None


# One for each thread: a connection to SQLite belongs to the thread that opened it, and none may be used by two at once.
@lru_cache(maxsize=32)
def _audit_log(conn_id: str, _period: int, _thread: int) -> AuditLog:
    return AuditLogHook(conn_id).get_conn()


def stored_states(keys: tuple[str, ...]) -> list[StoredState]:
    """Return values of the state stores of all assets, from Airflow's database.

    Metrics have no caller, whose rights Airflow's REST API would ask for; one query reads the ledgers of all models.

    :param keys: names of the values.
    :raises SQLAlchemyError: when the database does not answer.
    """
    from airflow.models.asset_state_store import AssetStateStoreModel as Stored  # noqa: PLC0415  (loads the models)
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415

    wanted = select(Stored.asset_id, Stored.key, Stored.value, Stored.updated_at).where(Stored.key.in_(keys))
    with create_session() as session:
        return [StoredState(*row) for row in session.execute(wanted)]
