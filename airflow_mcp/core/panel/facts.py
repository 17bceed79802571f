"""The facts that the pages show, made from what was read; a part that could not be read is None, and a note says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.approvals.cycle import Cycle
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.rules.verdicts import OPENING
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
from airflow_mcp.core.panel.approvals import OpenQuestion
from airflow_mcp.core.panel.state import ModelState
from airflow_mcp.core.registry.history import ChampionAt, Change, Timeline
from airflow_mcp.core.registry.load_check import LoadCheck, read_load_check, why_unusable
from airflow_mcp.core.registry.moves import storable_text
from airflow_mcp.core.registry.standing import Standing
from airflow_mcp.core.rollout.state import Journal
from airflow_mcp.core.serving.traffic import RolloutDocument

TAG_OWNER, TAG_RISK = "airflow_mcp.owner", "airflow_mcp.risk"
"""On a registered model: who is responsible, and how much harm a wrong model does; shown and searched for."""
PROVENANCE: Mapping[str, str] = {
    "gate verdict": contract.TAG_GATE_VERDICT,
    "source verdict": contract.TAG_COPIED_GATE_VERDICT,
    "copy run": contract.TAG_COPY_RUN,
    "reason": contract.TAG_REASON,
    "data version": contract.TAG_DATA_VERSION,
    "data hash": contract.TAG_DATA_HASH,
    "code commit": contract.TAG_CODE_COMMIT,
    "config hash": contract.TAG_CONFIG_HASH,
    "image": contract.TAG_IMAGE,
    "Dag run": contract.TAG_DAG_RUN_ID,
    "rolled back": contract.TAG_ROLLED_BACK,
}
"""What is said of a version's origin, and the tag that keeps it."""


MOST_CYCLES = 5
"""Newest versions of which the page of a model says how long they took."""


@dataclass(frozen=True)
class DriftCheck:
    """One drift check of a model."""

    run_id: str
    at: datetime
    window: str
    """Version of the data that was checked."""
    share: float | None
    """Share of drifted columns; None when none was compared."""
    verdict: str


@dataclass(frozen=True)
class VersionFacts:
    """One version of a model."""

    number: str
    run_id: str
    status: str
    registered: datetime
    load_check: LoadCheck | None
    unusable: str
    """Why it cannot be used; empty when it may be usable."""
    gate: str
    """The gate's decision; empty when no gate judged it."""
    provenance: Mapping[str, str]

    @property
    def can_be_promoted(self) -> bool:
        """Whether neither its gate nor its load check speaks against a promotion."""
        return self.gate in OPENING and not self.unusable


@dataclass(frozen=True)
class RolloutFacts:
    """The rollout of a model that is in progress, or that watches the new champion in its bake time."""

    document: RolloutDocument
    journal: Journal | None
    trouble: str = ""
    """Why it is in trouble; empty when it is not."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a person."""
        return self.document.phase == "WAITING"

    @property
    def is_baking(self) -> bool:
        """Whether the version is the champion already, and goes back by itself if it fails now."""
        return self.document.phase == "BAKING"

    @property
    def watched_until(self) -> datetime | None:
        """End of the bake time if the servers can be looked at then; None when it is not known."""
        since = self.document.step_since
        if not self.is_baking or self.journal is None or since is None:
            return None
        return since + timedelta(seconds=self.journal.plan.bake)


@dataclass(frozen=True)
class AuditLine:
    """One record of the audit log."""

    seq: int
    at: str
    action: str
    by: str
    reason: str


@dataclass(frozen=True)
class ListRow:
    """What the list shows of one model."""

    name: str
    owner: str
    risk: str
    dag_id: str
    """Dag that trains it; decides who may see it."""
    standing: Standing
    state: ModelState
    newest: str
    """Newest version; empty when there is none."""
    gate: str
    """Decision on the newest version; empty when no gate judged it."""
    previous: str | None
    moves: int
    checks: tuple[DriftCheck, ...]
    """Oldest first."""

    @property
    def since(self) -> datetime | None:
        """When the champion became champion; None when that is not known."""
        return moment(self.standing.since)

    @property
    def searched(self) -> str:
        """The text that a search looks in, in lower case."""
        return f"{self.name} {self.owner} {self.risk} {self.dag_id}".lower()


