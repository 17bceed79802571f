"""A pipeline's plan as plain data: the tasks, edges and schedule that a Dag is rendered from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from airflow_mcp.core.notification import NoticeFormat
from airflow_mcp.core.pipeline.file.document import FILLED_IN

TaskKind = Literal[
    "begin",
    "build",
    "pin_data",
    "train",
    "evaluate",
    "select",
    "replay",
    "gate",
    "register",
    "load_check",
    "deploy_server",
    "rollout",
    "promote",
    "step",
    "approve",
    "record_approval",
    "ask_release",
    "request_release",
    "approval_seat",
    "outcome",
]
EventKind = Literal["commit", "data", "model", "drift"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that another task pushes to XCom."""

    task_id: str
    key: str

    def __str__(self) -> str:
        """Return the form for display: ``train.run_id``."""
        return f"{self.task_id}.{self.key}"


@dataclass(frozen=True, slots=True)
class Template:
    """A Jinja template of airflow-mcp's own. Every other text in a plan is data and is never rendered."""

    text: str

    def __str__(self) -> str:
        """Return the text of the template."""
        return self.text


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task."""

    task_id: str
    kind: TaskKind
    stage: str
    """Stage that the task belongs to."""
    arguments: Mapping[str, Any]
    """Arguments of the operator: JSON values, :class:`Reference` and :class:`Template`."""
    needs: tuple[str, ...]
    """Tasks that must succeed first."""
    origin: str
    """``<file>:<line>`` of the stage, or ``filled in: <rule>``."""
    timeout: int | None = None
    """Seconds after which its workload is stopped, or its pods must be ready; None for no limit."""

    @property
    def is_filled_in(self) -> bool:
        """Whether the task is not named in the file."""
        return self.origin.startswith(FILLED_IN)


@dataclass(frozen=True, slots=True)
class EventSource:
    """An external change that starts the pipeline."""

    kind: EventKind
    name: str
    """Name of the asset, unique among all pipelines."""
    arguments: Mapping[str, Any]
    """Arguments of the event trigger."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What starts the pipeline, apart from a person."""

    crons: tuple[tuple[str, str], ...] = ()
    """Cron expressions, each with its time zone."""
    catchup: bool = False
    events: tuple[EventSource, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedParam:
    """One field of the form behind Airflow's "Trigger"."""

    name: str
    types: tuple[str, ...]
    """JSON types; with ``null`` when the field may be empty."""
    default: Any
    title: str
    description: str
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    sets: str | None = None
    """Dotted key of the config value that it replaces."""
    max_length: int | None = None
    """Characters of a text."""
    pattern: str | None = None
    """Regular expression that a text must match."""
    is_required: bool = False
    """Whether it has no default."""


@dataclass(frozen=True, slots=True)
class PlannedNotification:
    """A webhook, and the events that it is sent."""

    on: tuple[str, ...]
    """``failure``, ``success`` and ``gateRejected``."""
    webhook: str
    """Airflow connection."""
    format: NoticeFormat


@dataclass(frozen=True, slots=True)
class PlannedRetries:
    """How failed tasks are retried; the delay doubles with each retry."""

    attempts: int
    delay: int
    """Seconds before the first retry."""
    max_delay: int
    """Most seconds between two attempts."""


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """What a plan needs to know about its file, apart from the spec."""

    path: str
    """Path for display, in origins and messages."""
    folder: str
    """Absolute folder of the file; relative paths in the spec start there."""
    text: str
    origin: Callable[..., str]
    """Returns where a field comes from (``<file>:<line>``), by its path: names and indexes."""
    config: Mapping[str, Any] | None = None
    """Values of ``spec.config`` and of the file that it names; None when there are none."""


@dataclass(frozen=True, slots=True)
class PlannedRelease:
    """The plan of the Dag that asks people, and then promotes a version or rolls it out."""

    dag_id: str
    params: tuple[PlannedParam, ...]
    tasks: tuple[PlannedTask, ...]
    """In an order in which every task comes after what it needs."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The plan of a whole Dag."""

    dag_id: str
    environment: str
    description: str
    owner: str
    tags: tuple[str, ...]
    model_name: str
    experiment_name: str
    stages: tuple[str, ...]
    """Stages in their order; a run may start at any of them."""
    schedule: Schedule
    params: tuple[PlannedParam, ...]
    tasks: tuple[PlannedTask, ...]
    """In an order in which every task comes after what it needs."""
    notifications: tuple[PlannedNotification, ...]
    retries: PlannedRetries
    run_timeout: int | None
    """Seconds after which a run fails; None for no limit."""
    spec_hash: str
    """Hash of what a run does; see :func:`~airflow_mcp.core.pipeline.plan.build.spec_hash`."""
    source_file: str
    source_text: str
    release: PlannedRelease | None = None
    """The release Dag; None when nobody is asked before a release."""

    @property
    def every_task(self) -> tuple[PlannedTask, ...]:
        """The tasks of both Dags: the release begins after the task that asks for it. No id is in both."""
        if self.release is None:
            return self.tasks
        asks = tuple(task.task_id for task in self.tasks if task.kind == "ask_release")
        first, *others = self.release.tasks
        return (*self.tasks, replace(first, needs=asks), *others)

    def task(self, task_id: str) -> PlannedTask:
        """Return a task by its id.

        :param task_id: its id.
        :raises KeyError: when there is no such task.
        """
        for task in self.every_task:
            if task.task_id == task_id:
                return task
        raise KeyError(task_id)
