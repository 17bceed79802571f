"""What runs in the work plane, described so that a child process or a pod can run the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Resources:
    """What a workload may use. Kubernetes enforces it; the local runtime records it only."""

    cpu: str | None = None
    """Kubernetes quantity of CPUs, for example ``"2"`` or ``"500m"``."""
    memory: str | None = None
    """Kubernetes quantity of memory, for example ``"4Gi"``."""
    gpu: int = 0
    """Whole GPUs."""


@dataclass(frozen=True)
class WorkloadFile:
    """A small text file that the backend puts where the workload can read it."""

    env: str
    """Environment variable that receives the file's path."""
    name: str
    """File name, without a folder."""
    content: str = field(repr=False)


@dataclass(frozen=True)
class Workload:
    """One command to run, with everything it needs."""

    name: str
    """Short name for logs, process and pod names."""
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials: never logged, never a plain value in a pod."""
    files: tuple[WorkloadFile, ...] = ()
    image: str | None = None
    """Container image; the local runtime does not use it."""
    resources: Resources = Resources()
    timeout: float | None = None
    """Seconds after which it is stopped; None means no limit of its own."""
    owns_run: bool = True
    """Whether the MLflow run is this workload's own, to be closed with it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Who this work is for: Dag, task, run, try, model, identity."""
