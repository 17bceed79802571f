"""Migration of registered models from MLflow's stages to aliases, each under the claim on its aliases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.load_check import NOTHING_REQUIRED
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.plans import AliasPlan, plan_promotion
from airflow_mcp.core.registry.stage_migration import Migration, MigrationChoices, plan_migration
from airflow_mcp.exceptions import AliasConflictError
from airflow_mcp.mlflow_client.registry_api import names_filters
from airflow_mcp.registry.aliases import AliasMover, of_versions, versions_of

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance


def read_with_versions(
    mlflow: MlflowOperations, names: Sequence[str]
) -> Iterator[tuple[RegisteredModel, list[ModelVersion]]]:
    """Yield registered models with all their versions, by name; a model without any stage with its newest version only.

    :param mlflow: the MLflow server.
    :param names: the models; empty for every model, in as few requests as the server's pages allow.
    :raises MlflowNotFoundError: when a model does not exist.
    """
    if names:
        for name in names:
            yield _existing(mlflow.get_registered_model(name), versions_of(mlflow, name))
        return
    models = mlflow.search_registered_models()
    # The newest version of each stage comes with the model: without one there is nothing to migrate, and of a registry
    # with many versions and few stages little is read.
    staged = {model.name for model in models if any(each.current_stage != "None" for each in model.latest_versions)}
    versions: dict[str, list[ModelVersion]] = {}
    for where in names_filters(staged, ()) if staged else ():
        for version in mlflow.search_model_versions(where, max_results=None):
            versions.setdefault(version.name, []).append(version)
    for model in models:
        is_staged = model.name in staged
        yield _existing(model, versions.get(model.name, [])) if is_staged else (model, list(model.latest_versions))


def _existing(model: RegisteredModel, versions: list[ModelVersion]) -> tuple[RegisteredModel, list[ModelVersion]]:
    """Leave out the aliases of deleted versions."""
    return of_versions(model, {version.version for version in versions}), versions


def migrate(
    mlflow: MlflowOperations,
    planned: Migration,
    choices: MigrationChoices,
    order: MoveOrder,
    *,
    log: TaskLog,
    governance: Governance,
) -> None:
    """Migrate one registered model; the plan is made again under the claim, on the registry as it is then.

    The champion moves last: after the other versions are recorded, only one version can become champion, so the next
    call completes an interrupted migration even without the choices.

    :param mlflow: the MLflow server.
    :param planned: the migration, planned with the same choices.
    :param choices: decisions of a person.
    :param order: who migrates and why.
    :param log: where moves are logged.
    :param governance: in which audit log the moves are recorded.
    :raises AliasConflictError: when another decision is needed; nothing was moved.
    :raises ClaimUnavailableError: when another task moves the model's aliases.
    """
    name, champion = _decided(planned).model_name, planned.champion
    mover = AliasMover(mlflow, name, actor=order.by, log=log, governance=governance, rule=NOTHING_REQUIRED)

    def plan_now(model: RegisteredModel) -> Migration:
        return _decided(plan_migration(model, versions_of(mlflow, name), choices))

    if planned.moves_stages:
        mover.shift(lambda model: plan_now(model).stage_plan(), order)
    if not planned.moves_champion or champion is None:
        return

    def champion_plan(model: RegisteredModel) -> AliasPlan:
        made = plan_now(model)
        if made.champion != champion:
            raise AliasConflictError(
                f"{name!r}: the stages were changed meanwhile; the champion was not moved. Run the migration again"
            )
        return plan_promotion(
            model.aliases,
            model.tags,
            model_name=name,
            identity=order.identity,
            version=champion,
            expected_champion=made.champion_before,
        )

    mover.move(champion_plan, order)


def _decided(migration: Migration) -> Migration:
    if migration.refusals:
        raise AliasConflictError(f"{migration.model_name!r}: {'; '.join(migration.refusals)}. Nothing was moved")
    return migration
