"""What must hold in the registry before a pipeline trains a model that it then deploys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.exceptions import EvidenceError, MlflowNotFoundError
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.releases import find_stable_version

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from airflow_mcp.core.registry.load_check import LoadCheck
    from airflow_mcp.mlflow_client.operations import MlflowOperations

SIDE_BY_SIDE = 2
"""Versions that a model server holds at the same time while it moves from one to the next."""
_GIB = 1024**3


@dataclass(frozen=True)
class ServerBudget:
    """What the model server is given."""

    memory: float
    """Memory limit in bytes."""
    load_timeout: float | None = None
    """Seconds that a version may take to load; None: as many as follow from the load check of each version."""
    deploy_timeout: float | None = None
    """Seconds within which all pods must be ready; None: not checked."""


class DeployProblem(NamedTuple):
    """Why a deployment would fail."""

    field: Literal["stable_version", "memory", "load_timeout", "deploy_timeout"]
    what: str
    advice: str


def deploy_problems(
    mlflow: MlflowOperations, model_name: str, *, stable_version: str, server: ServerBudget | None
) -> Iterator[DeployProblem]:
    """Yield what the registry says against a deployment.

    Without a champion, or without what its load check measured, there is nothing to compare the server with.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param stable_version: version that servers go back to, as the rollback policy names it; empty without a policy.
        ``previous_champion`` is always there when it is needed.
    :param server: the model server; None when it is not part of the deployment.
    :raises MlflowError: when MLflow does not answer.
    """
    if stable_version not in ("", ALIAS_PREVIOUS_CHAMPION):
        try:
            find_stable_version(mlflow, model_name, stable_version)
        except EvidenceError as error:
            what, _, advice = str(error).partition(". Nothing was changed; ")
            yield DeployProblem("stable_version", what, advice)
    champion = champion_of(mlflow, model_name) if server is not None else None
    check = read_load_check(champion.tags) if champion is not None else None
    if champion is not None and check is not None and server is not None:
        yield from _of_memory(model_name, champion, check, server.memory)
        yield from _of_time(mlflow, champion, check, server)


def require_deployable(
    mlflow: MlflowOperations, model_name: str, *, stable_version: str, server: ServerBudget | None
) -> None:
    """Refuse a deployment that would fail only after the training; see :func:`deploy_problems`.

    :raises EvidenceError: when the stable version is not in the registry, or the champion does not fit into the server.
    """
    for problem in deploy_problems(mlflow, model_name, stable_version=stable_version, server=server):
        raise EvidenceError(f"{problem.what}. Nothing was started; {problem.advice}")


def _of_memory(name: str, champion: ModelVersion, check: LoadCheck, memory: float) -> Iterator[DeployProblem]:
    needed = SIDE_BY_SIDE * check.memory_bytes
    if memory < needed:
        yield DeployProblem(
            "memory",
            f"the model server of {name!r} has {memory / _GIB:.2g} GiB of memory, but holds two versions while it "
            f"moves to a new one, and the load check of version {champion.version} measured "
            f"{check.memory_bytes / _GIB:.2g} GiB",
            f"give server.options.resources.memory at least {needed / _GIB:.2g} GiB",
        )


def _of_time(
    mlflow: MlflowOperations, champion: ModelVersion, check: LoadCheck, server: ServerBudget
) -> Iterator[DeployProblem]:
    if server.load_timeout is None and server.deploy_timeout is None:
        return
    try:
        measured = mlflow.get_run(check.run_id).metrics.get("load_seconds") if check.run_id else None
    except MlflowNotFoundError:
        measured = None
    if measured is None:
        return
    taken = f"version {champion.version} took {measured:.0f} s to load in its load check"
    if server.load_timeout is not None and server.load_timeout < measured:
        yield DeployProblem(
            "load_timeout",
            f"the model server gives a version {server.load_timeout:g} s to load, and {taken}",
            f"give server.options.settings.LOAD_TIMEOUT more than {measured:.0f}, or leave it out",
        )
    if server.deploy_timeout is not None and server.deploy_timeout < measured:
        yield DeployProblem(
            "deploy_timeout",
            f"pods must be ready within {server.deploy_timeout:g} s, and {taken}",
            f"give timeouts.deployServer more than {measured:.0f} s",
        )
