"""Reads what the list of all models shows: few requests, and small answers, each parsed in a short step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.panel.facts import TAG_OWNER, TAG_RISK, DriftCheck, ListRow, dag_of, drift_check
from airflow_mcp.core.panel.state import Situation, assess_state
from airflow_mcp.core.registry.history import recent_moves
from airflow_mcp.core.registry.standing import Standing
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.core.serving.traffic import ACTIVE, TAG_ROLLOUT, RolloutDocument
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.registry.standing import read_standings

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import RegisteredModel
    from airflow_mcp.mlflow_client.operations import MlflowOperations

PAGE = 100
"""Models in one answer: 0.7 MB, about 17 ms to parse, so that other threads get their turn."""
SHOWN_CHECKS = 14
"""Drift checks of one model that the list draws."""
MOST_CHECKS = 3000
"""Latest drift checks of all models together that are read for the list."""


def read_overview(
    mlflow: MlflowOperations, progress: Callable[[int], None] = lambda _: None, most: int | None = None
) -> tuple[ListRow, ...]:
    """Return the row of each model; blocks.

    :param mlflow: the MLflow server.
    :param progress: told how many models have been read.
    :param most: number of models to read; None: all.
    """

    def count(models: Sequence[RegisteredModel]) -> bool:
        progress(len(models))
        return False

    models = mlflow.search_registered_models("", most, page_size=PAGE, enough=count)
    standings = {standing.model_name: standing for standing in read_standings(mlflow, models)[0]}
    checks = _checks(mlflow, models if most else ())
    rollouts = _rollouts(mlflow)
    return tuple(
        list_row(model, standings[model.name], checks.get(model.name, ()), rollouts.get(model.name)) for model in models
    )


def list_row(
    model: RegisteredModel, standing: Standing, checks: Sequence[DriftCheck], rollout: RolloutDocument | None
) -> ListRow:
    """Return the row of one model.

    :param model: the registered model.
    :param standing: what is wrong with its champion.
    :param checks: its latest drift checks, oldest first.
    :param rollout: the rollout in progress; None when there is none.
    """
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    situation = Situation(standing, rollout.canary if rollout else "", rollout.weight if rollout else 0.0)
    return ListRow(
        name=model.name,
        owner=model.tags.get(TAG_OWNER, ""),
        risk=model.tags.get(TAG_RISK, ""),
        dag_id=dag_of(model),
        standing=standing,
        state=assess_state(situation),
        newest=newest.version if newest else "",
        gate=newest.tags.get(contract.TAG_GATE_VERDICT, "") if newest else "",
        previous=model.aliases.get(contract.ALIAS_PREVIOUS_CHAMPION),
        moves=max((move.number for move in recent_moves(model)), default=0),
        checks=tuple(checks)[-SHOWN_CHECKS:],
    )


def _checks(mlflow: MlflowOperations, models: Sequence[RegisteredModel]) -> dict[str, tuple[DriftCheck, ...]]:
    """Return the latest drift checks by model, oldest first; of some models only, when they are few."""
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    if not experiments:
        return {}
    where = f"attributes.status = 'FINISHED' and tags.`{contract.TAG_KIND}` = '{contract.KIND_DRIFT_CHECK}'"
    named = [model.name for model in models if not {"'", '"', "\\"} & set(model.name)]
    if named:
        where += f" and tags.`{contract.TAG_MODEL_NAME}` IN ({', '.join(map(filter_value, named))})"
    found: dict[str, list[DriftCheck]] = {}
    for run in mlflow.search_runs(experiments, where, ("attributes.end_time DESC",), MOST_CHECKS):
        of_model = found.setdefault(run.tags.get(contract.TAG_MODEL_NAME, ""), [])
        if len(of_model) < SHOWN_CHECKS:
            of_model.append(drift_check(run))
    return {name: tuple(reversed(checks)) for name, checks in found.items()}


def _rollouts(mlflow: MlflowOperations) -> Mapping[str, RolloutDocument]:
    """Return the rollouts in progress, by model."""
    found = {}
    for phase in ACTIVE:
        for version in mlflow.search_model_versions(f"tags.`{TAG_ROLLOUT}` LIKE '%\"{phase}\"%'", max_results=None):
            document = RolloutState.of(version).active
            if document is not None and contract.ALIAS_CHAMPION in version.aliases:
                found[version.name] = document
    return found
