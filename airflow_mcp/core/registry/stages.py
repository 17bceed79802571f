"""MLflow's stages, for teams and tools that still use them: derived from aliases and recorded moves.

The aliases decide. A stage adds nothing to aliases and records, and setting a stage moves aliases under the same rules
as any other move.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from airflow_mcp.core.registry.moves import (
    Action,
    MoveOrder,
    MoveRecord,
    fitted_reason,
    next_number,
)
from airflow_mcp.core.registry.packed_moves import MAX_RECORD_CHARACTERS, done_records
from airflow_mcp.exceptions import AliasConflictError, InvalidArgumentError

STAGES: tuple[Stage, ...] = get_args(Stage)


# --- what is recorded ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageMove:
    """The record of one move between stages other than Production, kept in tags of the registered model.

    As with the champion, :data:`~airflow_mcp.core.contract.TAG_LAST_STAGE_MOVE` is written before the alias moves,
    and a tag named by the move's identity when the move is done.
    """

    action: Action
    """``transition`` or ``migrate``."""
    identity: str
    stages: Mapping[str, Stage]
    """Every version whose stage this move sets, including versions that it archives."""
    challenger_before: str | None
    challenger_after: str | None
    at: str
    """ISO 8601, UTC."""
    by: str
    reason: str = ""
    number: int = 0
    """Position among all moves of the model, moves of its champion included."""

    @property
    def done_tag(self) -> str:
        """Name of the tag that says that this move is done."""
        return TAG_STAGE_MOVE_PREFIX + self.identity

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; ranges of versions are short (``3-7``)."""
        written = {
            stage: short_list(version for version, its in self.stages.items() if its == stage)
            for stage in STAGES
            if stage in self.stages.values()
        }
        return {**vars(self), "stages": written}

    def to_tag(self) -> str:
        """Return the value of its tag.

        :raises InvalidArgumentError: when it is too long for MLflow.
        """
        text = self._text()
        if len(text) > MAX_RECORD_CHARACTERS:
            raise InvalidArgumentError(
                f"a move of {len(self.stages)} versions between stages needs a record of {len(text)} characters; "
                f"MLflow keeps {MAX_RECORD_CHARACTERS}. Nothing was moved; move fewer versions at once"
            )
        return text

    def fitted(self) -> StageMove:
        """Return the record with its reason cut so far that its tag fits.

        :raises InvalidArgumentError: when it moves so many versions that it does not fit without a reason either.
        """
        replace(self, reason="").to_tag()
        return replace(self, reason=fitted_reason(self.reason, lambda reason: replace(self, reason=reason)._text()))

    def _text(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)


def short_list(versions: Iterable[str]) -> str:
    """Return version numbers as short text: ``1-3,7``."""
    numbers = sorted(int(version) for version in versions)
    runs = (list(run) for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]))
    ends = ((run[0][1], run[-1][1]) for run in runs)
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def read_short_list(text: str) -> Iterator[str]:
    """Read the text of :func:`short_list`.

    :raises ValueError: when it is another text.
    """
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from (str(number) for number in range(int(first), int(last or first) + 1))


def read_stage_moves(model: RegisteredModel) -> tuple[StageMove, ...]:
    """Return every move between stages that was made, oldest first."""
    moves = [_read(value) for name, value in done_records(model.tags).items() if name.startswith(TAG_STAGE_MOVE_PREFIX)]
    found = [move for move in (*moves, unfinished_stage_move(model)) if move is not None]
    return tuple(sorted(found, key=lambda move: (move.number, move.at)))


def unfinished_stage_move(model: RegisteredModel) -> StageMove | None:
    """Return the latest move between stages if it was made, but the task died before it recorded that."""
    last = _read(model.tags.get(TAG_LAST_STAGE_MOVE))
    if last is None or last.done_tag in model.tags or model.aliases.get(ALIAS_CHALLENGER) != last.challenger_after:
        return None
    # Every mover first records an unfinished move: a later number means that this move was never made.
    return last if last.number == next_number(model.tags) - 1 else None


def _read(value: str | None) -> StageMove | None:
    """Read a record; None when there is none or the tag was not written by airflow-mcp."""
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
    """The stage of a version, and why."""

    stage: Stage
    why: str


UNKNOWN_TO_US = VersionStage("None", "no alias and no record")


