"""Who is behind a task or a command: the account that Airflow's API server saw, not the name that somebody gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airflow_mcp.core.access.decision import Principal, principal_of_account
from airflow_mcp.core.access.policy import GovernancePolicy

MOST_PARENTS = 10
"""Dag runs that trigger one another; a longer chain is not followed."""
_SEEN = ("ui", "rest_api", "backfill")
"""Ways on which the API server checked who triggers. ``airflow dags trigger`` takes any name from its environment."""
_NOBODY = ("timetable", "asset")


@dataclass(frozen=True)
class RunOrigin:
    """How one Dag run began, as Airflow's REST API says it."""

    dag_id: str
    run_id: str
    triggered_by: str
    """``ui``, ``rest_api``, ``cli``, ``operator``, ``timetable``, ``asset``, ``backfill`` or ``test``."""
    account: str = ""
    """``triggering_user_name``; empty when nobody triggered it."""
    cleared_by: tuple[str, ...] = ()
    """Accounts that cleared a task of the run, or tried to: Airflow's event log holds both."""


@dataclass(frozen=True)
class Requester:
    """Who is behind a move."""

    account: str = ""
    """Name of the account; empty for a pipeline, and when it is not known."""
    pipeline: str = ""
    """Dag that acts for nobody, by schedule or by an asset."""
    cleared_by: tuple[str, ...] = ()
    """Further accounts whose action made a task run again."""
    authenticated: bool = False
    """Whether a server checked who it is."""
    way: str = ""
    """How the request came, such as ``ui`` or ``cli``."""
    unknown: str = ""
    """Why it is not known who asks; empty when it is known."""

    def principals(self, policy: GovernancePolicy) -> tuple[Principal, ...]:
        """Return everybody who must be permitted: who asked, and who made a task run again; one person once.

        :param policy: the policy in force.
        """
        accounts = [self.account] if self.account else []
        found = [principal_of_account(policy, account) for account in (*accounts, *self.cleared_by)]
        if self.pipeline:
            found.insert(0, Principal("pipeline", self.pipeline))
        return tuple(dict.fromkeys(found))


def requester_of(chain: Sequence[RunOrigin]) -> Requester:
    """Return who is behind a Dag run.

    :param chain: the run, the run that triggered it, and so on as far as they are known.
    """
    cleared = tuple(dict.fromkeys(account for origin in chain for account in origin.cleared_by))
    return replace(_first_cause(chain), cleared_by=cleared)


def _first_cause(chain: Sequence[RunOrigin]) -> Requester:
    if not chain:
        return Requester(unknown="Airflow does not know the Dag run")
    origin = chain[-1]
    way = origin.triggered_by
    if laundered := next((other for other in chain if other.account != origin.account), None):
        return Requester(
            way=way,
            unknown=f"Dag run {laundered.run_id!r} of {laundered.dag_id!r} names account {laundered.account!r}, and "
            f"its parent names {origin.account!r}",
        )
    if way in _SEEN and origin.account:
        return Requester(account=origin.account, authenticated=True, way=way)
    if way in _NOBODY and not origin.account:
        return Requester(pipeline=origin.dag_id, authenticated=True, way=way)
    if way == "cli":
        why = "it was triggered on the command line, which takes any name"
    elif way == "operator":
        why = "another Dag run triggered it, and Airflow does not know that run"
    else:
        why = f"Airflow says {way or 'nothing'!r} about how it began"
    return Requester(way=way, unknown=f"Dag run {origin.run_id!r} of {origin.dag_id!r} has no known requester: {why}")
