"""What is wrong with the champions of registered models, and which model needs attention first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_DRIFT_VERDICT, TAG_GATE_VERDICT
from airflow_mcp.core.gate.rules.verdicts import OPENING
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
from airflow_mcp.core.registry.history import recent_moves, recorded_moves, unrecorded_moves
from airflow_mcp.core.registry.load_check import why_unusable
from airflow_mcp.core.registry.moves import MoveRecord, read_last_move, unfinished_move
from airflow_mcp.core.registry.rehearsal import failed_rehearsal

ConcernKind = Literal[
    "champion_deleted",
    "champion_unusable",
    "champion_missing",
    "verdict_taken_back",
    "moved_outside",
    "interrupted",
    "verdict_unknown",
    "no_way_back",
    "way_back_not_ready",
    "drifted",
    "drift_unknown",
    "never_promoted",
]
"""The worst first."""
_PROBLEMS: tuple[ConcernKind, ...] = (
    "champion_deleted",
    "champion_unusable",
    "champion_missing",
    "verdict_taken_back",
)
_ORDER: tuple[ConcernKind, ...] = get_args(ConcernKind)


@dataclass(frozen=True)
class Concern:
    """One thing that a person should look at."""

    kind: ConcernKind
    says: str

    @property
    def level(self) -> Literal["problem", "warning", "note"]:
        """``problem`` when the champion cannot be used or should not be; ``note`` when nothing is wrong."""
        return "problem" if self.kind in _PROBLEMS else "note" if self.kind == "never_promoted" else "warning"

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON values."""
        return {"kind": self.kind, "level": self.level, "says": self.says}


@dataclass(frozen=True)
class Standing:
    """The champion of one registered model, and what is wrong with it, the worst first."""

    model_name: str
    champion: str | None
    since: str
    """When it became champion, ISO 8601; empty when that is not recorded."""
    concerns: tuple[Concern, ...]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Order among other models: the worst concern first, then the number of concerns, then the name."""
        worst = _ORDER.index(self.concerns[0].kind) if self.concerns else len(_ORDER)
        return worst, -len(self.concerns), self.model_name

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "model_name": self.model_name,
            "champion": self.champion,
            "since": self.since,
            "concerns": [concern.to_json() for concern in self.concerns],
        }


@dataclass(frozen=True)
class Facts:
    """What was read about registered models, besides the models themselves."""

    deleted: Collection[tuple[str, str]] = ()
    """Model and number of each version that an alias points at and that was deleted."""
    failed: Mapping[tuple[str, str], ModelVersion] = field(default_factory=dict)
    """Versions whose load check failed, by model and number."""
    not_ready: Mapping[str, Mapping[str, ModelVersion]] = field(default_factory=dict)
    """Versions whose latest rehearsal did not pass, by model and number."""
    judged: Mapping[str, Run | None] | None = field(default_factory=dict)
    """MLflow runs of champions, by id; None for a run that was not found; None as a whole: not read."""
    drift: Mapping[str, Run] = field(default_factory=dict)
    """The latest drift check of each model, by model."""


def champion_record(model: RegisteredModel) -> MoveRecord | None:
    """Return the record of the latest move that made the present champion the champion."""
    champion = model.aliases.get(ALIAS_CHAMPION)
    for moves in (recent_moves, recorded_moves):  # older records are unpacked only when they are needed
        for move in reversed(moves(model)):
            if move.champion_after == champion:
                return move
    return None


def assess(model: RegisteredModel, facts: Facts) -> Standing:
    """Return the standing of a model.

    :param model: the registered model as MLflow keeps it, with aliases of deleted versions.
    :param facts: what else was read.
    """
    record = champion_record(model)
    found = (
        *_of_champion(model, facts),
        *_of_verdict(record, facts),
        *_of_moves(model, facts),
        *_of_way_back(model, facts),
        *_of_rehearsal(model, facts),
        *_of_drift(model, record, facts),
    )
    ordered = sorted(found, key=lambda concern: _ORDER.index(concern.kind))
    champion = model.aliases.get(ALIAS_CHAMPION)
    is_deleted = (model.name, champion) in facts.deleted
    return Standing(model.name, None if is_deleted else champion, record.at if record else "", tuple(ordered))


def worst_first(standings: Iterable[Standing]) -> list[Standing]:
    """Return standings, those that need attention first."""
    return sorted(standings, key=lambda standing: standing.rank)


def _of_champion(model: RegisteredModel, facts: Facts) -> Iterable[Concern]:
    champion = model.aliases.get(ALIAS_CHAMPION)
    if champion is None:
        if recent_moves(model) or read_last_move(model.tags):
            says = "there is no champion, although there was one: its alias was removed, or its version deleted"
            yield Concern("champion_missing", says)
        else:
            yield Concern("never_promoted", "no version has been promoted yet")
    elif (model.name, champion) in facts.deleted:
        yield Concern("champion_deleted", f"alias champion points at version {champion}, which was deleted")
    elif (version := facts.failed.get((model.name, champion))) and (reason := why_unusable(version)):
        yield Concern("champion_unusable", f"version {champion} cannot be used: {reason}")


def _of_verdict(record: MoveRecord | None, facts: Facts) -> Iterable[Concern]:
    """Compare the gate's verdict now with the one at the promotion; a move without a gate has nothing to take back."""
    if record is None or facts.judged is None or record.gate_verdict not in OPENING or not record.run_id:
        return
    run = facts.judged.get(record.run_id)
    if run is None:
        why = "it was deleted, or this account may not read it"
        yield Concern("verdict_unknown", f"its gate verdict is not known: MLflow run {record.run_id} is gone ({why})")
        return
    now = run.tags.get(TAG_GATE_VERDICT, "")
    if now and now not in OPENING:
        yield Concern(
            "verdict_taken_back", f"the gate's verdict is {now} now; it was {record.gate_verdict} at the promotion"
        )


