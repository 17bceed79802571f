"""Who acts: the name that every record of a change carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from airflow_mcp.core.identity import TaskKey

ActorKind = Literal["task", "user"]


@dataclass(frozen=True)
class Actor:
    """Who changes something, and through what."""

    kind: ActorKind
    name: str
    """``<dag>.<task>`` of a task, ``<user>@<host>`` of a user."""
    via: str
    """The Dag run of a task; for a user the command, ``airflow-mcp``."""
    task: TaskKey | None = None
    """The task instance that a task is."""
    requested_by: str = ""
    """Name of the account that Airflow says triggered the Dag run; empty when nobody did, or nobody knows. For a user,
    the name of the user's account."""
    run_type: str = ""
    """Type of the Dag run: ``manual``, ``scheduled``, ``backfill`` or ``asset_triggered``."""
    is_authenticated: bool = False
    """Whether Airflow's API server has checked the account of a user."""

    @classmethod
    def of_task(cls, task: TaskKey, *, requested_by: str = "", run_type: str = "") -> Actor:
        """Return the actor that a task instance is.

        :param task: the task instance.
        :param requested_by: account that triggered its Dag run.
        :param run_type: type of its Dag run.
        """
        return cls("task", f"{task.dag_id}.{task.task_id}", task.dag_run_id, task, requested_by, run_type)

    @classmethod
    def of_user(cls, user: str, host: str, *, account: str = "") -> Actor:
        """Return the actor that a user of the command line is.

        :param user: user of the operating system.
        :param host: name of the machine.
        :param account: account that Airflow's API server has checked; empty takes the user, whom nobody has checked.
        """
        return cls(
            "user", f"{user}@{host}", "airflow-mcp", requested_by=account or user, is_authenticated=bool(account)
        )

    def __str__(self) -> str:
        """Return the text that records and claims keep."""
        return f"{self.name} {self.via}"
