"""Promotions and stage transitions of a version, with every check, for operators and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.core.registry.gate_check import require_passed_gate
from airflow_mcp.core.registry.load_check import NOTHING_REQUIRED, LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.registry.plans import AliasPlan, plan_promotion
from airflow_mcp.core.registry.stages import StagePlan, plan_stage
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.exceptions import EvidenceError, MlflowNotFoundError, RolloutConflictError
from airflow_mcp.registry.aliases import AliasMover
from airflow_mcp.registry.rollouts import require_no_bake

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Stage
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A version to promote to champion, who asks for it, and the conditions."""

    order: MoveOrder
    model_name: str
    version: str
    expected_champion: str | None
    """Version that the candidate was compared with; None when there was no champion."""
    require_gate: bool = True
    """Refuse a version without a passed gate (``passed``, ``warned`` or ``approved``)."""
    require_load_check: bool = True
    """Refuse a version that has not passed its load check; a version that failed it is always refused."""
    rollout_generation: int = 0
    """Generation of the rollout's document that orders this promotion; 0 when it is not the end of a rollout."""

    @property
    def rule(self) -> LoadCheckRule:
        """What the version's load check must say."""
        return LoadCheckRule(self.require_load_check)


def check_promotion(mlflow: MlflowOperations, promotion: Promotion, *, log: TaskLog) -> None:
    """Check the version itself; nothing is claimed, written or moved.

    :param mlflow: the MLflow server.
    :param promotion: the promotion.
    :param log: where a version that did not pass the gate by itself is logged.
    :raises EvidenceError: when it is not READY, has not passed a load check although one is required,
        or its run was deleted, so the gate's verdict is not known.
    :raises LoadCheckFailedError: when its load check failed.
    :raises GateRejectedError: when it has not passed a gate.
    """
    _checked(mlflow, promotion, mlflow.get_model_version(promotion.model_name, promotion.version), log)


def _checked(mlflow: MlflowOperations, promotion: Promotion, version: ModelVersion, log: TaskLog) -> str | None:
    """Check a version for its promotion and return its gate verdict."""
    promotion.rule.require(version, datetime.now(UTC))
    if not promotion.require_gate:
        return known_gate_verdict(mlflow, version)
    verdict = gate_verdict(mlflow, version)
    if warning := require_passed_gate(f"version {version.version} of {version.name!r}", verdict):
        log.warning(warning)
    return verdict


def known_gate_verdict(mlflow: MlflowOperations, version: ModelVersion) -> str | None:
    """Return :func:`gate_verdict`, or None when it is not known."""
    try:
        return gate_verdict(mlflow, version)
    except EvidenceError:
        return None


def gate_verdict(mlflow: MlflowOperations, version: ModelVersion) -> str | None:
    """Return a version's gate verdict, from its MLflow run: there the gate takes back what it said before.

    The verdict on the version is the one at its registration. It counts for a version without a run, and for a copy
    (whose run is that of the copy) until a gate has judged the copy.

    :raises EvidenceError: when the run was deleted, so the verdict is not known.
    """
    on_version, copy_run = version.tags.get(contract.TAG_GATE_VERDICT), version.tags.get(contract.TAG_COPY_RUN)
    run_id = run_of(version)
    if not run_id:
        return on_version
    try:
        run = mlflow.get_run(run_id)
        problem = "" if run.lifecycle_stage == "active" else f"is {run.lifecycle_stage}"
    except MlflowNotFoundError:
        problem = "does not exist any more"
    if problem:
        raise EvidenceError(
            f"version {version.version} of {version.name!r} {'is a copy whose' if copy_run else 'has no verdict: its'} "
            f"MLflow run {run_id} {problem}, so its own gate verdict is not known; restore the run. Nothing was moved"
        )
    return run.tags.get(contract.TAG_GATE_VERDICT) or (on_version if copy_run else None)


