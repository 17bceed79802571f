"""A workload as data, which a child process and a pod run alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.data.dataset import RepositoryData
from airflow_mcp.exceptions import InvalidArgumentError


@dataclass(frozen=True)
class Resources:
    """Resources of a workload. Kubernetes enforces them; the local runtime only records them."""

    cpu: str | None = None
    """Kubernetes quantity of CPUs, for example ``"2"`` or ``"500m"``."""
    memory: str | None = None
    """Kubernetes quantity of memory, for example ``"4Gi"``."""
    gpu: int = 0
    """Whole GPUs."""


def read_resources(given: Mapping[str, Any] | None) -> Resources:
    """Read the argument ``workload_resources``.

    :param given: ``cpu``, ``memory`` and ``gpu``, each optional; None for none.
    :raises InvalidArgumentError: when it has another key, or ``gpu`` is not a whole number.
    """
    try:
        resources = Resources(**(given or {}))
    except TypeError:
        raise InvalidArgumentError(
            f"workload_resources must have only the keys cpu, memory and gpu; got {given!r}"
        ) from None
    if not isinstance(resources.gpu, int) or resources.gpu < 0:
        raise InvalidArgumentError(f"workload_resources: gpu must be a whole number, 0 or more; got {resources.gpu!r}")
    return resources


@dataclass(frozen=True)
class WorkloadFile:
    """A small text file that the backend makes readable for the workload."""

    env: str
    """Environment variable that receives the file's path."""
    name: str
    """File name, without a folder."""
    content: str = field(repr=False)


@dataclass(frozen=True)
class WorkloadSource:
    """Code or data, or both, fetched before the command starts; the command runs in the folder of the code."""

    code: CodeSource | None = None
    script: str = ""
    """Script that must exist, relative to that folder; empty when the command needs none."""
    data: RepositoryData | None = None
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials of the repositories, for the fetch only and not for the command."""

    def environment(self, folder: str) -> dict[str, str]:
        """Return the variables that tell the fetch and the command what is fetched and where.

        :param folder: folder for everything that is fetched.
        """
        if self.data is None:
            return self._code_environment(folder)
        path = f"{folder}/data/{self.data.name}"
        found = {contract.ENV_DATA_SOURCE: self.data.uri, contract.ENV_DATA_PATH: path}
        return {**self._code_environment(folder), **found}

    def working_folder(self, folder: str) -> str | None:
        """Return the folder that the command runs in; None when no code is fetched.

        :param folder: as for :meth:`environment`.
        """
        return None if self.code is None else f"{folder}/checkout/{self.code.path}".rstrip("/")

    def _code_environment(self, folder: str) -> dict[str, str]:
        if self.code is None:
            return {}
        return {
            contract.ENV_SOURCE_URL: self.code.url,
            contract.ENV_SOURCE_COMMIT: self.code.commit,
            contract.ENV_SOURCE_PATH: f"{folder}/checkout",
            contract.ENV_SOURCE_FOLDER: self.code.path,
            contract.ENV_SOURCE_SCRIPT: self.script,
        }


CHECKOUT_ARGUMENTS = ("-P", "-m", "airflow_mcp.work", "checkout")
"""Arguments for Python that fetch code and data."""


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
    source: WorkloadSource | None = None
    """What to fetch before the command starts; None when there is nothing."""
    folder: str = ""
    """Working folder on this machine, for the local runtime; empty takes a private one."""
    image: str | None = None
    """Container image; the local runtime does not use it."""
    resources: Resources = Resources()
    timeout: float | None = None
    """Seconds after which it is stopped; None sets no limit."""
    owns_run: bool = True
    """Whether the MLflow run belongs to this workload and is closed with it."""
    is_replicable: bool = False
    """Whether several copies may run at once, as the ranks of one training."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Dag, task, run, try, model and identity of the work."""

    @property
    def all_secrets(self) -> dict[str, str]:
        """All credentials, of the command and of the fetch, by the names of their variables."""
        return {**self.secret_env, **(self.source.secret_env if self.source else {})}
