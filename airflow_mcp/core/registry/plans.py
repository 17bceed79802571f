"""Plans of alias moves: what to set in which order, so that a retry after any step ends in the same state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_mcp.core.contract import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_GATE_VERDICT,
)
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.core.registry.moves import (
    NO_WAY_BACK,
    MoveOrder,
    MoveRecord,
    read_done_move,
    read_history,
    unfinished_move,
)
from airflow_mcp.exceptions import AliasConflictError


@dataclass(frozen=True)
class AliasMove:
    """One alias that is set to a version, or removed (``version`` is None)."""

    alias: str
    version: str | None


@dataclass(frozen=True)
class AliasPlan:
    """Moves to make, in order."""

    moves: tuple[AliasMove, ...]
    champion_before: str | None
    champion_after: str
    way_back: str = ""
    """Where ``previous_champion`` is left when that is not the champion before: a version, or ``none``."""
    forced: bool = False
    """Whether a rollback goes to a version that never was champion and that no gate accepted."""
    was_completed: bool = False
    """Whether an earlier try had begun this move and died, and this try completed it."""

    @property
    def has_moved(self) -> bool:
        """Whether this try moves something, or completed what an earlier try had begun."""
        return not self.is_done or self.was_completed

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.moves

    def record(self, order: MoveOrder, at: datetime, version: ModelVersion | None) -> MoveRecord:
        """Return the record of the move; its number and load check are filled in under the claim.

        :param order: who moves and why.
        :param at: when, with a time zone.
        :param version: the version that becomes champion; None when nothing is known about it.
        """
        return MoveRecord(
            action=order.action,
            identity=order.identity,
            champion_before=self.champion_before,
            champion_after=self.champion_after,
            at=at.isoformat(),
            by=str(order.by),
            reason=order.reason,
            run_id=run_of(version) if version else "",
            gate_verdict=version.tags.get(TAG_GATE_VERDICT, "") if version else "",
            way_back=self.way_back,
            forced=self.forced,
        )


def plan_promotion(
    aliases: Mapping[str, str],
    tags: Mapping[str, str],
    *,
    model_name: str,
    identity: str,
    version: str,
    expected_champion: str | None,
) -> AliasPlan:
    """Return the plan that makes a version the champion and keeps the way back.

    The intention is recorded first, with the champion before. So ``champion`` can move first: ``previous_champion``
    never points at the champion, and a task that dies in between is completed by the next mover. The alias
    ``challenger`` is removed last if the new or the old champion has it. Nothing is left to do when the version is
    champion already.

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this promotion, the same on every retry.
    :param version: version to promote.
    :param expected_champion: version that the candidate was compared with; None when there was no champion.
    :raises AliasConflictError: when the champion is neither the expected version nor this one, or this promotion was
        done before and another version is champion since.
    """
    champion, challenger = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_CHALLENGER)
    if (done := _done_before(tags, identity, champion, model_name)) is not None:
        return done
    if champion == version:
        latest = next((move for move in reversed(read_history(tags)) if move.champion_after == version), None)
        return AliasPlan((), latest.champion_before if latest else champion, version)
    if champion != expected_champion:
        raise AliasConflictError(
            f"{model_name!r}: the candidate (version {version}) was compared with {_describe(expected_champion)}, but "
            f"alias {ALIAS_CHAMPION!r} now points at {_describe(champion)}. Nothing was moved; evaluate the candidate "
            "against the present champion and promote again"
        )
    keep = (AliasMove(ALIAS_PREVIOUS_CHAMPION, champion),) if champion else ()
    leave = (AliasMove(ALIAS_CHALLENGER, None),) if challenger and challenger in (version, champion) else ()
    return AliasPlan((AliasMove(ALIAS_CHAMPION, version), *keep, *leave), champion, version)


def _done_before(tags: Mapping[str, str], identity: str, champion: str | None, model_name: str) -> AliasPlan | None:
    """Return a plan with nothing left to do when this very move was done before; None when it was not.

    :raises AliasConflictError: when another version is champion since: success would say that the move holds.
    """
    done = read_done_move(tags, identity)
    if done is None:
        return None
    if champion != done.champion_after:
        raise AliasConflictError(
            f"{model_name!r}: this task made version {done.champion_after} the champion at {done.at}, but alias "
            f"{ALIAS_CHAMPION!r} has moved since and now points at {_describe(champion)}. Nothing was moved; to move "
            "it again, trigger a new Dag run instead of clearing this task"
        )
    return AliasPlan((), done.champion_before, done.champion_after)


def completion(move: MoveRecord, aliases: Mapping[str, str]) -> tuple[AliasMove, ...]:
    """Return what is left to do of a move whose task died after the champion had moved.

    :param move: the move.
    :param aliases: aliases of the registered model as they are now; one that somebody else moved since is left alone.
    """
    steps: list[AliasMove] = []
    left, previous = move.left, aliases.get(ALIAS_PREVIOUS_CHAMPION)
    if ALIAS_PREVIOUS_CHAMPION in left and left[ALIAS_PREVIOUS_CHAMPION] != previous == move.previous_before:
        steps.append(AliasMove(ALIAS_PREVIOUS_CHAMPION, left[ALIAS_PREVIOUS_CHAMPION]))
    if move.action != "rollback" and aliases.get(ALIAS_CHALLENGER) in (move.champion_after, move.champion_before or ""):
        steps.append(AliasMove(ALIAS_CHALLENGER, None))
    return tuple(steps)


def settled_aliases(aliases: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases as they will be when an unfinished move is completed.

    :param aliases: aliases of the registered model as they are now.
    :param tags: tags of the registered model as they are now.
    """
    move = unfinished_move(aliases, tags)
    steps = {step.alias: step.version for step in completion(move, aliases)} if move else {}
    return {alias: version for alias, version in {**aliases, **steps}.items() if version is not None}