def promote(mlflow: MlflowOperations, promotion: Promotion, *, log: TaskLog, governance: Governance) -> AliasPlan:
    """Make a version the champion; when it is champion already, change nothing.

    :param mlflow: the MLflow server.
    :param promotion: the promotion.
    :param log: where moves are logged.
    :param governance: in which audit log the move is recorded.
    :return: the plan that was carried out.
    :raises RefusedError: as :func:`check_promotion`, and when the champion has changed; nothing is moved.
    :raises RolloutConflictError: when another rollout of the model is in progress, or this one was changed, for example
        aborted, since the promotion was decided; nothing is moved.
    :raises ClaimUnavailableError: when another move of the model's aliases is in progress.
    """
    version = mlflow.get_model_version(promotion.model_name, promotion.version)
    verdict = _checked(mlflow, promotion, version, log)
    if left_behind := version.tags.get(contract.TAG_ROLLED_BACK):
        log.warning("version %s of %s was rolled back before: %s", version.version, version.name, left_behind)
    if verdict and verdict != version.tags.get(contract.TAG_GATE_VERDICT):
        # The gate has judged again since the version was created: keep its verdict with the version.
        mlflow.set_model_version_tag(version.name, version.version, contract.TAG_GATE_VERDICT, verdict)
    mover = AliasMover(
        mlflow,
        promotion.model_name,
        actor=promotion.order.by,
        log=log,
        governance=governance,
        rule=promotion.rule,
    )

    def plan_now(model: RegisteredModel) -> AliasPlan:
        plan = plan_promotion(
            model.aliases,
            model.tags,
            model_name=promotion.model_name,
            identity=promotion.order.identity,
            version=promotion.version,
            expected_champion=promotion.expected_champion,
        )
        if not plan.is_done and plan.champion_before is not None:
            _require_as_decided(mlflow.get_model_version(promotion.model_name, plan.champion_before), promotion)
        return plan

    return mover.move(plan_now, promotion.order)


def _require_as_decided(champion: ModelVersion, promotion: Promotion) -> None:
    """Check that no other rollout splits the traffic of the champion, and that this one still is to be promoted.

    It is called under the claim, without which nobody writes the document: an abort comes before or after the move.

    :raises RolloutConflictError: when it does not fit; nothing was moved.
    """
    require_no_bake(champion, promotion.model_name, promotion.order.identity)
    active = RolloutState.of(champion).active
    if promotion.rollout_generation:
        present = active.generation if active is not None and active.identity == promotion.order.identity else 0
        if present != promotion.rollout_generation:
            raise RolloutConflictError(
                f"{promotion.model_name!r}: rollout {promotion.order.identity!r} was changed by somebody else after "
                f"the promotion of version {promotion.version} was decided. Nothing was moved"
            )
        return
    if active is None:
        return
    raise RolloutConflictError(
        f"{promotion.model_name!r}: rollout {active.identity!r} of version {active.canary} is {active.phase}. Nothing "
        f"was moved; wait until it ends, or run airflow-mcp rollout abort {promotion.model_name}"
    )


@dataclass(frozen=True, kw_only=True)
class StageTransition:
    """A version to move to None, Staging or Archived, and who asks for it."""

    order: MoveOrder
    model_name: str
    version: str
    stage: Stage
    archive_existing: bool = False
    """For Staging: archive the other versions in Staging."""


def check_transition(mlflow: MlflowOperations, wanted: StageTransition) -> ModelVersion:
    """Check the version itself; nothing is claimed or moved.

    :param mlflow: the MLflow server.
    :param wanted: the transition.
    :return: the version, as it is now.
    :raises EvidenceError: when it goes to Staging and is not READY.
    :raises LoadCheckFailedError: when it goes to Staging and its load check failed.
    """
    version = mlflow.get_model_version(wanted.model_name, wanted.version)
    if wanted.stage == "Staging":
        NOTHING_REQUIRED.require(version, datetime.now(UTC))
    return version


def transition(mlflow: MlflowOperations, wanted: StageTransition, *, log: TaskLog, governance: Governance) -> StagePlan:
    """Move a version between stages other than Production; when it is there already, change nothing.

    :param mlflow: the MLflow server.
    :param wanted: the transition.
    :param log: where moves are logged.
    :param governance: in which audit log the move is recorded.
    :return: the plan that was carried out.
    :raises RefusedError: as :func:`check_transition`, and for the champion, which only a promotion or rollback moves.
    :raises ClaimUnavailableError: when another move of the model's aliases is in progress.
    """
    check_transition(mlflow, wanted)
    mover = AliasMover(mlflow, wanted.model_name, actor=wanted.order.by, log=log, governance=governance)
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
