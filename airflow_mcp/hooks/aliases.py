"""Read and move the aliases of a registered model: one mover at a time, every move checked afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core.contract import ALIAS_CHALLENGER, ALIAS_CHAMPION, TAG_LAST_MOVE, TAG_LAST_STAGE_MOVE
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.promotion import AliasMove, AliasPlan, LastMove, next_number, unrecorded_move
from airflow_mcp.core.stages import is_mirrored, plan_mirror, stage_drift, unrecorded_stage_move
from airflow_mcp.exceptions import FailedError, MlflowNotFoundError
from airflow_mcp.hooks.claims import Claims
from airflow_mcp.hooks.mlflow_api import filter_value

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
    from airflow_mcp.core.promotion import Claim, MoveOrder
    from airflow_mcp.core.stages import StagePlan
    from airflow_mcp.hooks.mlflow_operations import MlflowOperations


def champion_of(hook: MlflowOperations, model_name: str) -> ModelVersion | None:
    """Find the champion of a registered model.

    :param hook: the MLflow connection.
    :param model_name: registered model; need not exist yet.
    :return: its version, or None when model or alias does not exist.
    """
    try:
        return hook.get_model_version_by_alias(model_name, ALIAS_CHAMPION)
    except MlflowNotFoundError:
        return None


class AliasMover:
    """Moves the aliases of one registered model while it holds the claim on them.

    :param hook: the MLflow connection.
    :param model_name: registered model; must exist.
    :param holder: who moves, for the others' messages.
    :param log: where moves are logged.
    """

    def __init__(self, hook: MlflowOperations, model_name: str, *, holder: str, log: TaskLog) -> None:
        self.hook, self.model_name, self.log = hook, model_name, log
        self.claims = Claims(hook, model_name, holder=holder, log=log)

    def move(self, plan: Callable[[RegisteredModel], AliasPlan], record: Callable[[AliasPlan], LastMove]) -> AliasPlan:
        """Plan on the present aliases and carry the plan out, alone.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :param record: describes the move for the registered model's tag.
        :return: the plan that was carried out.
        :raises ClaimUnavailableError: when another task kept the claim; nothing was moved.
        :raises FailedError: when the registry is not as planned afterwards.
        """
        with self.claims.held() as claim:
            model = self._settled()
            made = plan(model)
            if made.is_done:
                self.log.info("%s: the move to version %s is done already", self.model_name, made.champion_after)
                self._mirror(model, claim)
                return made
            move = replace(record(made), number=next_number(model.tags))
            for step in made.moves:
                self.claims.require_valid(claim)
                if step.alias == ALIAS_CHAMPION:
                    # The intention first: a retry, or the next mover, can tell how far this try came.
                    self.hook.set_registered_model_tag(self.model_name, TAG_LAST_MOVE, move.to_tag())
                self._set(step)
            self._verify(made)
            if move.done_tag not in model.tags:  # otherwise only what a dead task left to do was done
                self.hook.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            self._mirror(model, claim)
            return made

    def shift(self, plan: Callable[[RegisteredModel], StagePlan], order: MoveOrder) -> StagePlan:
        """Plan a move between stages, which leaves the champion alone, and carry it out.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :param order: who moves and why.
        :return: the plan that was carried out.
        :raises ClaimUnavailableError: when another task kept the claim; nothing was moved.
        """
        with self.claims.held() as claim:
            model = self._settled()
            made = plan(model)
            if made.is_done:
                self.log.info("%s: the move between stages is done already", self.model_name)
                self._mirror(model, claim)
                return made
            move = replace(made.record(order, datetime.now(UTC)), number=next_number(model.tags))
            self.claims.require_valid(claim)
            self.hook.set_registered_model_tag(self.model_name, TAG_LAST_STAGE_MOVE, move.to_tag())
            if made.challenger_after != made.challenger_before:
                self.claims.require_valid(claim)
                self._set(AliasMove(ALIAS_CHALLENGER, made.challenger_after))
            self.hook.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            for version, stage in made.stages.items():
                self.log.info("%s: version %s is in %s", self.model_name, version, stage)
            self._mirror(model, claim)
            return made

    def mirror(self) -> int:
        """Make MLflow's own stages say what the aliases say, if the model asks for that.

        :return: how many versions were moved.
        """
        with self.claims.held() as claim:
            return self._mirror(self._settled(), claim)

    def _mirror(self, model: RegisteredModel, claim: Claim) -> int:
        if not is_mirrored(model):
            return 0
        model = self.hook.get_registered_model(self.model_name)
        where = f"name = {filter_value(self.model_name)}"
        versions = self.hook.search_model_versions(where, max_results=None)
        for step in plan_mirror(model, versions):
            self.claims.require_valid(claim)
            self.hook.transition_stage(self.model_name, step.version, step.stage, step.archive_existing)
            self.log.info("%s: MLflow's own stage of version %s -> %s", self.model_name, step.version, step.stage)
        return len(stage_drift(model, versions))

    def _settled(self) -> RegisteredModel:
        """Read the registered model; moves whose task died before recording them are recorded first."""
        model = self.hook.get_registered_model(self.model_name)
        for lost in (unrecorded_move(model.aliases, model.tags), unrecorded_stage_move(model)):
            if lost is not None:
                self.log.info("%s: recording the %s by %s, whose task died", self.model_name, lost.action, lost.by)
                self.hook.set_registered_model_tag(self.model_name, lost.done_tag, lost.to_tag())
                model = replace(model, tags={**model.tags, lost.done_tag: lost.to_tag()})
        return model

    def _set(self, step: AliasMove) -> None:
        if step.version is None:
            self.hook.delete_alias(self.model_name, step.alias)
        else:
            self.hook.set_alias(self.model_name, step.alias, step.version)
        self.log.info("%s: alias %s -> %s", self.model_name, step.alias, step.version or "removed")

    def _verify(self, plan: AliasPlan) -> None:
        champion = self.hook.get_registered_model(self.model_name).aliases.get(ALIAS_CHAMPION)
        if champion != plan.champion_after:
            raise FailedError(
                f"{self.model_name!r}: alias {ALIAS_CHAMPION!r} was set to version {plan.champion_after}, but points "
                f"at {champion or 'no version'} now: something outside Airflow moved it. Look before retrying."
            )
