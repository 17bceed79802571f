"""Plans of the migration of a registered model from MLflow's deprecated stages to aliases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from airflow_mcp.core.contract import ALIAS_CHALLENGER, ALIAS_CHAMPION
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Stage
from airflow_mcp.core.registry.stages import UNKNOWN_TO_US, StagePlan, read_stages, recorded_versions, short_list

Prefer = Literal["stages", "aliases"]
PREFER: tuple[Prefer, ...] = get_args(Prefer)


@dataclass(frozen=True)
class MigrationChoices:
    """Decisions of a person about conflicts; without them a conflict is refused."""

    prefer: Prefer | None = None
    """Which one wins where an alias and a stage disagree."""
    newest: bool = False
    """Whether the highest of several versions in Production becomes champion."""


@dataclass(frozen=True)
class Migration:
    """The planned migration of one registered model."""

    model_name: str
    champion_before: str | None
    champion: str | None
    """Champion afterwards; the same as before when the alias stays."""
    challenger_before: str | None
    challenger: str | None
    """Challenger afterwards; the same as before when the alias stays."""
    stages: Mapping[str, Stage] = field(default_factory=dict)
    """Stages to record, because the aliases alone do not show them."""
    notes: tuple[str, ...] = ()
    """Decisions that a person should know about."""
    refusals: tuple[str, ...] = ()
    """Reasons why nothing is done; empty when the migration is possible."""

    @property
    def moves_champion(self) -> bool:
        """Whether the alias ``champion`` is set."""
        return self.champion != self.champion_before

    @property
    def moves_stages(self) -> bool:
        """Whether the alias ``challenger`` is set or a stage is recorded."""
        return bool(self.stages) or self.challenger != self.challenger_before

    @property
    def is_done(self) -> bool:
        """Whether aliases and records match the stages already."""
        return not (self.refusals or self.moves_champion or self.moves_stages)

    @property
    def status(self) -> str:
        """``refused``, ``to migrate`` or ``done``."""
        return "refused" if self.refusals else "done" if self.is_done else "to migrate"

    def stage_plan(self) -> StagePlan:
        """Return the part that does not move the champion, as a move between stages."""
        stages = dict(self.stages)
        if self.challenger and self.challenger != self.challenger_before:
            stages[self.challenger] = "Staging"
        return StagePlan(stages, self.challenger_before, self.challenger)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        kinds = sorted(set(self.stages.values()))
        return {
            "model_name": self.model_name,
            "status": self.status,
            "champion": {"from": self.champion_before, "to": self.champion},
            "challenger": {"from": self.challenger_before, "to": self.challenger},
            "recorded": {
                kind: short_list(version for version, its in self.stages.items() if its == kind) for kind in kinds
            },
            "notes": list(self.notes),
            "refusals": list(self.refusals),
        }


class _Undecidable(Exception):  # noqa: N818  (never leaves this module)
    """A conflict that only a person can decide."""


def plan_migration(
    model: RegisteredModel, versions: Sequence[ModelVersion], choices: MigrationChoices | None = None
) -> Migration:
    """Return the migration of one registered model, after which aliases and records match the stages.

    The stage of a version in a recorded move is decided already, so a second migration does nothing, even after
    promotions in between. A conflict is refused, and the refusal names the option that decides it.

    :param model: the registered model as it is now.
    :param versions: its versions.
    :param choices: decisions of a person; None for no decision.
    """
    choices = choices or MigrationChoices()
    notes: list[str] = []
    refusals: list[str] = []
    champion = challenger = None
    before = model.aliases.get(ALIAS_CHAMPION), model.aliases.get(ALIAS_CHALLENGER)
    decided = recorded_versions(model)
    by_stage = {stage: _in(stage, versions, decided) for stage in ("Production", "Staging", "Archived")}
    try:
        champion = _champion(before[0], by_stage["Production"], choices, notes)
    except _Undecidable as problem:
        refusals.append(str(problem))
    try:
        staged = [number for number in by_stage["Staging"] if number != champion]
        challenger = _challenger(before[1], champion, staged, choices, notes)
    except _Undecidable as problem:
        refusals.append(str(problem))
    ready = {version.version for version in versions if version.status == "READY"}
    refusals += _unfit(ALIAS_CHAMPION, champion, before[0], ready)
    refusals += _unfit(ALIAS_CHALLENGER, challenger, before[1], ready)
    if refusals:
        return Migration(model.name, before[0], before[0], before[1], before[1], {}, tuple(notes), tuple(refusals))
    wanted = dict(_wanted(by_stage, champion, challenger))
    present = read_stages(model)
    stages = {number: stage for number, stage in wanted.items() if present.get(number, UNKNOWN_TO_US).stage != stage}
    return Migration(model.name, before[0], champion, before[1], challenger, stages, tuple(notes))


def _in(stage: str, versions: Sequence[ModelVersion], decided: set[str]) -> list[str]:
    numbers = (version.version for version in versions if version.current_stage == stage)
    return sorted((number for number in numbers if number not in decided), key=int)


def _champion(alias: str | None, production: list[str], choices: MigrationChoices, notes: list[str]) -> str | None:
    if not production or alias in production:
        if len(production) > 1:
            rest = short_list(number for number in production if number != alias)
            notes.append(f"version {alias} is champion already; the other versions in Production ({rest}): Archived")
        return alias
    if alias is not None:
        return _preferred(ALIAS_CHAMPION, "Production", alias, _one(production, choices, notes), choices)
    return _one(production, choices, notes)


def _one(production: list[str], choices: MigrationChoices, notes: list[str]) -> str:
    if len(production) == 1:
        return production[0]
    if not choices.newest:
        raise _Undecidable(
            f"versions {short_list(production)} are all in Production, but there can be only one champion: pass "
            "--newest to take the newest, or archive all but one in MLflow"
        )
    notes.append(
        f"the newest of versions {short_list(production)} in Production becomes champion; the others: Archived"
    )
    return production[-1]


def _challenger(
    alias: str | None, champion: str | None, staged: list[str], choices: MigrationChoices, notes: list[str]
) -> str | None:
    if not staged or alias in staged:
        return alias
    if alias == champion:  # a version in Production is not a challenger
        alias = None
    newest = staged[-1]
    if len(staged) > 1:
        notes.append(f"versions {short_list(staged)} are in Staging; the newest gets the alias {ALIAS_CHALLENGER}")
    return newest if alias is None else _preferred(ALIAS_CHALLENGER, "Staging", alias, newest, choices)


def _preferred(alias: str, stage: str, pointed_at: str, staged: str, choices: MigrationChoices) -> str:
    if choices.prefer is None:
        raise _Undecidable(
            f"alias {alias} is at version {pointed_at}, but version {staged} is in {stage}: pass --prefer aliases or "
            "--prefer stages"
        )
    return staged if choices.prefer == "stages" else pointed_at


def _unfit(alias: str, version: str | None, before: str | None, ready: set[str]) -> Iterator[str]:
    if version is not None and version != before and version not in ready:
        yield f"version {version} is not READY, so it cannot have the alias {alias}"


def _wanted(
    by_stage: Mapping[str, list[str]], champion: str | None, challenger: str | None
) -> Iterator[tuple[str, Stage]]:
    """Yield the stage of every version that has a stage and gets no alias for it."""
    taken = {champion, challenger}
    for number in by_stage["Staging"]:
        if number not in taken:
            yield number, "Staging"
    for number in (*by_stage["Archived"], *by_stage["Production"]):
        if number not in taken:
            yield number, "Archived"
