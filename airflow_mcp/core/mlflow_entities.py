"""Entities of MLflow's REST API as frozen values, with the fields that this package uses.

Field names are MLflow's own. Times are milliseconds since the epoch, as MLflow sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
Stage = Literal["None", "Staging", "Production", "Archived"]
"""MLflow's stages of a model version; :mod:`airflow_mcp.core.registry.stages` maps them to aliases."""
LIVE_STATUSES: tuple[RunStatus, ...] = ("RUNNING", "SCHEDULED")


@dataclass(frozen=True)
class Experiment:
    """A grouping of runs."""

    experiment_id: str
    name: str
    artifact_location: str = ""
    lifecycle_stage: str = "active"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One execution that logs to MLflow."""

    run_id: str
    experiment_id: str
    status: RunStatus
    artifact_uri: str = ""
    lifecycle_stage: str = "active"
    run_name: str = ""
    start_time: int | None = None
    end_time: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Latest value of each metric; NaN and infinities are real floats."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    model_ids: tuple[str, ...] = ()
    """Ids of the logged models this run produced, in the order of their step."""

    @property
    def is_live(self) -> bool:
        """Whether the run is in progress and not deleted."""
        return self.status in LIVE_STATUSES and self.lifecycle_stage == "active"


@dataclass(frozen=True)
class LoggedModel:
    """A model logged by a run (MLflow 3's ``models:/<model_id>``)."""

    model_id: str
    name: str
    status: str
    """``READY``, ``PENDING`` or ``UPLOAD_FAILED`` (MLflow's names without their ``LOGGED_MODEL_``)."""
    source_run_id: str
    artifact_uri: str = ""

    @property
    def uri(self) -> str:
        """The URI with which MLflow loads and registers it."""
        return f"models:/{self.model_id}"


@dataclass(frozen=True)
class FileInfo:
    """One entry of an artifact listing; path is relative to the run's artifact root."""

    path: str
    is_dir: bool
    file_size: int | None = None
    """Bytes; None for a folder."""


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str
    status: str
    """``READY``, ``PENDING_REGISTRATION`` or ``FAILED_REGISTRATION``."""
    source: str = ""
    run_id: str = ""
    model_id: str = ""
    status_message: str = ""
    creation_timestamp: int = 0
    current_stage: str = "None"
    """MLflow's own stage, deprecated since 2.9: ``None``, ``Staging``, ``Production`` or ``Archived``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The URI with which MLflow loads exactly this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class RegisteredModel:
    """A name in the registry with its aliases."""

    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Alias to version."""
    creation_timestamp: int = 0
    latest_versions: tuple[ModelVersion, ...] = ()
    """The newest version of each stage, and so the newest of all; the server omits their aliases."""

    @property
    def newest(self) -> int:
        """The highest number of a version; 0 when there is none."""
        return max((int(version.version) for version in self.latest_versions), default=0)
