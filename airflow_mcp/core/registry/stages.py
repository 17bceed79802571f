"""MLflow's stages, for teams and tools that still speak them: read from aliases and recorded moves.

The aliases are the truth. A stage says nothing that aliases and records do not say, and whoever sets a stage moves
aliases, under the same rules as everybody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, get_args

from airflow_mcp.core.contract import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_LAST_STAGE_MOVE,
    TAG_MIRROR_STAGES,
    TAG_STAGE_MOVE_PREFIX,
)
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Stage
from airflow_mcp.core.registry.history import recorded_moves
from airflow_mcp.core.registry.moves import Action, MoveOrder, MoveRecord, next_number
from airflow_mcp.exceptions import AliasConflictError, InvalidArgumentError

STAGES: tuple[Stage, ...] = get_args(Stage)
MAX_RECORD_CHARACTERS = 5000
"""Longest value of a tag of a registered model that MLflow's SQL stores keep."""


# --- what is recorded ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageMove:
    """A move between stages other than Production, kept in tags of the registered model.

    As with the champion, :data:`~airflow_mcp.core.contract.TAG_LAST_STAGE_MOVE` is written before the alias moves,
    and a tag named by the identity when it is done.
    """

    action: Action
    """``transition`` or ``migrate``."""
    identity: str
    stages: Mapping[str, Stage]
    """Every version whose stage this move sets, also those that another one pushed out."""
    challenger_before: str | None
    challenger_after: str | None
    at: str
    """ISO 8601, UTC."""
    by: str
    reason: str = ""
    number: int = 0
    """Counts the moves of a model together with those of its champion."""

    @property
    def done_tag(self) -> str:
        """Name of the tag that says that this move is done."""
        return TAG_STAGE_MOVE_PREFIX + self.identity

    def to_json(self) -> dict[str, Any]:
        """Write it as plain JSON values; runs of versions are written short (``3-7``)."""
        written = {
            stage: short_list(version for version, its in self.stages.items() if its == stage)
            for stage in STAGES
            if stage in self.stages.values()
        }
        return {**vars(self), "stages": written}

    def to_tag(self) -> str:
        """Write it as the value of a tag.

        :raises InvalidArgumentError: when it is too long to be kept.
        """
        text = json.dumps(self.to_json(), sort_keys=True)
        if len(text) > MAX_RECORD_CHARACTERS:
            raise InvalidArgumentError(
                f"a move of {len(self.stages)} versions between stages needs a record of {len(text)} characters; "
                f"MLflow keeps {MAX_RECORD_CHARACTERS}. Nothing was moved; move fewer versions at once"
            )
        return text


def short_list(versions: Iterable[str]) -> str:
    """Write version numbers short: ``1-3,7``."""
    numbers = sorted(int(version) for version in versions)
    runs = (list(run) for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]))
    ends = ((run[0][1], run[-1][1]) for run in runs)
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def read_short_list(text: str) -> Iterator[str]:
    """Read what :func:`short_list` wrote.

    :raises ValueError: when it is something else.
    """
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from (str(number) for number in range(int(first), int(last or first) + 1))


def read_stage_moves(model: RegisteredModel) -> tuple[StageMove, ...]:
    """Read every move between stages that was made, oldest first."""
    moves = [_read(value) for name, value in model.tags.items() if name.startswith(TAG_STAGE_MOVE_PREFIX)]
    found = [move for move in (*moves, unrecorded_stage_move(model)) if move is not None]
    return tuple(sorted(found, key=lambda move: (move.number, move.at)))


def unrecorded_stage_move(model: RegisteredModel) -> StageMove | None:
    """Find the latest move between stages if it was made, but its task died before it could record that."""
    last = _read(model.tags.get(TAG_LAST_STAGE_MOVE))
    if last is None or last.done_tag in model.tags or model.aliases.get(ALIAS_CHALLENGER) != last.challenger_after:
        return None
    # Whoever moves records first what was made before: a later number means that this one was never made.
    return last if last.number == next_number(model.tags) - 1 else None


def _read(value: str | None) -> StageMove | None:
    """Read a record; None when there is none, or somebody else wrote something else into the tag."""
    try:
        fields: Any = json.loads(value or "null")
        if not isinstance(fields, dict):
            return None
        stages = {version: stage for stage in STAGES for version in read_short_list(fields["stages"].get(stage, ""))}
        move = StageMove(**{**fields, "stages": stages})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return move if isinstance(move.at, str) and isinstance(move.number, int) else None


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VersionStage:
    """The stage of a version, and what puts it there."""

    stage: Stage
    why: str


