"""The one door through which a version becomes champion or changes its stage, for operators and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.gate_check import require_passed_gate
from airflow_mcp.core.registry.load_check import NOTHING_REQUIRED, LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.plans import AliasPlan, plan_promotion
from airflow_mcp.core.registry.stages import StagePlan, plan_stage
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.registry.aliases import AliasMover

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, Stage
    from airflow_mcp.mlflow_client.operations import MlflowOperations


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Which version is to become champion, on whose behalf, and under which conditions."""

    order: MoveOrder
    model_name: str
    version: str
    expected_champion: str | None
    """Version that the candidate was compared with; None when there was no champion."""
    require_gate: bool = True
    """Refuse a version that no gate let through: ``passed``, ``warned`` or ``approved``."""
    require_load_check: bool = True
    """Refuse a version that has not passed its load check; one that failed is refused in any case."""

    @property
    def rule(self) -> LoadCheckRule:
        """What the version must have shown."""
        return LoadCheckRule(self.require_load_check)


def check_promotion(mlflow: MlflowOperations, promotion: Promotion, *, log: TaskLog) -> None:
    """Check everything about the version itself; nothing is claimed, written or moved.

    :param mlflow: the MLflow server.
    :param promotion: what is to be done.
    :param log: where it is said that the version did not pass the gate by itself.
    :raises EvidenceError: when it is not READY, has not passed a load check although one is required,
        or is a copy and the run of the copy was deleted.
    :raises ModelUnusableError: when its load check failed.
    :raises GateRejectedError: when no gate let it through.
    """
    _checked(mlflow, promotion, mlflow.get_model_version(promotion.model_name, promotion.version), log)


def _checked(mlflow: MlflowOperations, promotion: Promotion, version: ModelVersion, log: TaskLog) -> str | None:
    """Check a version for its promotion; give the gate verdict that counts for it."""
    promotion.rule.require(version, datetime.now(UTC))
    verdict = _gate_verdict(mlflow, version)
    if promotion.require_gate:
        what = f"version {version.version} of {version.name!r}"
        if warning := require_passed_gate(what, verdict):
            log.warning(warning)
    return verdict


def _gate_verdict(mlflow: MlflowOperations, version: ModelVersion) -> str | None:
    """Give a version's gate verdict; that of a copy's own gate is in the copy's run, and comes before another's.

    :raises EvidenceError: when that run was deleted, so that nobody knows what its gate said.
    """
    carried, copy_run = version.tags.get(contract.TAG_GATE_VERDICT), version.tags.get(contract.TAG_COPY_RUN)
    if not copy_run:
        return carried
    run = mlflow.get_run(copy_run)
    if run.lifecycle_stage != "active":
        raise EvidenceError(
            f"version {version.version} of {version.name!r} is a copy whose MLflow run {copy_run} is "
            f"{run.lifecycle_stage}, so its own gate verdict is not known; restore the run. Nothing was moved"
        )
    return run.tags.get(contract.TAG_GATE_VERDICT) or carried


def promote(mlflow: MlflowOperations, promotion: Promotion, *, log: TaskLog) -> AliasPlan:
    """Make a version the champion, or find it done.

    :param mlflow: the MLflow server.
    :param promotion: what is to be done.
    :param log: where moves are logged.
    :return: the plan that was carried out.
    :raises RefusedError: as :func:`check_promotion`, and when the champion is another one by now; nothing is moved.
    :raises ClaimUnavailableError: when another move of the model's aliases is under way.
    """
    version = mlflow.get_model_version(promotion.model_name, promotion.version)
    verdict = _checked(mlflow, promotion, version, log)
    if verdict and verdict != version.tags.get(contract.TAG_GATE_VERDICT):
        # The copy's own gate spoke after the version was made: from now on the version says what it said.
        mlflow.set_model_version_tag(version.name, version.version, contract.TAG_GATE_VERDICT, verdict)
    mover = AliasMover(mlflow, promotion.model_name, actor=promotion.order.by, log=log, rule=promotion.rule)
    return mover.move(
        lambda model: plan_promotion(
            model.aliases,
            model.tags,
            model_name=promotion.model_name,
            identity=promotion.order.identity,
            version=promotion.version,
            expected_champion=promotion.expected_champion,
        ),
        promotion.order,
    )


@dataclass(frozen=True, kw_only=True)
class StageTransition:
    """Which version is to go to None, Staging or Archived, and on whose behalf."""

    order: MoveOrder
    model_name: str
    version: str
    stage: Stage
    archive_existing: bool = False
    """For Staging: archive the other versions that are there."""


def check_transition(mlflow: MlflowOperations, wanted: StageTransition) -> ModelVersion:
    """Check the version itself; nothing is claimed or moved.

    :param mlflow: the MLflow server.
    :param wanted: what is to be done.
    :return: the version, as it is now.
    :raises EvidenceError: when it is to go to Staging and is not READY.
    :raises ModelUnusableError: when it is to go to Staging and its load check failed.
    """
    version = mlflow.get_model_version(wanted.model_name, wanted.version)
    if wanted.stage == "Staging":
        NOTHING_REQUIRED.require(version, datetime.now(UTC))
    return version


def transition(mlflow: MlflowOperations, wanted: StageTransition, *, log: TaskLog) -> StagePlan:
    """Move a version between stages other than Production, or find it done.

    :param mlflow: the MLflow server.
    :param wanted: what is to be done.
    :param log: where moves are logged.
    :return: the plan that was carried out.
    :raises RefusedError: as :func:`check_transition`, and for the champion, which leaves only for another one.
    :raises ClaimUnavailableError: when another move of the model's aliases is under way.
    """
    check_transition(mlflow, wanted)
    mover = AliasMover(mlflow, wanted.model_name, actor=wanted.order.by, log=log)
    return mover.shift(
        lambda model: plan_stage(
            model,
            identity=wanted.order.identity,
            version=wanted.version,
            stage=wanted.stage,
            archive_existing=wanted.archive_existing,
        ),
        wanted.order,
    )
