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

    @classmethod
    def of_task(cls, task: TaskKey) -> Actor:
        """Return the actor that a task instance is."""
        return cls("task", f"{task.dag_id}.{task.task_id}", task.dag_run_id)

    @classmethod
    def of_user(cls, user: str, host: str) -> Actor:
        """Return the actor that a user of the command line is."""
        return cls("user", f"{user}@{host}", "airflow-mcp")

    def __str__(self) -> str:
        """Return the text that records and claims keep."""
        return f"{self.name} {self.via}"
