"""Plans of alias moves: what to set in which order, so that a retry after any step ends in the same state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_mcp.core.contract import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_COPY_RUN,
    TAG_GATE_VERDICT,
)
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.moves import NO_WAY_BACK, MoveOrder, MoveRecord, read_done_move, read_last_move
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
            run_id=(version.tags.get(TAG_COPY_RUN) or version.run_id) if version else "",
            gate_verdict=version.tags.get(TAG_GATE_VERDICT, "") if version else "",
            way_back=self.way_back,
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

    ``previous_champion`` is set first: if the second step never happens, the champion is untouched and a retry
    makes the same plan. The alias ``challenger`` is removed last if the new or the old champion has it. Nothing is
    left to do when the version is champion already, or this promotion was done before (even if it was rolled back
    since).

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this promotion, the same on every retry.
    :param version: version to promote.
    :param expected_champion: version that the candidate was compared with; None when there was no champion.
    :raises AliasConflictError: when the champion is neither the expected version nor this one.
    """
    champion, challenger = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_CHALLENGER)
    no_challenger = AliasMove(ALIAS_CHALLENGER, None)
    if champion == version:
        last = read_last_move(tags)
        is_ours = last is not None and last.identity == identity
        return AliasPlan((no_challenger,) if is_ours and challenger == version else (), champion, version)
    done = read_done_move(tags, identity)
    if done is not None:
        return AliasPlan((), done.champion_before, done.champion_after)
    if champion != expected_champion:
        raise AliasConflictError(
            f"{model_name!r}: the candidate (version {version}) was compared with {_describe(expected_champion)}, but "
            f"alias {ALIAS_CHAMPION!r} now points at {_describe(champion)}. Nothing was moved; evaluate the candidate "
            "against the present champion and promote again"
        )
    keep = (AliasMove(ALIAS_PREVIOUS_CHAMPION, champion),) if champion else ()
    leave = (no_challenger,) if challenger and challenger in (version, champion) else ()
    return AliasPlan((*keep, AliasMove(ALIAS_CHAMPION, version), *leave), champion, version)


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
    same rollback (same identity, recorded in the model's tags) finds nothing left to do; it does not go back a second
    time or undo what others promoted since.

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this rollback, the same on every retry.
    :param to_version: version to go to; None takes the previous champion.
    :raises AliasConflictError: when there is no version to go back to, or it is the champion already.
    """
    champion, previous = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_PREVIOUS_CHAMPION)
    last = read_last_move(tags)
    if last is not None and last.identity == identity and last.champion_after == champion:
        leftover = (AliasMove(ALIAS_PREVIOUS_CHAMPION, None),) if previous else ()
        return AliasPlan(leftover, last.champion_before, last.champion_after)
    done = read_done_move(tags, identity)
    if done is not None:
        return AliasPlan((), done.champion_before, done.champion_after)
    target = to_version or previous
    if target is None:
        raise AliasConflictError(
            f"{model_name!r} has no alias {ALIAS_PREVIOUS_CHAMPION!r}, so there is no champion to go back to; alias "
            f"{ALIAS_CHAMPION!r} stays at {_describe(champion)}. Set to_version to the version to go to"
        )
    if target == champion:
        raise AliasConflictError(
            f"{model_name!r}: version {target} is the champion already; nothing was moved. Set to_version to another "
            "version"
        )
    forget = (AliasMove(ALIAS_PREVIOUS_CHAMPION, None),) if previous else ()
    return AliasPlan((AliasMove(ALIAS_CHAMPION, target), *forget), champion, target)


def _describe(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