UNKNOWN_TO_US = VersionStage("None", "no alias and no record")


def read_stages(model: RegisteredModel) -> dict[str, VersionStage]:
    """Read the stage of every version that an alias or a record speaks of; all others are in :data:`UNKNOWN_TO_US`.

    The first that applies: ``champion`` is Production; ``challenger`` is Staging; what the latest recorded move says,
    where leaving ``champion`` means Archived; ``previous_champion`` is Archived. A version whose record says Staging
    because of an alias that somebody took away outside is in None, as the aliases say.

    :param model: the registered model as it is now.
    """
    found: dict[str, VersionStage] = {}
    if previous := model.aliases.get(ALIAS_PREVIOUS_CHAMPION):
        found[previous] = VersionStage("Archived", f"alias {ALIAS_PREVIOUS_CHAMPION}")
    recorded_challenger = None
    for move in _all_moves(model):
        if isinstance(move, StageMove):
            found |= {version: VersionStage(its, f"{move.action} of {move.at}") for version, its in move.stages.items()}
            recorded_challenger = move.challenger_after
            continue
        found |= {version: VersionStage("Archived", "was champion") for version in _versions(move)}
        recorded_challenger = None if recorded_challenger == move.champion_after else recorded_challenger
    challenger, champion = model.aliases.get(ALIAS_CHALLENGER), model.aliases.get(ALIAS_CHAMPION)
    if recorded_challenger != challenger and found.get(recorded_challenger or "", UNKNOWN_TO_US).stage == "Staging":
        found[recorded_challenger or ""] = VersionStage("None", f"alias {ALIAS_CHALLENGER} was taken away outside")
    if challenger:
        found[challenger] = VersionStage("Staging", f"alias {ALIAS_CHALLENGER}")
    if champion:
        found[champion] = VersionStage("Production", f"alias {ALIAS_CHAMPION}")
    return found


def recorded_versions(model: RegisteredModel) -> set[str]:
    """Give the versions that a recorded move speaks of: what they are is decided, whatever MLflow's own stage says."""
    return {version for move in _all_moves(model) for version in _versions(move)}


def _versions(move: MoveRecord | StageMove) -> Iterator[str]:
    if isinstance(move, StageMove):
        yield from move.stages
    else:
        yield from (version for version in (move.champion_before, move.champion_after) if version)


def _all_moves(model: RegisteredModel) -> list[MoveRecord | StageMove]:
    return sorted((*recorded_moves(model), *read_stage_moves(model)), key=lambda move: (move.number, move.at))


# --- setting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StagePlan:
    """A move between stages: what becomes of which version, and of the alias ``challenger``."""

    stages: Mapping[str, Stage]
    """Empty: nothing is left to do."""
    challenger_before: str | None
    challenger_after: str | None

    @property
    def is_done(self) -> bool:
        """Whether the registry is already as it should be."""
        return not self.stages

    @property
    def archived(self) -> tuple[str, ...]:
        """The versions that are Archived now."""
        return tuple(version for version, stage in self.stages.items() if stage == "Archived")

    def record(self, order: MoveOrder, at: datetime) -> StageMove:
        """Describe the move for the tags of the registered model.

        :param order: who moves and why.
        :param at: when, with a time zone.
        """
        return StageMove(
            action=order.action,
            identity=order.identity,
            stages=self.stages,
            challenger_before=self.challenger_before,
            challenger_after=self.challenger_after,
            at=at.isoformat(),
            by=str(order.by),
            reason=order.reason,
        )


def require_stage(name: str, value: Any) -> Stage:
    """Check a stage.

    :param name: name of the argument, for the message.
    :param value: one of MLflow's four, in any case, as MLflow itself takes them.
    :raises InvalidArgumentError: for anything else.
    """
    for stage in STAGES:
        if isinstance(value, str) and value.lower() == stage.lower():
            return stage
    raise InvalidArgumentError(f"{name} is {value!r}; allowed: {', '.join(STAGES)}")


def require_archivable(stage: Stage, archive_existing: bool) -> None:
    """Refuse to archive where MLflow does not: it archives for Staging and Production only.

    :raises InvalidArgumentError: naming both arguments.
    """
    if archive_existing and stage not in ("Staging", "Production"):
        raise InvalidArgumentError(
            f"archive_existing is True and stage is {stage!r}; allowed with archive_existing: Staging, Production"
        )