def read_stages(model: RegisteredModel) -> dict[str, VersionStage]:
    """Return the stage of every version that has an alias or a record; all others have :data:`UNKNOWN_TO_US`.

    The first rule that applies decides: ``champion`` is Production; ``challenger`` is Staging; the stage of the latest
    recorded move, where a version that was champion is Archived; ``previous_champion`` is Archived. A recorded
    challenger whose alias was removed outside airflow-mcp is in None.

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
        found[recorded_challenger or ""] = VersionStage(
            "None", f"alias {ALIAS_CHALLENGER} was removed outside airflow-mcp"
        )
    if challenger:
        found[challenger] = VersionStage("Staging", f"alias {ALIAS_CHALLENGER}")
    if champion:
        found[champion] = VersionStage("Production", f"alias {ALIAS_CHAMPION}")
    return found


def recorded_versions(model: RegisteredModel) -> set[str]:
    """Return the versions in recorded moves: their stage is decided, whatever MLflow's own stage is."""
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
    """A planned move between stages: the new stages, and where the alias ``challenger`` goes."""

    stages: Mapping[str, Stage]
    """Empty: nothing is left to do."""
    challenger_before: str | None
    challenger_after: str | None
    done: StageMove | None = None
    """The record, when this very move was made before."""
    stage_now: Stage | None = None
    """The stage of the version when nothing is left to do: another move may have changed it since."""
    was_completed: bool = False
    """Whether an earlier try had begun this move and died, and this try completed it."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.stages

    @property
    def has_moved(self) -> bool:
        """Whether this try moves something, or completed what an earlier try had begun."""
        return not self.is_done or self.was_completed

    @property
    def archived(self) -> tuple[str, ...]:
        """The versions that the move archives, or archived when it was made before."""
        stages = self.done.stages if self.done is not None else self.stages
        return tuple(version for version, stage in stages.items() if stage == "Archived")

    def record(self, order: MoveOrder, at: datetime) -> StageMove:
        """Return the record of the move; its number is filled in under the claim.

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
    :param value: one of MLflow's four stages; like MLflow, in upper or lower case.
    :raises InvalidArgumentError: for any other value.
    """
    for stage in STAGES:
        if isinstance(value, str) and value.lower() == stage.lower():
            return stage
    raise InvalidArgumentError(f"{name} must be one of {', '.join(STAGES)}; got {value!r}")


def require_archivable(stage: Stage, archive_existing: bool) -> None:
    """Check that ``archive_existing`` is used for Staging or Production only, as in MLflow.

    :raises InvalidArgumentError: naming both arguments.
    """
    if archive_existing and stage not in ("Staging", "Production"):
        raise InvalidArgumentError(f"stage must be Staging or Production when archive_existing is true; got {stage!r}")


def require_one_production(version: str, expected_champion: str | None, *, archive_existing: bool) -> None:
    """Check that a promotion does not leave two versions in Production: there is one champion.

    :param version: version that goes to Production.
    :param expected_champion: version in Production now; None when there is none.
    :param archive_existing: whether that version is archived.
    :raises InvalidArgumentError: when it would stay in Production.
    """
    if expected_champion not in (None, version) and not archive_existing:
        raise InvalidArgumentError(
            f"archive_existing must be true because version {expected_champion} is in Production and there can be only "
            "one champion; got False. With true, that version is archived and kept as the way back. Nothing was moved"
        )


def plan_stage(
    model: RegisteredModel, *, identity: str, version: str, stage: Stage, archive_existing: bool = False
) -> StagePlan:
    """Return the plan that moves a version to None, Staging or Archived; Production is a promotion.

    The latest version moved to Staging has the alias ``challenger``. The other versions in Staging stay there, or are
    archived with ``archive_existing``.

    :param model: the registered model as it is now.
    :param identity: name of this move, the same on every retry.
    :param version: version to move.
    :param stage: stage to move it to.
    :param archive_existing: for Staging: archive the other versions in Staging.
    :raises AliasConflictError: for the champion, which leaves Production only by a promotion or rollback.
    """
    present = read_stages(model)
    before = present.get(version, UNKNOWN_TO_US).stage
    challenger = model.aliases.get(ALIAS_CHALLENGER)
    done = next((move for move in read_stage_moves(model) if move.identity == identity), None)
    if done is not None:
        return StagePlan({}, challenger, challenger, done, before)
    if before == "Production":
        raise AliasConflictError(
            f"{model.name!r}: version {version} is the champion, and a champion leaves Production only when another "
            "version takes its place; nothing was moved. Promote another version, or roll back"
        )
    stages: dict[str, Stage] = {version: stage}
    after = None if challenger == version else challenger
    if stage == "Staging":
        others = [other for other, its in present.items() if its.stage == "Staging" and other != version]
        stages |= dict.fromkeys(others, "Archived") if archive_existing else _kept_in_staging(challenger, version)
        after = version
    if before == stage and challenger == after and stages.keys() == {version}:
        return StagePlan({}, challenger, challenger, stage_now=before)
    return StagePlan(stages, challenger, after)


def _kept_in_staging(challenger: str | None, version: str) -> dict[str, Stage]:
    """Return the stage of the present challenger, which stays in Staging when another version takes the alias."""
    return {challenger: "Staging"} if challenger and challenger != version else {}


# --- MLflow's own stages ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageDrift:
    """A version whose own stage in MLflow differs from its stage by the aliases."""

    version: str
    stage: Stage
    """Stage by the aliases."""
    found: str
    """MLflow's deprecated ``current_stage``."""


@dataclass(frozen=True)
class MirrorStep:
    """One call of MLflow's stage API."""

    version: str
    stage: Stage
    archive_existing: bool = False


def stage_drift(model: RegisteredModel, versions: Iterable[ModelVersion]) -> tuple[StageDrift, ...]:
    """Return where MLflow's own stages differ from the aliases, oldest version first.

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
    """Return whether MLflow's own stages follow the aliases of this model."""
    return model.tags.get(TAG_MIRROR_STAGES) == "true"


def plan_mirror(model: RegisteredModel, versions: Iterable[ModelVersion]) -> tuple[MirrorStep, ...]:
    """Return the calls that make MLflow's own stages match the aliases.

    The champion comes first, in one transaction with the archiving of the version in Production: a tool that asks for
    the version in Production gets the old or the new one, never none or two.

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