def without_way_back(plan: AliasPlan, aliases: Mapping[str, str]) -> AliasPlan:
    """Return a plan that leaves ``previous_champion`` alone, because the champion before is unusable.

    :param plan: a plan that would point ``previous_champion`` at the champion before.
    :param aliases: aliases of the registered model as they are now.
    :return: the plan without that move; the alias is removed when it points at the next champion itself.
    """
    previous = aliases.get(ALIAS_PREVIOUS_CHAMPION)
    leave = tuple(move for move in plan.moves if move.alias != ALIAS_PREVIOUS_CHAMPION)
    if previous == plan.champion_after:
        return replace(plan, moves=(AliasMove(ALIAS_PREVIOUS_CHAMPION, None), *leave), way_back=NO_WAY_BACK)
    return replace(plan, moves=leave, way_back=previous or NO_WAY_BACK)


def plan_rollback(
    aliases: Mapping[str, str], tags: Mapping[str, str], *, model_name: str, identity: str, to_version: str | None
) -> AliasPlan:
    """Return the plan that goes back to the previous champion, or to a named version.

    A rollback removes ``previous_champion``: the version that was rolled back must not be a way back. A retry of the
    same rollback (same identity, recorded in the model's tags) finds nothing left to do and does not go back a second
    time.

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this rollback, the same on every retry.
    :param to_version: version to go to; None takes the previous champion.
    :raises AliasConflictError: when there is no version to go back to, it is the champion already, or this rollback
        was done before and another version is champion since.
    """
    champion, previous = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_PREVIOUS_CHAMPION)
    if (done := _done_before(tags, identity, champion, model_name)) is not None:
        return done
    target = to_version or previous
    if target is None or (not to_version and target == champion):
        lacks = f"has no alias {ALIAS_PREVIOUS_CHAMPION!r}"
        if target is not None:
            lacks = f"has its alias {ALIAS_PREVIOUS_CHAMPION!r} at the champion itself"
        raise AliasConflictError(
            f"{model_name!r} {lacks}, so there is no champion to go back to; alias "
            f"{ALIAS_CHAMPION!r} stays at {_describe(champion)}. Set to_version (--to-version) to the version to go to"
        )
    if target == champion:
        raise AliasConflictError(
            f"{model_name!r}: version {target} is the champion already; nothing was moved. Set to_version "
            "(--to-version) to another version"
        )
    forget = (AliasMove(ALIAS_PREVIOUS_CHAMPION, None),) if previous else ()
    return AliasPlan((AliasMove(ALIAS_CHAMPION, target), *forget), champion, target)


def _describe(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