def require_one_production(version: str, expected_champion: str | None, *, archive_existing: bool) -> None:
    """Refuse to have two versions in Production: there is one champion.

    :param version: version that is to go to Production.
    :param expected_champion: version that is there; None when there is none.
    :param archive_existing: whether that one is to be archived.
    :raises InvalidArgumentError: when it is not.
    """
    if expected_champion not in (None, version) and not archive_existing:
        raise InvalidArgumentError(
            f"archive_existing is False, but version {expected_champion} is in Production and there is one champion; "
            "allowed: True, which archives it and keeps it as the way back. Nothing was moved"
        )


def plan_stage(
    model: RegisteredModel, *, identity: str, version: str, stage: Stage, archive_existing: bool = False
) -> StagePlan:
    """Plan to put a version into None, Staging or Archived; Production is a promotion.

    The one put into Staging last has the alias ``challenger``; with ``archive_existing`` the others in Staging are
    archived, otherwise they stay there.

    :param model: the registered model as it is now.
    :param identity: name of this move, the same on every retry.
    :param version: version to move.
    :param stage: where to.
    :param archive_existing: for Staging: archive the others that are there.
    :raises AliasConflictError: for the champion: there is always one, so it leaves Production by a promotion only.
    """
    present = read_stages(model)
    before = present.get(version, UNKNOWN_TO_US).stage
    challenger = model.aliases.get(ALIAS_CHALLENGER)
    if TAG_STAGE_MOVE_PREFIX + identity in model.tags:
        return StagePlan({}, challenger, challenger)
    if before == "Production":
        raise AliasConflictError(
            f"{model.name!r}: version {version} is the champion, and a champion leaves Production only when another "
            f"version takes its place; nothing was moved. Promote another version, or roll back."
        )
    stages: dict[str, Stage] = {version: stage}
    after = None if challenger == version else challenger
    if stage == "Staging":
        others = [other for other, its in present.items() if its.stage == "Staging" and other != version]
        stages |= dict.fromkeys(others, "Archived") if archive_existing else _kept(challenger, version)
        after = version
    if before == stage and challenger == after and stages.keys() == {version}:
        return StagePlan({}, challenger, challenger)
    return StagePlan(stages, challenger, after)


def _kept(challenger: str | None, version: str) -> dict[str, Stage]:
    """Say that the challenger so far stays in Staging, now that another version takes its alias."""
    return {challenger: "Staging"} if challenger and challenger != version else {}


# --- MLflow's own stages ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageDrift:
    """MLflow's own stage of a version is another one than the aliases say."""

    version: str
    stage: Stage
    """What the aliases say."""
    found: str
    """What MLflow's deprecated ``current_stage`` says."""


@dataclass(frozen=True)
class MirrorStep:
    """One call of MLflow's stage API."""

    version: str
    stage: Stage
    archive_existing: bool = False


def stage_drift(model: RegisteredModel, versions: Iterable[ModelVersion]) -> tuple[StageDrift, ...]:
    """Compare MLflow's own stages with those that the aliases mean, oldest version first.

    :param model: the registered model as it is now.
    :param versions: its versions.
    """
    stages = read_stages(model)
    ordered = sorted(versions, key=lambda version: int(version.version))
    compared = ((version, stages.get(version.version, UNKNOWN_TO_US).stage) for version in ordered)
    return tuple(
        StageDrift(version.version, stage, version.current_stage)
        for version, stage in compared
        if version.current_stage != stage
    )


def is_mirrored(model: RegisteredModel) -> bool:
    """Whether MLflow's own stages are to follow the aliases of this model."""
    return model.tags.get(TAG_MIRROR_STAGES) == "true"


def plan_mirror(model: RegisteredModel, versions: Iterable[ModelVersion]) -> tuple[MirrorStep, ...]:
    """Plan the calls after which MLflow's own stages say what the aliases say.

    The champion comes first, and in one transaction with the archiving of whoever is in Production: a tool that asks
    for the version in Production gets the old one or the new one, never none or two.

    :param model: the registered model as it is now.
    :param versions: its versions.
    """
    versions = list(versions)
    drift = sorted(stage_drift(model, versions), key=lambda one: one.stage != "Production")
    others = {version.version for version in versions if version.current_stage == "Production"}
    archives_others = {one.version for one in drift if one.stage == "Production" and others - {one.version}}
    return tuple(
        MirrorStep(one.version, one.stage, one.version in archives_others)
        for one in drift
        if not (archives_others and one.found == "Production" and one.stage == "Archived")
    )
