"""Read and move the aliases of a registered model: one mover at a time, every move checked afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_mcp.core.contract import ALIAS_CHAMPION, TAG_LAST_MOVE
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.promotion import (
    AliasMove,
    AliasPlan,
    Claim,
    LastMove,
    expired_claims,
    new_claim,
    other_claims,
    unrecorded_move,
)
from airflow_mcp.exceptions import ClaimUnavailableError, FailedError, MlflowNotFoundError, ModelControlPlaneError

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
    from airflow_mcp.hooks.mlflow import MlflowHook

CLAIM_LIFETIME = timedelta(seconds=60)
"""A claim ends by itself after this time, so that a killed task blocks nobody for longer, its own retries included."""
CLAIM_ATTEMPTS = 6
"""How often a claim is tried before the task fails (and may be retried)."""


def champion_of(hook: MlflowHook, model_name: str) -> ModelVersion | None:
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

    MLflow has no compare-and-set. A mover first writes a claim as a tag of its own on the registered model, then
    reads all claims, and withdraws when it sees another valid one. Of two movers at least one reads after both
    have written, so two can never both go on. Claims end by themselves.

    :param hook: the MLflow connection.
    :param model_name: registered model; must exist.
    :param holder: who moves, for the others' messages.
    :param log: where moves are logged.
    """

    def __init__(self, hook: MlflowHook, model_name: str, *, holder: str, log: TaskLog) -> None:
        self.hook, self.model_name, self.holder, self.log = hook, model_name, holder, log

    def move(self, plan: Callable[[RegisteredModel], AliasPlan], record: Callable[[AliasPlan], LastMove]) -> AliasPlan:
        """Plan on the present aliases and carry the plan out, alone.

        :param plan: makes the plan from the registered model as it is now; may refuse by raising.
        :param record: describes the move for the registered model's tag.
        :return: the plan that was carried out.
        :raises ClaimUnavailableError: when another task kept the claim; nothing was moved.
        :raises FailedError: when the registry is not as planned afterwards.
        """
        with self._claimed() as claim:
            model = self._settled()
            made = plan(model)
            if made.is_done:
                self.log.info("%s: the move to version %s is done already", self.model_name, made.champion_after)
                return made
            move = record(made)
            for step in made.moves:
                self._require_valid(claim)
                if step.alias == ALIAS_CHAMPION:
                    # The intention first: a retry, or the next mover, can tell how far this try came.
                    self.hook.set_registered_model_tag(self.model_name, TAG_LAST_MOVE, move.to_tag())
                self._set(step)
            self._verify(made)
            self.hook.set_registered_model_tag(self.model_name, move.done_tag, move.to_tag())
            return made

    def _settled(self) -> RegisteredModel:
        """Read the registered model; a move whose task died before recording it is recorded first."""
        model = self.hook.get_registered_model(self.model_name)
        lost = unrecorded_move(model.aliases, model.tags)
        if lost is None:
            return model
        self.log.info("%s: recording the %s by %s, whose task died", self.model_name, lost.action, lost.by)
        self.hook.set_registered_model_tag(self.model_name, lost.done_tag, lost.to_tag())
        return replace(model, tags={**model.tags, lost.done_tag: lost.to_tag()})

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

    @contextmanager
    def _claimed(self) -> Iterator[Claim]:
        claim = self._take_claim()
        try:
            yield claim
        finally:
            self._release(claim)

    def _take_claim(self) -> Claim:
        others: tuple[Claim, ...] = ()
        for attempt in range(CLAIM_ATTEMPTS):
            claim = new_claim(uuid4().hex, self.holder, datetime.now(UTC), CLAIM_LIFETIME)
            others = self._claim_and_look(claim)
            if not others:
                return claim
            self._release(claim)
            if attempt < CLAIM_ATTEMPTS - 1:
                time.sleep(random.uniform(0.1, 0.5) * 2**attempt)  # noqa: S311  (spreads contenders)
        raise ClaimUnavailableError(
            f"{self.model_name!r}: its aliases are being moved by {', '.join(other.holder for other in others)}; "
            "nothing was moved, a retry tries again"
        )

    def _claim_and_look(self, claim: Claim) -> tuple[Claim, ...]:
        """Write a claim, then give the others' that are valid; whatever goes wrong leaves no claim of ours behind."""
        try:
            self.hook.set_registered_model_tag(self.model_name, claim.tag, claim.to_value())
            tags = self.hook.get_registered_model(self.model_name).tags
            others = other_claims(tags, claim, datetime.now(UTC))
            for dead in () if others else expired_claims(tags, datetime.now(UTC)):
                self.hook.delete_registered_model_tag(self.model_name, dead.tag)
        except BaseException:
            self._release(claim)
            raise
        return others

    def _release(self, claim: Claim) -> None:
        try:
            self.hook.delete_registered_model_tag(self.model_name, claim.tag)
        except ModelControlPlaneError as error:
            self.log.warning("claim %s could not be removed and ends at %s: %s", claim.tag, claim.expires_at, error)

    def _require_valid(self, claim: Claim) -> None:
        if datetime.now(UTC) >= claim.expires_at:
            raise ClaimUnavailableError(
                f"{self.model_name!r}: the claim of {self.holder} ran out before its moves were made; a retry goes on"
            )
