"""Who is behind a task or a command: the account that Airflow's API server saw, not the name that somebody gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from airflow_mcp.core.access.decision import Principal, principal_of_account
from airflow_mcp.core.access.policy import GovernancePolicy
from airflow_mcp.core.actor import Actor

MOST_PARENTS = 10
"""Dag runs that trigger one another; a longer chain is not followed."""
_CHECKED = ("ui", "rest_api", "backfill")
"""Ways on which the API server checked who triggers. ``airflow dags trigger`` takes any name from its environment."""
_NOBODY = ("timetable", "asset")
_NOBODYS_RUNS = ("scheduled", "asset_triggered", "asset_materialization")


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
    """Who is behind a move: an account, a Dag that acts for nobody, or neither."""

    account: str = ""
    """Name of the account; empty for a pipeline, and when it is not known."""
    pipeline: str = ""
    """Dag that acts for nobody, by schedule or by an asset."""
    cleared_by: tuple[str, ...] = ()
    """Further accounts whose action made a task run again."""
    doubt: str = ""
    """Why it is not certain; empty when a server checked it."""

    def why_unknown(self, environment: str) -> str:
        """Return why this is not enough to decide on access; empty when it is. Prod accepts no doubt.

        :param environment: dev, test or prod.
        """
        is_named = bool(self.account or self.pipeline)
        return "" if is_named and not (self.doubt and environment == "prod") else f"nobody knows who asks: {self.doubt}"

    def principals(self, policy: GovernancePolicy) -> tuple[Principal, ...]:
        """Return everybody who must be permitted: who asked, and who made a task run again; one person once.

        :param policy: the policy in force.
        """
        accounts = [self.account] if self.account else []
        found = [principal_of_account(policy, account) for account in (*accounts, *self.cleared_by)]
        if self.pipeline:
            found.insert(0, Principal("pipeline", self.pipeline))
        return tuple(dict.fromkeys(found))


def requester_of_actor(actor: Actor) -> Requester:
    """Return who is behind an actor where Airflow's REST API is not asked.

    :param actor: a task, or the caller of a command.
    """
    if actor.kind == "user":
        doubt = "" if actor.is_authenticated else "the operating system names the user of a command, and anybody can be"
        return Requester(account=actor.requested_by, doubt=doubt)
    doubt = "a task knows only a name; set [airflow_mcp] airflow_api_conn_id, so that Airflow is asked"
    if actor.requested_by:
        return Requester(account=actor.requested_by, doubt=doubt)
    if actor.run_type in _NOBODYS_RUNS and actor.task is not None:
        return Requester(pipeline=actor.task.dag_id, doubt=doubt)
    return Requester(doubt=doubt)


def requester_of(chain: Sequence[RunOrigin]) -> Requester:
    """Return who is behind a Dag run.

    :param chain: the run, the run that triggered it, and so on as far as they are known.
    """
    cleared = tuple(dict.fromkeys(account for origin in chain for account in origin.cleared_by))
    return replace(_first_cause(chain), cleared_by=cleared)


def _first_cause(chain: Sequence[RunOrigin]) -> Requester:
    if not chain:
        return Requester(doubt="Airflow does not know the Dag run")
    origin = chain[-1]
    what = f"Dag run {origin.run_id!r} of {origin.dag_id!r}"
    if differing := next((other for other in chain if other.account != origin.account), None):
        return Requester(
            doubt=f"{what} is of {origin.account!r}, and the run that it triggered of {differing.account!r}"
        )
    way = origin.triggered_by
    if way in _CHECKED and origin.account:
        return Requester(account=origin.account)
    if way in _NOBODY and not origin.account:
        return Requester(pipeline=origin.dag_id)
    doubts = {
        "cli": f"{what} was triggered on the command line, which takes any name",
        "operator": f"{what} was triggered by a run that Airflow does not know",
    }
    return Requester(
        account=origin.account if way == "cli" else "",
        doubt=doubts.get(way, f"{what} began in a way that names nobody: {way or 'unknown'}"),
    )
