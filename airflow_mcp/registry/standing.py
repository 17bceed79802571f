"""Reads what is wrong with the champions of registered models, with few requests however many models there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_versions import keeps_aliases_of_deleted
from airflow_mcp.core.registry.rehearsal import REHEARSAL_NOT_PASSED
from airflow_mcp.core.registry.standing import Facts, Standing, assess, champion_record, worst_first
from airflow_mcp.exceptions import MlflowError
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client.api import filter_value

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
    from airflow_mcp.mlflow_client.operations import MlflowOperations

RUNS_PER_SEARCH = 100
"""Runs that one search names: a filter of about 4,000 characters."""
MOST_DRIFT_CHECKS = 1000
"""Latest drift checks that are read, of all models together: a run has one metric per column."""


def read_standings(
    mlflow: MlflowOperations, models: Sequence[RegisteredModel], latest_drift: Mapping[str, Run] | None = None
) -> tuple[list[Standing], tuple[str, ...]]:
    """Return the standing of each model, the worst first.

    On top of the models it needs about one search per 100 champions, one per 1,000 versions that failed a load check or
    a rehearsal, one for drift checks, and before MLflow 3.16.1 one request for each alias that does not point at the
    newest version.

    :param mlflow: the MLflow server.
    :param models: registered models as MLflow keeps them.
    :param latest_drift: latest finished drift check by model, when it was read before; None reads it.
    :return: the standings, and what could not be read.
    """
    unread: list[str] = []
    deleted: frozenset[tuple[str, str]] = frozenset()
    if keeps_aliases_of_deleted(mlflow.perform(mlflow_api.server_version())):
        deleted = mlflow.find_deleted_versions(models, contract.ALIASES_OF_OURS)
    judged: dict[str, Run | None] | None = None
    drift: Mapping[str, Run] = {} if latest_drift is None else latest_drift
    try:
        experiments = [each.experiment_id for each in mlflow.search_experiments()]
        judged = _judged(mlflow, experiments, models)
        if latest_drift is None:
            drift = _drift(mlflow, experiments, models)
    except MlflowError as error:
        unread.append(f"runs of gates and drift checks: {error}")
    facts = Facts(deleted, _failed(mlflow, models), _not_ready(mlflow, models), judged, drift)
    return worst_first(assess(model, facts) for model in models), tuple(unread)


def _failed(mlflow: MlflowOperations, models: Sequence[RegisteredModel]) -> dict[tuple[str, str], ModelVersion]:
    found = _versions(mlflow, models, f"tags.`{contract.TAG_LOAD_CHECK}` = 'failed'")
    return {(version.name, version.version): version for version in found}


def _not_ready(mlflow: MlflowOperations, models: Sequence[RegisteredModel]) -> dict[str, dict[str, ModelVersion]]:
    found: dict[str, dict[str, ModelVersion]] = {}
    for version in _versions(mlflow, models, REHEARSAL_NOT_PASSED):
        found.setdefault(version.name, {})[version.version] = version
    return found


def _versions(mlflow: MlflowOperations, models: Sequence[RegisteredModel], where: str) -> list[ModelVersion]:
    if len(models) == 1:
        where = f"name = {filter_value(models[0].name)} and {where}"
    return mlflow.search_model_versions(where, max_results=None)


def _judged(
    mlflow: MlflowOperations, experiments: Sequence[str], models: Sequence[RegisteredModel]
) -> dict[str, Run | None]:
    """Return the runs of the champions; None for those that were not found."""
    records = [champion_record(model) for model in models]
    ids = sorted({record.run_id for record in records if record is not None and record.run_id})
    found: dict[str, Run | None] = dict.fromkeys(ids)
    for first in range(0, len(ids), RUNS_PER_SEARCH) if experiments else ():
        named = ", ".join(map(filter_value, ids[first : first + RUNS_PER_SEARCH]))
        runs = mlflow.search_runs(experiments, f"attributes.run_id IN ({named})", (), RUNS_PER_SEARCH)
        found |= {run.run_id: run for run in runs}
    return found


def _drift(mlflow: MlflowOperations, experiments: Sequence[str], models: Sequence[RegisteredModel]) -> dict[str, Run]:
    """Return the latest finished drift check of each model."""
    where = f"attributes.status = 'FINISHED' and tags.`{contract.TAG_KIND}` = {filter_value(contract.KIND_DRIFT_CHECK)}"
    most = MOST_DRIFT_CHECKS
    if len(models) == 1:
        where, most = f"{where} and tags.`{contract.TAG_MODEL_NAME}` = {filter_value(models[0].name)}", 1
    latest: dict[str, Run] = {}
    if not experiments:  # this account may read none
        return latest
    for run in mlflow.search_runs(experiments, where, ("attributes.end_time DESC",), most):
        latest.setdefault(run.tags.get(contract.TAG_MODEL_NAME, ""), run)
    return latest
