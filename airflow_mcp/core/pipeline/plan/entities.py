"""What a pipeline will do, as plain data: the tasks, edges and schedule that a Dag is rendered from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    "promote",
    "step",
    "approve",
    "record_approval",
    "outcome",
]
EventKind = Literal["commit", "data", "model", "drift"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A value that another task pushes to XCom."""

    task_id: str
    key: str

    def __str__(self) -> str:
        """Write it as people read it: ``train.run_id``."""
        return f"{self.task_id}.{self.key}"


@dataclass(frozen=True, slots=True)
class Template:
    """A Jinja template of our own. Every other text in a plan is data and is never rendered."""

    text: str

    def __str__(self) -> str:
        """Write the template's text."""
        return self.text


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task."""

    task_id: str
    kind: TaskKind
    stage: str
    """Stage of the pipeline that it belongs to."""
    arguments: Mapping[str, Any]
    """Arguments of the operator by their names: JSON values, :class:`Reference` and :class:`Template`."""
    needs: tuple[str, ...]
    """Tasks that must have ended well before."""
    origin: str
    """``<file>:<line>`` of the stage, or ``filled in: <rule>``."""
    timeout: int | None = None
    """Seconds after which its workload is stopped; None: no limit."""

    @property
    def is_filled_in(self) -> bool:
        """Whether the file does not name it."""
        return self.origin.startswith(FILLED_IN)


@dataclass(frozen=True, slots=True)
class EventSource:
    """Something outside that starts the pipeline when it changes."""

    kind: EventKind
    name: str
    """Name of the asset, unique among all pipelines."""
    arguments: Mapping[str, Any]
    """Arguments of the event trigger by their names."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What starts the pipeline beside a person."""

    crons: tuple[tuple[str, str], ...] = ()
    """Time tables: five cron fields and the time zone."""
    catchup: bool = False
    events: tuple[EventSource, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedParam:
    """One field of the form that "Trigger" opens."""

    name: str
    types: tuple[str, ...]
    """JSON types, ``null`` among them where nothing may be given."""
    default: Any
    title: str
    description: str
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    sets: str | None = None
    """Dotted key of the config that it replaces."""


@dataclass(frozen=True, slots=True)
class PlannedNotification:
    """Who hears of what."""

    on: tuple[str, ...]
    """``failure``, ``success`` and ``gateRejected``."""
    webhook: str
    """Airflow connection."""
    format: NoticeFormat


@dataclass(frozen=True, slots=True)
class PlannedRetries:
    """How a failed task is tried again: the delay doubles with each try."""

    attempts: int
    delay: int
    """Seconds before the first further try."""
    max_delay: int
    """Most seconds between two tries."""


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """The file that a plan is built from, as far as the spec does not hold it."""

    path: str
    """As it is shown in origins and messages."""
    folder: str
    """Absolute folder of the file: relative paths of the spec begin there."""
    text: str
    origin: Callable[..., str]
    """Says where a field comes from (``<file>:<line>``), by its path: names and indexes."""
    config: Mapping[str, Any] | None = None
    """What ``spec.config``, or the file that it names, holds; None when there is none."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The whole Dag."""

    dag_id: str
    environment: str
    description: str
    owner: str
    tags: tuple[str, ...]
    model_name: str
    experiment_name: str
    stages: tuple[str, ...]
    """Stages in the order in which a run may start at them."""
    schedule: Schedule
    params: tuple[PlannedParam, ...]
    tasks: tuple[PlannedTask, ...]
    """In an order in which every task comes after what it needs."""
    notifications: tuple[PlannedNotification, ...]
    retries: PlannedRetries
    run_timeout: int | None
    """Seconds after which a run fails; None: no limit."""
    spec_hash: str
    """Hash of what the pipeline does; comments, descriptions and the layout of the file do not count."""
    source_file: str
    source_text: str

    def task(self, task_id: str) -> PlannedTask:
        """Give a task by its id.

        :param task_id: its id.
        :raises KeyError: when there is none.
        """
        for task in self.tasks:
            if task.task_id == task_id:
                return task
        raise KeyError(task_id)
