"""Which audit log the commands use: environment variables, because a password has no place on a command line."""

from __future__ import annotations

import os
from dataclasses import replace

from airflow_mcp.audit.settings import AuditSettings, settings_from_url
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.registry_server import actor
from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.moves import audit_actor
from airflow_mcp.exceptions import AccessRefusedError, InvalidArgumentError
from airflow_mcp.registry.governance import Governance

ENV_AUDIT_LOG = "AIRFLOW_MCP_AUDIT_LOG"
"""``postgresql://login:password@host/database`` or ``sqlite:///absolute/path``."""
ENV_ENVIRONMENT = "AIRFLOW_MCP_ENVIRONMENT"
"""``dev`` (the default), ``test`` or ``prod``."""
ENV_ROLLBACK = "AIRFLOW_MCP_ROLLBACK_WITHOUT_AUDIT"
"""``false`` refuses a rollback while the log is down."""


def environment() -> str:
    """Return the environment that the commands act in.

    :raises InvalidArgumentError: when the variable has another value.
    """
    value = os.environ.get(ENV_ENVIRONMENT) or "dev"
    if value not in ENVIRONMENTS:
        raise InvalidArgumentError(f"{ENV_ENVIRONMENT} must be one of dev, test, prod; got {value!r}")
    return value


def audit_settings() -> AuditSettings | None:
    """Return where the audit log is; None when no log is configured.

    :raises InvalidArgumentError: when the variable is not usable.
    """
    url = os.environ.get(ENV_AUDIT_LOG, "")
    return settings_from_url(url, environment()) if url else None


def governed_by() -> str | None:
    """Return the name of the audit log; None when no log is configured."""
    found = audit_settings()
    return found.name if found else None


def required_settings() -> AuditSettings:
    """Return where the audit log is.

    :raises InvalidArgumentError: when no log is configured.
    """
    found = audit_settings()
    if found is None:
        raise InvalidArgumentError(
            f"{ENV_AUDIT_LOG} must be the URL of the audit log: postgresql://login:password@host/database or "
            "sqlite:///absolute/path; got nothing"
        )
    return found


def governance() -> Governance:
    """Return whether and where the moves of a command are recorded."""
    opened: list[AuditLog] = []

    def open_once() -> AuditLog:
        if not opened:
            opened.append(open_log(required_settings()))
        return opened[0]

    return Governance(
        environment=environment(),
        open_log=open_once if os.environ.get(ENV_AUDIT_LOG) else None,
        rollback_without_log=os.environ.get(ENV_ROLLBACK, "true").lower() != "false",
    )


def audit_user() -> AuditActor:
    """Return the person who calls, as events name them; nobody has checked the name."""
    return audit_actor(actor())


def person() -> AuditActor:
    """Return the person who calls, by the name of their account: that is what a policy knows."""
    by = actor()
    return replace(audit_actor(by), name=by.requested_by)


def require_checked(caller: AuditActor, environment: str, what: str) -> None:
    """Check that prod knows who calls.

    :param caller: from :func:`person`.
    :param environment: dev, test or prod.
    :param what: what they do, such as ``changes a policy``.
    :raises AccessRefusedError: when nobody has checked it.
    """
    if environment == "prod" and not caller.authenticated:
        raise AccessRefusedError(
            f"Airflow must check who {what}; got {caller.name!r}, a name of the operating system. Nothing was "
            "recorded; set AIRFLOW_MCP_AIRFLOW_URL and AIRFLOW_MCP_AIRFLOW_TOKEN"
        )
