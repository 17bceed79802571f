"""What governs the commands: environment variables, because a password has no place on a command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.audit.settings import AuditSettings, settings_from_url
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.registry_server import actor, airflow_api
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.access.permitted import require_permitted
from airflow_mcp.core.access.requester import requester_of_actor
from airflow_mcp.core.argument import ENVIRONMENTS
from airflow_mcp.core.audit.event import AuditActor, AuditEvent
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.audit.moves import audit_actor
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.exceptions import AccessRefusedError, InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.registry.approvals import ReleaseApprovals
from airflow_mcp.registry.governance import Governance

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.code.tag_signers import TagSigners
    from airflow_mcp.core.ports import Signer
    from airflow_mcp.registry.approvals import HumanAnswers

_HAS_AIRFLOW = find_spec("airflow") is not None
"""Without Airflow, approvals and release tags cannot be checked here, so the guard refuses where it needs them."""

ENV_AUDIT_LOG = "AIRFLOW_MCP_AUDIT_LOG"
"""``postgresql://login:password@host/database`` or ``sqlite:///absolute/path``."""
ENV_ENVIRONMENT = "AIRFLOW_MCP_ENVIRONMENT"
"""``dev`` (the default), ``test`` or ``prod``."""
ENV_ROLLBACK = "AIRFLOW_MCP_ROLLBACK_WITHOUT_AUDIT"
"""``false`` refuses a rollback while the log is down."""
ENV_GOVERNANCE = "AIRFLOW_MCP_GOVERNANCE"
"""``enforce`` (the default), or ``off: <reason>``, which is recorded with every move."""
ENV_SIGNING_KEY = "AIRFLOW_MCP_SIGNING_KEY_FILE"
"""File with the private key that signs clearances."""


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


def governance_standing() -> dict[str, Any]:
    """Return how the commands are governed, as plain JSON values: the audit log, and the policy in force since when."""
    off, settings = _off_reason(), audit_settings()
    if settings is None:
        return {"audit_log": None, "policy": None, "policy_error": "", "governance_off": off}
    found, problem = None, ""
    try:
        with closing(open_log(settings)) as log:
            found = read_in_force(log)
    except ModelControlPlaneError as error:
        problem = str(error)
    policy = {"digest": found.digest, "since": found.since, "seq": found.seq} if found else None
    return {"audit_log": settings.name, "policy": policy, "policy_error": problem, "governance_off": off}


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
    """Return what decides about the moves of a command and records them, as the options of Airflow do for operators.

    :raises InvalidArgumentError: when an environment variable is not usable.
    """
    opened: list[AuditLog] = []

    def open_once() -> AuditLog:
        if not opened:
            opened.append(open_log(required_settings()))
        return opened[0]

    return Governance(
        environment=environment(),
        open_log=open_once if os.environ.get(ENV_AUDIT_LOG) else None,
        rollback_without_log=os.environ.get(ENV_ROLLBACK, "true").lower() != "false",
        off_reason=_off_reason(),
        approvals=ReleaseApprovals(_people) if airflow_api() is not None and _HAS_AIRFLOW else None,
        repositories=_Repositories() if _HAS_AIRFLOW else None,
        open_signer=_signer if os.environ.get(ENV_SIGNING_KEY) else None,
    )


def _off_reason() -> str:
    value = os.environ.get(ENV_GOVERNANCE, "").strip() or "enforce"
    switch, _, reason = value.partition(":")
    if value != "enforce" and (switch.strip() != "off" or not reason.strip()):
        raise InvalidArgumentError(f"{ENV_GOVERNANCE} must be enforce or off: <reason>; got {value!r}")
    return reason.strip()


def _signer() -> Signer:
    """Return the key that signs clearances.

    :raises InvalidArgumentError: when the file cannot be read, or holds no private key.
    """
    path = os.environ[ENV_SIGNING_KEY]
    try:
        return PrivateKey(Path(path).read_bytes())
    except OSError as error:
        raise InvalidArgumentError(
            f"{ENV_SIGNING_KEY} must be a readable file; got {path!r}: {error.strerror}"
        ) from None


@contextmanager
def _people() -> Iterator[HumanAnswers]:
    """Open what Airflow knows about votes, as the person who calls."""
    from airflow_mcp.hooks.airflow_people import AirflowPeople  # noqa: PLC0415  (imports Airflow)

    api = airflow_api()
    if api is None:
        raise InvalidArgumentError("AIRFLOW_MCP_AIRFLOW_URL and AIRFLOW_MCP_AIRFLOW_TOKEN must be set; got nothing")
    with api:
        yield AirflowPeople(api)


class _Repositories:
    """Where release tags are now, asked with the Git login of the person who calls."""

    def commit_of(self, url: str, ref: str) -> str:
        from airflow_mcp.hooks.git import GitRepositories  # noqa: PLC0415  (imports Airflow)

        return GitRepositories().commit_of(url, ref)

    def signed_commit_of(self, url: str, ref: str, signers: TagSigners) -> str:
        from airflow_mcp.hooks.git import GitRepositories  # noqa: PLC0415  (imports Airflow)

        return GitRepositories().signed_commit_of(url, ref, signers)


def audit_user() -> AuditActor:
    """Return the person who calls, as events name them; nobody has checked the name."""
    return audit_actor(actor())


def read_log(log: AuditLog, event: AuditEvent) -> Iterator[bytes]:
    """Record a read and return the lines that were asked for, if the policy in force permits the caller to read them.

    :param log: the log.
    :param event: a listing, which needs ``audit/read``, or an export, which needs ``audit/export``.
    :raises AccessRefusedError: when it is not permitted.
    """
    action = "read" if event.action == "audit.read" else "export"
    require_permission(log, "audit", action, actor())
    return log.read(event)


def require_permission(log: AuditLog, resource: str, action: str, by: Actor) -> None:
    """Check that the policy in force permits the caller something.

    :param log: the log.
    :param resource: such as ``audit``.
    :param action: such as ``read``.
    :param by: who calls.
    :raises AccessRefusedError: when it does not.
    """
    who = requester_of_actor(by)
    require_permitted(log, lambda: who, by, environment(), resource=resource, action=action)


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
