"""Rollbacks of a registered model, with every check, for the operator and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.gate_check import require_passed_gate
from airflow_mcp.core.registry.history import is_way_back
from airflow_mcp.core.registry.load_check import LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder, unfinished_move
from airflow_mcp.core.registry.plans import AliasPlan, plan_rollback
from airflow_mcp.exceptions import (
    AliasConflictError,
    GateRejectedError,
    LoadCheckFailedError,
    MlflowNotFoundError,
    ModelControlPlaneError,
)
from airflow_mcp.registry.aliases import AliasMover, ways_back
from airflow_mcp.registry.governance import NOT_GOVERNED, Governance
from airflow_mcp.registry.promotion import known_gate_verdict

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import RegisteredModel
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.guard import Act


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A model to roll back, who asks for it, and the conditions."""

    order: MoveOrder
    model_name: str
    rule: LoadCheckRule
    """What the load check of the version must say."""
    to_version: str | None = None
    """Version to roll back to; None takes ``previous_champion``."""
    force: bool = False
    """Accept a version that never was champion and that no gate accepted."""
    is_automatic: bool = False
    """Made by a rollout that was approved with its rollback policy: nobody is asked."""
    confirmed: AliasPlan | None = None
    """The plan that a person confirmed; another one is refused."""


def continued(mlflow: MlflowOperations, rollback: Rollback) -> Rollback:
    """Return a rollback that continues an interrupted one of the same model, if there is one, or the rollback itself.

    A person who calls again has no identity that stays the same; without it the second call would only be refused.

    :param mlflow: the MLflow server.
    :param rollback: the rollback that is asked for.
    """
    model = mlflow.get_registered_model(rollback.model_name)
    pending = unfinished_move(model.aliases, model.tags)
    if pending is None or pending.action != "rollback" or rollback.to_version not in (None, pending.champion_after):
        return rollback
    return replace(rollback, order=replace(rollback.order, identity=pending.identity))


def check_rollback(mlflow: MlflowOperations, rollback: Rollback, *, log: TaskLog) -> AliasPlan:
    """Check everything and return what would be moved; nothing is claimed, written or moved.

    :param mlflow: the MLflow server.
    :param rollback: the rollback.
    :param log: where a version that did not pass the gate by itself is logged.
    :return: the plan.
    :raises RefusedError: as :func:`roll_back`.
    """
    return _naming_others(
        mlflow, rollback, lambda: _mover(mlflow, rollback, log, NOT_GOVERNED).check(_planner(mlflow, rollback, log))
    )


def roll_back(mlflow: MlflowOperations, rollback: Rollback, *, log: TaskLog, governance: Governance) -> AliasPlan:
    """Make an earlier champion the champion again, and tag the version that was champion with the reason.

    :param mlflow: the MLflow server.
    :param rollback: the rollback.
    :param log: where moves are logged.
    :param governance: in which audit log the move is recorded; while it is down, later.
    :return: the plan that was carried out.
    :raises AliasConflictError: when there is no version to roll back to, it was deleted, or the plan is not the
        confirmed one; the message names the earlier champions that still exist.
    :raises GateRejectedError: when the version never was champion and no gate accepted it.
    :raises LoadCheckFailedError: when the version failed its load check; the message names others.
    :raises EvidenceError: when the version is not READY, or has not passed a recent load check.
    :raises ClaimUnavailableError: when another move of the model's aliases is in progress.
    """
    mover, planner = _mover(mlflow, rollback, log, governance), _planner(mlflow, rollback, log)
    act: Act = "automatic_rollback" if rollback.is_automatic else "rollback"
    plan = _naming_others(mlflow, rollback, lambda: mover.move(planner, rollback.order, act))
    if plan.champion_before is not None:
        _mark_left_behind(mlflow, rollback, plan.champion_before, log)
    return plan


def _mover(mlflow: MlflowOperations, rollback: Rollback, log: TaskLog, governance: Governance) -> AliasMover:
    return AliasMover(
        mlflow, rollback.model_name, actor=rollback.order.by, log=log, governance=governance, rule=rollback.rule
    )


def _naming_others(mlflow: MlflowOperations, rollback: Rollback, act: Callable[[], AliasPlan]) -> AliasPlan:
    """Act; a refusal also names the versions that could be rolled back to instead."""
    try:
        return act()
    except (AliasConflictError, GateRejectedError, LoadCheckFailedError) as error:
        others = ways_back(mlflow, mlflow.get_registered_model(rollback.model_name))
        raise type(error)(f"{error}. {others}") from error


def _planner(mlflow: MlflowOperations, wanted: Rollback, log: TaskLog) -> Callable[[RegisteredModel], AliasPlan]:
    """Return what makes the plan from the registered model as it is under the claim."""

    def plan_now(model: RegisteredModel) -> AliasPlan:
        plan = _interrupted(model, wanted.order.identity) or plan_rollback(
            model.aliases,
            model.tags,
            model_name=wanted.model_name,
            identity=wanted.order.identity,
            to_version=wanted.to_version,
        )
        before, after = plan.champion_before, plan.champion_after
        if wanted.confirmed and (before, after) != (wanted.confirmed.champion_before, wanted.confirmed.champion_after):
            raise AliasConflictError(
                f"{wanted.model_name!r}: the aliases have moved since you confirmed; the rollback would now go from "
                f"version {before or 'none'} to version {after}. Nothing was moved; look at the status and try again"
            )
        is_free = plan.is_done or is_way_back(model, after)
        return plan if is_free else _judged(mlflow, plan, wanted, log)

    return plan_now


def _interrupted(model: RegisteredModel, identity: str) -> AliasPlan | None:
    """Return a plan with nothing left to plan when this very rollback was interrupted: the mover completes it."""
    pending = unfinished_move(model.aliases, model.tags)
    if pending is None or pending.identity != identity:
        return None
    return AliasPlan((), pending.champion_before, pending.champion_after)


def _judged(mlflow: MlflowOperations, plan: AliasPlan, wanted: Rollback, log: TaskLog) -> AliasPlan:
    """Check the gate of a version that never was champion: going there is a promotion.

    :raises GateRejectedError: when no gate accepted it and the rollback is not forced.
    """
    try:
        version = mlflow.get_model_version(wanted.model_name, plan.champion_after)
    except MlflowNotFoundError:
        return plan  # the mover refuses it, and says so
    verdict = known_gate_verdict(mlflow, version)
    what = f"version {version.version} of {wanted.model_name!r} was never the champion, and"
    try:
        if warning := require_passed_gate(f"{what} it", verdict):
            log.warning(warning)
    except GateRejectedError as error:
        if not wanted.force:
            raise GateRejectedError(f"{error}. Or set force=True (--force) to make it champion all the same") from error
        log.warning("FORCED: %s its gate verdict is %s; that is recorded", what, verdict or "none")
        return replace(plan, forced=True)
    return plan


def _mark_left_behind(mlflow: MlflowOperations, rollback: Rollback, version: str, log: TaskLog) -> None:
    """Tag the version that was champion; the rollback is done and recorded, so a failure here does not matter."""
    name, reason = rollback.model_name, rollback.order.reason or "no reason given"
    try:
        mlflow.set_model_version_tag(name, version, contract.TAG_ROLLED_BACK, reason)
    except MlflowNotFoundError:
        log.info("version %s of %s was deleted in the meantime and is not tagged", version, name)
    except ModelControlPlaneError as error:
        log.warning("the rollback is done, but version %s of %s is not tagged: %s", version, name, error)
