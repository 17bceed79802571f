"""What must hold in the registry before a pipeline trains a model that it then deploys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mcp.core.contract import ALIAS_PREVIOUS_CHAMPION
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.releases import find_stable_version

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.operations import MlflowOperations

SIDE_BY_SIDE = 2
"""Versions that a model server holds at the same time while it moves from one to the next."""
_GIB = 1024**3


def require_deployable(
    mlflow: MlflowOperations, model_name: str, *, stable_version: str, server_memory: float | None
) -> None:
    """Refuse a deployment that would fail only after the training.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :param stable_version: version that servers go back to, as the rollback policy names it; empty without a policy.
        ``previous_champion`` is always there when it is needed.
    :param server_memory: memory limit of the model server in bytes; None without a server.
    :raises EvidenceError: when the stable version is not in the registry, or two versions as large as the champion do
        not fit into the memory.
    """
    if stable_version not in ("", ALIAS_PREVIOUS_CHAMPION):
        find_stable_version(mlflow, model_name, stable_version)
    champion = champion_of(mlflow, model_name) if server_memory is not None else None
    check = read_load_check(champion.tags) if champion is not None else None
    if champion is None or check is None or not check.memory_bytes or server_memory is None:
        return
    needed = SIDE_BY_SIDE * check.memory_bytes
    if server_memory < needed:
        raise EvidenceError(
            f"the model server of {model_name!r} has {server_memory / _GIB:.2g} GiB of memory, but holds two versions "
            f"while it moves to a new one, and the load check of version {champion.version} measured "
            f"{check.memory_bytes / _GIB:.2g} GiB. Nothing was started; give server.options.resources.memory at least "
            f"{needed / _GIB:.2g} GiB"
        )