def _of_moves(model: RegisteredModel, facts: Facts) -> Iterable[Concern]:
    champion, last = model.aliases.get(ALIAS_CHAMPION), read_last_move(model.tags)
    is_deleted = (model.name, champion) in facts.deleted
    outside = [move for move in unrecorded_moves(model) if move.alias == ALIAS_CHAMPION]
    if outside and champion is not None and not is_deleted:
        yield Concern(
            "moved_outside",
            f"champion was moved outside airflow-mcp; see airflow-mcp registry history {model.name}",
        )
    elif unfinished_move(model.aliases, model.tags):
        yield Concern("interrupted", "a move is in progress, or was interrupted; the next move completes it")
    elif not outside and last is not None and champion not in (None, last.champion_after):
        yield Concern("interrupted", "a move is in progress, or was interrupted before the alias moved")


def _of_way_back(model: RegisteredModel, facts: Facts) -> Iterable[Concern]:
    previous = model.aliases.get(ALIAS_PREVIOUS_CHAMPION)
    if previous is None:
        return
    if (model.name, previous) in facts.deleted:
        yield Concern("no_way_back", f"alias previous_champion points at version {previous}, which was deleted")
    elif (version := facts.failed.get((model.name, previous))) and (reason := why_unusable(version)):
        yield Concern("no_way_back", f"previous_champion, version {previous}, cannot be used: {reason}")


def _of_rehearsal(model: RegisteredModel, facts: Facts) -> Iterable[Concern]:
    champion = model.aliases.get(ALIAS_CHAMPION)
    rehearsal = failed_rehearsal(model.name, champion, facts.not_ready.get(model.name, {}))
    if rehearsal is not None:
        says = f"the way back to version {rehearsal.version} is not ready: its rehearsal {rehearsal}"
        yield Concern("way_back_not_ready", says)


def _of_drift(model: RegisteredModel, record: MoveRecord | None, facts: Facts) -> Iterable[Concern]:
    """Report the latest drift check, unless a champion was promoted after it."""
    check = facts.drift.get(model.name)
    if check is None or model.aliases.get(ALIAS_CHAMPION) is None:
        return
    at = datetime.fromtimestamp((check.end_time or check.start_time or 0) / 1000, UTC).isoformat(timespec="seconds")
    if record is not None and record.at[:19] > at[:19]:
        return
    verdict = check.tags.get(TAG_DRIFT_VERDICT, "")
    if verdict == "drifted":
        yield Concern("drifted", f"its data drifted at {at}, and no version was promoted since (run {check.run_id})")
    elif verdict == "inconclusive":
        yield Concern("drift_unknown", f"its drift check at {at} was inconclusive (run {check.run_id})")