@dataclass(frozen=True)
class ModelFacts:
    """What the page of one model shows."""

    model: RegisteredModel
    standing: Standing
    state: ModelState
    timeline: Timeline
    versions: tuple[VersionFacts, ...]
    """Newest first; the newest ones, and those that aliases name."""
    checks: tuple[DriftCheck, ...] | None
    """Oldest first."""
    drift_limit: float | None
    drifted_columns: tuple[tuple[str, str, float | None, float | None], ...]
    """Of the latest check: column, method, score and threshold, the worst first."""
    gate: GateReport | None
    gate_version: str
    """The version that the gate report is about; empty when it is about a candidate that was not registered."""
    retraining: Mapping[str, Any] | None
    rollout: RolloutFacts | None
    audit: tuple[AuditLine, ...] | None = None
    """Newest first; None when there is no audit log, or it was not read for the caller."""
    cycles: Mapping[str, Cycle] = field(default_factory=dict)
    """By version, the newest first: when each step of its release was done, as far as the audit log knows."""
    questions: tuple[OpenQuestion, ...] = ()
    """Releases of the model that wait for people."""
    at: ChampionAt | None = None
    """Set when the page is about a moment in the past."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By card: why a part could not be read, as a text of the catalogue."""

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return self.model.name

    @property
    def dag_id(self) -> str:
        """Dag that trains the model; empty when no version records one."""
        return dag_of(self.model)

    def version(self, number: str | None) -> VersionFacts | None:
        """Return a version by its number; None when it was not read."""
        return next((version for version in self.versions if version.number == number), None)

    @property
    def champion(self) -> VersionFacts | None:
        """The version in production; None when there is none."""
        return self.version(self.standing.champion)

    @property
    def way_back(self) -> VersionFacts | None:
        """The version that a rollback goes to; None when there is none."""
        return self.version(self.model.aliases.get(contract.ALIAS_PREVIOUS_CHAMPION))

    @property
    def since(self) -> Change | None:
        """The change that made the champion the champion; None when none is known."""
        made = [change for change in self.timeline.changes if change.after == self.standing.champion]
        return made[-1] if made and self.standing.champion else None


def dag_of(model: RegisteredModel) -> str:
    """Return the Dag that trains a model: a tag of the model, or else of its newest version."""
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    return model.tags.get(contract.TAG_DAG_ID) or (newest.tags.get(contract.TAG_DAG_ID, "") if newest else "")


def version_facts(version: ModelVersion) -> VersionFacts:
    """Return the facts about a version."""
    return VersionFacts(
        number=version.version,
        run_id=version.tags.get(contract.TAG_COPY_RUN) or version.run_id,
        status=version.status,
        registered=from_milliseconds(version.creation_timestamp),
        load_check=read_load_check(version.tags),
        unusable=why_unusable(version),
        gate=version.tags.get(contract.TAG_GATE_VERDICT, ""),
        provenance={label: version.tags[tag] for label, tag in PROVENANCE.items() if version.tags.get(tag)},
    )


def drift_check(run: Run) -> DriftCheck:
    """Return the facts about a drift check from its MLflow run."""
    return DriftCheck(
        run_id=run.run_id,
        at=from_milliseconds(run.end_time or run.start_time or 0),
        window=run.tags.get(contract.TAG_DATA_VERSION, ""),
        share=run.metrics.get("drift_share"),
        verdict=run.tags.get(contract.TAG_DRIFT_VERDICT, ""),
    )


def audit_line(seq: int, recorded_at: str, event: Mapping[str, Any]) -> AuditLine:
    """Return the facts about a record of the audit log.

    :param seq: number of the record.
    :param recorded_at: time of the store.
    :param event: the event as the log keeps it.
    """
    actor = event.get("actor") or {}
    by = str(actor.get("on_behalf_of") or actor.get("name") or "")
    return AuditLine(seq, recorded_at, str(event.get("action", "")), by, storable_text(event.get("reason")))


def drift_trouble(checks: Sequence[DriftCheck], since: datetime | None) -> DriftCheck | None:
    """Return the latest check, unless a champion was promoted after it."""
    latest = checks[-1] if checks else None
    return None if latest is None or (since is not None and since > latest.at) else latest


def from_milliseconds(time: int) -> datetime:
    """Return a time of MLflow."""
    return datetime.fromtimestamp(time / 1000, UTC)


def moment(text: str) -> datetime | None:
    """Return a time that was written as ISO 8601, in UTC when it names no zone; None when it is not one."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
