"""Reads and moves of a registered model's aliases: one mover at a time, and every move is checked afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core.contract import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_LAST_MOVE,
    TAG_LAST_STAGE_MOVE,
)
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.history import former_champions
from airflow_mcp.core.registry.load_check import NOTHING_REQUIRED, LoadCheckRule, why_unusable
from airflow_mcp.core.registry.moves import NO_WAY_BACK, MoveRecord, next_number, read_done_move, unfinished_move
from airflow_mcp.core.registry.packed_moves import plan_packing
from airflow_mcp.core.registry.plans import AliasMove, AliasPlan, completion, settled_aliases, without_way_back
from airflow_mcp.core.registry.stages import is_mirrored, plan_mirror, stage_drift, unfinished_stage_move
from airflow_mcp.core.rollout.state import ended_split
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.exceptions import (
    AliasConflictError,
    FailedError,
    MlflowAuthError,
    MlflowNotFoundError,
    ModelControlPlaneError,
)
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.registry.claims import Claims
from airflow_mcp.registry.governance import MoveBook
from airflow_mcp.registry.guard import Act, ComplianceGuard

if TYPE_CHECKING:
    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
    from airflow_mcp.core.registry.claims import Claim
    from airflow_mcp.core.registry.moves import Action, MoveOrder
    from airflow_mcp.core.registry.stages import StagePlan
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance


log = logging.getLogger(__name__)
MOST_WAYS_BACK = 20
"""Number of former champions that a message names."""
_ACTS: Mapping[Action, Act] = {"promote": "promote", "rollback": "rollback", "migrate": "migrate"}
"""What the guard calls a move of the champion."""
_OURS = (ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, ALIAS_CHALLENGER)


def model_of(mlflow: MlflowOperations, model_name: str) -> RegisteredModel:
    """Return a registered model with its aliases as every reader and mover has to take them.

    An alias of ours that points at a deleted version is left out, and an unfinished move counts as completed.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    :raises MlflowNotFoundError: when there is no such model.
    """
    return as_taken(mlflow, mlflow.get_registered_model(model_name))


def as_taken(mlflow: MlflowOperations, model: RegisteredModel) -> RegisteredModel:
    """Return a registered model that was read, as :func:`model_of` returns it.

    :param mlflow: the MLflow server.
    :param model: the registered model as MLflow keeps it.
    """
    model = _of_existing_versions(mlflow, model)
    return replace(model, aliases=settled_aliases(model.aliases, model.tags))


def of_versions(model: RegisteredModel, versions: Collection[str]) -> RegisteredModel:
    """Return a registered model without the aliases of versions that do not exist.

    MLflow 3.10 to 3.15 keep the aliases of a deleted version.

    :param model: the registered model.
    :param versions: numbers of the versions that exist.
    """
    return replace(model, aliases={alias: number for alias, number in model.aliases.items() if number in versions})


def _of_existing_versions(mlflow: MlflowOperations, model: RegisteredModel) -> RegisteredModel:
    """Leave out the aliases of ours whose version was deleted."""
    gone = {number for _, number in mlflow.find_deleted_versions([model], _OURS)}
    return of_versions(model, set(model.aliases.values()) - gone)


def champion_of(mlflow: MlflowOperations, model_name: str) -> ModelVersion | None:
    """Return the champion of a registered model.

    :param mlflow: the MLflow server.
    :param model_name: registered model; need not exist yet.
    :return: its version, or None when the model or the alias does not exist.
    """
    try:
        return mlflow.get_model_version_by_alias(model_name, ALIAS_CHAMPION)
    except MlflowNotFoundError:
        return None
    except MlflowAuthError:
        # MLflow's basic-auth answers 403 instead of 404 for a model that does not exist, except to a search.
        if mlflow.search_registered_models(f"name = {filter_value(model_name)}", 1):
            raise
        log.warning("registered model %s does not exist, or this account may not read it: no champion", model_name)
        return None


def versions_of(mlflow: MlflowOperations, model_name: str) -> list[ModelVersion]:
    """Return all versions of a registered model, however many there are.

    :param mlflow: the MLflow server.
    :param model_name: registered model.
    """
    return mlflow.search_model_versions(f"name = {filter_value(model_name)}", max_results=None)


def ways_back(mlflow: MlflowOperations, model: RegisteredModel) -> str:
    """Return a sentence that names the latest former champions that still exist and are not known to be unusable.

    It names at most :data:`MOST_WAYS_BACK`, and reads no other version. It has no period at the end, so it can end an
    error message.

    :param mlflow: the MLflow server.
    :param model: the registered model as it is now.
    """
    former = former_champions(model)
    if not former:
        return "No earlier champion is recorded"
    latest = former[:MOST_WAYS_BACK]
    found = mlflow.read_model_versions(model.name, {int(version) for version in latest})
    problems = {version.version: why_unusable(version) for version in found}
    usable = [version for version in latest if problems.get(version) == ""]
    if not usable:
        which = "earlier champions" if latest == former else f"latest {MOST_WAYS_BACK} earlier champions"
        return f"None of the {which} ({', '.join(latest)}) is usable"
    return f"Usable earlier champions, the latest first: {', '.join(usable)}"


class AliasMover:
    """Mover of the aliases of one registered model, which holds the claim on them meanwhile.

    Every alias move goes through here, so this is where a version that does not load is refused. Its tags are read
    under the claim, because they may change before it is held.

    :param mlflow: the MLflow server.
    :param model_name: registered model; must exist.
    :param actor: who moves; named in the claim.
    :param log: where moves are logged.
    :param governance: in which audit log the moves are recorded.
    :param rule: what the load check of the next champion must say; None: it must have passed.
    """

    def __init__(
        self,
        mlflow: MlflowOperations,
        model_name: str,
        *,
        actor: Actor,
        log: TaskLog,
        governance: Governance,
        rule: LoadCheckRule | None = None,
    ) -> None:
        self.mlflow, self.model_name, self.log = mlflow, model_name, log
        self.rule = rule or LoadCheckRule()
        self.claims = Claims(mlflow, model_name, holder=actor, log=log)
        self.governance, self.book = governance, MoveBook(governance, model_name, log)
        self.guard = ComplianceGuard(mlflow, governance, model_name, log)

    def move(self, plan: Callable[[RegisteredModel], AliasPlan], order: MoveOrder, act: Act | None = None) -> AliasPlan:
        """Plan on the present aliases and carry out the plan, under the claim.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :param order: who moves and why.
        :param act: what the guard decides about; None takes the action of the order.
        :return: the plan that was carried out.
        :raises ClaimUnavailableError: when another task kept the claim; nothing was moved.
        :raises AliasConflictError: when a version of the plan does not exist; nothing was moved.
        :raises LoadCheckFailedError: when a version failed its load check; nothing was moved.
        :raises EvidenceError: when a version is not READY, or does not meet the rule; nothing was moved.
        :raises AccessRefusedError, PassportError, ApprovalMissingError: when the policy in force refuses the move;
            nothing was moved.
        :raises InvalidArgumentError: when the record of the move is too long for MLflow, or the audit log refuses it;
            nothing was moved.
        :raises AuditUnavailableError: when the audit log does not answer: before the move, so nothing was moved, or
            after it, so a retry records it.
        :raises FailedError: when the champion is not the planned one afterwards.
        """
        with self.claims.held() as claim:
            model, completed = self._settled(claim)
            made = plan(model)
            if made.is_done:
                self.log.info("%s: the move to version %s is done already", self.model_name, made.champion_after)
                if (done := read_done_move(model.tags, order.identity)) is not None:
                    self.book.moved(done)
                self._mirror(model, claim)
                return replace(made, was_completed=order.identity in completed)
            made, target = self._usable(made, model)
            order = self.governance.noted(order)
            cleared = self.guard.require(act or _ACTS[order.action], order, model, [target] if target else [])
            move = self.book.intend(self._record(made, order, model, target), order, cleared)
            self.guard.mark(model, cleared)
            if target is not None:
                self.guard.sign(target, move, cleared)
            self.claims.require_valid(claim)
            if target is not None and (split := ended_split(target)):
                # Before the alias moves: the tag counts again as soon as its version is champion.
                self.mlflow.set_model_version_tag(self.model_name, target.version, TAG_ROLLOUT, split)
            # Before the first alias moves: a retry, or the next mover, can complete what this try began.
            self.mlflow.set_registered_model_tag(self.model_name, TAG_LAST_MOVE, move.to_tag())
            move = self._carry_out(made.moves, move, claim)
            self._verify(made)
            self.mlflow.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            self.book.moved(move)
            self._mirror(model, claim)
            self._pack({**model.tags, TAG_LAST_MOVE: move.to_tag(), move.done_tag: move.to_tag()}, claim)
            return made

    def check(self, plan: Callable[[RegisteredModel], AliasPlan]) -> AliasPlan:
        """Plan on the present aliases and check the versions as :meth:`move` does; nothing is claimed or written.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :return: the plan that :meth:`move` would carry out now.
        :raises AliasConflictError: when a version of the plan does not exist.
        :raises LoadCheckFailedError: when one failed its load check.
        :raises EvidenceError: when one is not READY, or does not meet the rule.
        """
        model = model_of(self.mlflow, self.model_name)
        made = plan(model)
        return made if made.is_done else self._usable(made, model)[0]

    def shift(self, plan: Callable[[RegisteredModel], StagePlan], order: MoveOrder) -> StagePlan:
        """Plan a move between stages, which does not move the champion, and carry it out under the claim.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :param order: who moves and why.
        :return: the plan that was carried out.
        :raises ClaimUnavailableError: when another task kept the claim; nothing was moved.
        :raises LoadCheckFailedError: when the next challenger failed its load check; nothing was moved.
        """
        with self.claims.held() as claim:
            model, completed = self._settled(claim)
            made = plan(model)
            if made.is_done:
                self.log.info("%s: the move between stages is done already", self.model_name)
                if made.done is not None:
                    self.book.moved(made.done)
                self._mirror(model, claim)
                return replace(made, was_completed=order.identity in completed)
            if made.challenger_after not in (None, made.challenger_before):
                NOTHING_REQUIRED.require(self._existing(made.challenger_after), datetime.now(UTC))
            order = self.governance.noted(order)
            act: Act = "migrate" if order.action == "migrate" else "stage"
            cleared = self.guard.require(act, order, model, ())
            move = replace(made.record(order, datetime.now(UTC)), number=next_number(model.tags)).fitted()
            self.book.intend(move, order, cleared)
            self.guard.mark(model, cleared)
            self.claims.require_valid(claim)
            self.mlflow.set_registered_model_tag(self.model_name, TAG_LAST_STAGE_MOVE, move.to_tag())
            if made.challenger_after != made.challenger_before:
                self.claims.require_valid(claim)
                self._set(AliasMove(ALIAS_CHALLENGER, made.challenger_after))
            self.mlflow.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            self.book.moved(move)
            for version, stage in made.stages.items():
                self.log.info("%s: version %s is in %s", self.model_name, version, stage)
            self._mirror(model, claim)
            self._pack({**model.tags, TAG_LAST_STAGE_MOVE: move.to_tag(), move.done_tag: move.to_tag()}, claim)
            return made

    def mirror(self) -> int:
        """Make MLflow's own stages match the aliases, if mirroring is on for the model.

        :return: number of versions moved.
        """
        with self.claims.held() as claim:
            return self._mirror(self._settled(claim)[0], claim)

    def _mirror(self, model: RegisteredModel, claim: Claim) -> int:
        if not is_mirrored(model):
            return 0
        model = self.mlflow.get_registered_model(self.model_name)
        versions = versions_of(self.mlflow, self.model_name)
        for step in plan_mirror(model, versions):
            self.claims.require_valid(claim)
            self.mlflow.transition_stage(self.model_name, step.version, step.stage, step.archive_existing)
            self.log.info("%s: MLflow's own stage of version %s -> %s", self.model_name, step.version, step.stage)
        return len(stage_drift(model, versions))

    def _pack(self, tags: Mapping[str, str], claim: Claim) -> None:
        """Pack the oldest records when there are many; the move is done, so a failure here does not matter."""
        packing = plan_packing(tags)
        if packing is None:
            return
        try:
            # The packed tags first: dying in between leaves records twice, which readers and the next packing expect.
            for name, value in packing.to_set.items():
                self.claims.require_valid(claim)
                self.mlflow.set_registered_model_tag(self.model_name, name, value)
            for name in packing.to_delete:
                self.claims.require_valid(claim)
                self.mlflow.delete_registered_model_tag(self.model_name, name)
        except ModelControlPlaneError as error:
            self.log.warning("%s: older records of moves stay unpacked until the next move: %s", self.model_name, error)

    def _usable(self, plan: AliasPlan, model: RegisteredModel) -> tuple[AliasPlan, ModelVersion | None]:
        """Check the versions that get an alias; return the plan without an unusable way back, and the new champion."""
        target = None
        for step in plan.moves:
            if step.version is None:
                continue
            version = self._existing(step.version)
            if step.alias == ALIAS_PREVIOUS_CHAMPION and (problem := why_unusable(version)):
                self.log.warning(
                    "%s: version %s is not kept as previous_champion: %s", self.model_name, step.version, problem
                )
                plan = without_way_back(plan, model.aliases)
                continue
            rule = self.rule if step.alias == ALIAS_CHAMPION else NOTHING_REQUIRED
            rule.require(version, datetime.now(UTC))
            target = version if step.alias == ALIAS_CHAMPION else target
        return plan, target

    def _existing(self, number: str) -> ModelVersion:
        try:
            return self.mlflow.get_model_version(self.model_name, number)
        except MlflowNotFoundError as error:
            raise AliasConflictError(
                f"{self.model_name!r}: version {number} does not exist, perhaps it was deleted; nothing was moved "
                f"({error})"
            ) from error

    def _settled(self, claim: Claim) -> tuple[RegisteredModel, set[str]]:
        """Read the registered model, after completing and recording moves whose task died before it did.

        :return: the model, and the identities of the moves that were completed.
        """
        model = self._read()
        move = unfinished_move(model.aliases, model.tags)
        if move is not None:
            self.log.info("%s: completing the %s by %s, whose task died", self.model_name, move.action, move.by)
            move = self._carry_out(completion(move, model.aliases), move, claim)
            self.mlflow.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            self.book.complete(move)
            model = self._read()
        stage_move = unfinished_stage_move(model)
        if stage_move is not None:
            self.log.info("%s: recording the move between stages by %s, whose task died", model.name, stage_move.by)
            self.mlflow.set_registered_model_tag(self.model_name, stage_move.done_tag, stage_move.to_tag())
            self.book.complete(stage_move)
            model = replace(model, tags={**model.tags, stage_move.done_tag: stage_move.to_tag()})
        return model, {each.identity for each in (move, stage_move) if each is not None}

    def _read(self) -> RegisteredModel:
        return _of_existing_versions(self.mlflow, self.mlflow.get_registered_model(self.model_name))

    def _record(
        self, plan: AliasPlan, order: MoveOrder, model: RegisteredModel, target: ModelVersion | None
    ) -> MoveRecord:
        """Return the record of a move, in a form that every database keeps."""
        return replace(
            plan.record(order, datetime.now(UTC), target),
            number=next_number(model.tags),
            load_check=self.rule.describe(target),
            previous_before=model.aliases.get(ALIAS_PREVIOUS_CHAMPION),
        ).fitted()

    def _carry_out(self, steps: tuple[AliasMove, ...], move: MoveRecord, claim: Claim) -> MoveRecord:
        """Move the aliases; return the record with the way back as it was left."""
        for step in steps:
            self.claims.require_valid(claim)
            try:
                self._set(step)
            except (MlflowAuthError, MlflowNotFoundError) as error:
                # The champion has moved by now, and that has to be recorded in any case.
                is_missing_right = isinstance(error, MlflowAuthError) and step.version is None
                is_gone = isinstance(error, MlflowNotFoundError) and step.version is not None
                if step.alias == ALIAS_CHAMPION or not (is_missing_right or is_gone):
                    raise
                self.log.warning(
                    "%s: alias %s stays where it is; removing one needs MANAGE on the registered model: %s",
                    *(self.model_name, step.alias, error),
                )
                if step.alias == ALIAS_PREVIOUS_CHAMPION:
                    move = replace(move, way_back=move.previous_before or NO_WAY_BACK)
        return move

    def _set(self, step: AliasMove) -> None:
        if step.version is None:
            self.mlflow.delete_alias(self.model_name, step.alias)
        else:
            self.mlflow.set_alias(self.model_name, step.alias, step.version)
        self.log.info("%s: alias %s -> %s", self.model_name, step.alias, step.version or "removed")

    def _verify(self, plan: AliasPlan) -> None:
        champion = self.mlflow.get_registered_model(self.model_name).aliases.get(ALIAS_CHAMPION)
        if champion != plan.champion_after:
            raise FailedError(
                f"{self.model_name!r}: alias {ALIAS_CHAMPION!r} was set to version {plan.champion_after}, but points "
                f"at {champion or 'no version'} now: something outside Airflow moved it. Find out what before you retry"
            )
