"""The state of a rollout: its document and record in the registry, and its journal of measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from airflow_mcp.core.document import Document, dump_document, parse_document
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.rollout.plan import RolloutPlan
from airflow_mcp.core.rollout.samples import Pair, ReplicaSample
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, TAG_ROLLOUT_LEASE, RolloutDocument, read_rollout

TAG_ROLLOUT_RECORD = "airflow_mcp.rollout_record."
"""On the canary's version, before the identity of the rollout: how it went."""
KIND_ROLLOUT = "rollout"
ARTIFACT_JOURNAL = "rollout/journal.json"
ARTIFACT_REPORT_JSON = "rollout/report.json"
ARTIFACT_REPORT_HTML = "rollout/report.html"
MAX_POINTS = 400
"""Looks that the journal keeps; when there are more, neighbours are added up."""
RECENT = timedelta(minutes=5)
"""Requests of the last one to two times this time are judged by themselves too."""
Cause = Literal["", "analysis", "inconclusive", "breaker", "timeout", "aborted", "superseded", "refused", "lost"]


class RolloutRecord(Document):
    """The tag :data:`TAG_ROLLOUT_RECORD` of the canary's version."""

    schema_: Literal["airflow_mcp/rollout_record/1"] = Field(default="airflow_mcp/rollout_record/1", alias="schema")
    phase: Literal["PROMOTING", "BAKING", "SUCCEEDED", "FAILED"]
    stable: str
    since: AwareDatetime
    """When the phase began."""
    cause: Cause = ""
    reason: str = ""
    run_id: str = ""
    by: str = ""


@dataclass(frozen=True)
class RolloutState:
    """What the registry says about the rollout of a model."""

    champion: ModelVersion | None
    document: RolloutDocument | None
    """The document of the champion, also when it has ended; None when there is none that can be read."""
    error: str = ""
    """Why a document that exists cannot be read."""
    lease: str = ""
    """Until when the split counts if the document says ``on_lost: stable``, as the tag has it."""

    @classmethod
    def of(cls, champion: ModelVersion | None) -> RolloutState:
        """Return the state that the tags of the champion's version describe.

        :param champion: the champion's version as it was read; None when there is none.
        """
        if champion is None:
            return cls(None, None)
        source = f"tag {TAG_ROLLOUT!r} of version {champion.version} of {champion.name!r}"
        return cls(champion, *read_rollout(champion.tags, source), champion.tags.get(TAG_ROLLOUT_LEASE, ""))

    @property
    def active(self) -> RolloutDocument | None:
        """The document, if its split counts."""
        document, champion = self.document, self.champion
        if document is None or champion is None or not document.counts_for(champion.version):
            return None
        return document


def ended_document(
    document: RolloutDocument, phase: Literal["SUCCEEDED", "FAILED"], reason: str, **changes: object
) -> RolloutDocument:
    """Return the document of a rollout that is over: the canary is asked nothing any more.

    :param document: the document before.
    :param phase: how it ended.
    :param reason: why, for people.
    :param changes: other fields that change.
    """
    return document.model_copy(update={"phase": phase, "weight": 0.0, "shadow": 0.0, "reason": reason, **changes})


def ended_split(version: ModelVersion) -> str:
    """Return the tag :data:`~airflow_mcp.core.serving.traffic.TAG_ROLLOUT` that ends a split left on a version.

    A version that becomes champion again must not bring back the split of a rollout that is over.

    :param version: the version that is about to become champion.
    :return: the tag's new value; empty when no split would come back.
    """
    document = RolloutState.of(version).document
    if document is None or not document.is_active:
        return ""
    reason = "superseded: the alias champion was moved meanwhile"
    ended = ended_document(document, "FAILED", reason, generation=document.generation + 1)
    return dump_document(ended, indent=None)


def record_of(version: ModelVersion, identity: str) -> RolloutRecord | None:
    """Return how a rollout went, from the tags of its canary; None when nothing is recorded.

    :param version: the canary's version.
    :param identity: identity of the rollout.
    :raises EvidenceError: when the record cannot be read.
    """
    text = version.tags.get(TAG_ROLLOUT_RECORD + identity, "")
    source = f"tag {TAG_ROLLOUT_RECORD + identity!r} of version {version.version} of {version.name!r}"
    return parse_document(RolloutRecord, text, source) if text else None


class ReplicaTally(Document):
    """Counts of one replica since the split came into force."""

    started: float
    before: Pair
    """Counters when the split came into force, or 0 for a process that started later."""
    now: Pair
    """Counters at the last look."""
    ended: Pair = Field(default_factory=Pair)
    """Counts of processes of this replica that have ended since."""

    @property
    def total(self) -> Pair:
        """Requests since the split came into force."""
        return self.ended.plus(self.now.plus(self.before, -1))


class Mark(Document):
    """What all replicas together had counted at one look."""

    at: AwareDatetime
    total: Pair


class Tally(Document):
    """Counts of all replicas, of each since it follows one generation of the split."""

    generation: int
    since: AwareDatetime | None = None
    """When the first look found that every replica follows; None before."""
    replicas: dict[str, ReplicaTally] = Field(default_factory=dict)
    shared: tuple[str, ...] = ()
    """Addresses at which several processes answer in turn."""
    marks: tuple[Mark, ...] = ()
    """The last two, at least :data:`RECENT` apart."""

    @property
    def total(self) -> Pair:
        """Requests of all replicas, also of those that are gone."""
        found = Pair()
        for replica in self.replicas.values():
            found = found.plus(replica.total)
        return found

    @property
    def recent(self) -> Pair | None:
        """Requests since the older mark; None while there are not two."""
        return self.total.plus(self.marks[0].total, -1) if len(self.marks) > 1 else None

    def marked(self, now: datetime) -> Tally:
        """Return the tally with a mark at this look, if it is time for one.

        :param now: time of the look.
        """
        if self.marks and now - self.marks[-1].at < RECENT:
            return self
        total = self.total
        sides = {"canary": total.canary, "champion": total.champion}
        # The shift of predictions is judged by the whole step, and its counts are most of the journal's size.
        small = {name: side.model_copy(update={"classes": {}, "ranges": {}}) for name, side in sides.items()}
        mark = Mark(at=now, total=total.model_copy(update=small))
        return self.model_copy(update={"marks": (*self.marks[-1:], mark)})


class Point(Document):
    """What happened between two looks."""

    at: AwareDatetime
    weight: float
    canary: float = 0
    """Answers of the canary."""
    canary_failed: float = 0
    champion: float = 0
    champion_failed: float = 0


class Queried(Document):
    """What a rule on a query has shown since one generation of the split came into force."""

    generation: int
    value: float | None = None
    """The latest result of the query; None when it had no result that is one number."""
    met: Annotated[int, Field(ge=0)] = 0
    """Looks in a row at which the rule held."""
    broken: Annotated[int, Field(ge=0)] = 0
    """Looks in a row at which it did not."""


class Event(Document):
    """One change of the state."""

    at: AwareDatetime
    phase: str
    weight: float
    generation: int
    step: int = 0
    reason: str = ""


class Journal(Document):
    """What a rollout has measured, as its MLflow run keeps it.

    Counters are kept as they were read, not as increments, so a look that is stored twice or not at all counts nothing
    twice and loses nothing.
    """

    schema_: Literal["airflow_mcp/rollout_journal/1"] = Field(default="airflow_mcp/rollout_journal/1", alias="schema")
    identity: str
    plan: RolloutPlan
    model_name: str
    stable: str
    canary: str
    started: AwareDatetime
    looked: AwareDatetime | None = None
    """Time of the last look that succeeded."""
    errors: Annotated[int, Field(ge=0)] = 0
    """Looks in a row that failed."""
    error: str = ""
    lagging: tuple[str, ...] = ()
    """Replicas that follow an older split."""
    unready: tuple[str, ...] = ()
    """Replicas on which the canary cannot answer."""
    tripped: tuple[str, ...] = ()
    """Replicas on which the breaker of the canary is open."""
    replicas: int = 0
    tally: Tally | None = None
    queried: dict[str, Queried] = Field(default_factory=dict)
    """What the rules on queries have shown, by the rule."""
    points: tuple[Point, ...] = ()
    events: tuple[Event, ...] = ()

    def followed(self, generation: int) -> datetime | None:
        """Return since when every replica follows a generation of the split; None when that was not seen yet."""
        return self.tally.since if self.tally is not None and self.tally.generation == generation else None


def parse_journal(text: str | bytes, run_id: str) -> Journal:
    """Read a journal as its MLflow run keeps it.

    :param text: content of :data:`ARTIFACT_JOURNAL`.
    :param run_id: the MLflow run, for the message.
    :raises EvidenceError: when it cannot be read.
    """
    return parse_document(Journal, text, f"{ARTIFACT_JOURNAL} of MLflow run {run_id}")


def observe(
    journal: Journal,
    document: RolloutDocument | None,
    samples: Iterable[ReplicaSample],
    now: datetime,
    results: Mapping[str, float | None] = MappingProxyType({}),
) -> Journal:
    """Return the journal after a look that succeeded.

    A replica is counted from the look that finds it following the split, and one that appears when all follow, from its
    first look. One that restarts is counted on from 0, and one that vanishes keeps what it had counted. A process that
    answers at two addresses is counted once. A look fails when an address is that of several processes, of which each
    look would find another one. While the promotion is due, the split before it is counted on, because it is the same.

    :param journal: the journal before.
    :param document: the document of the split; None when the canary is champion already.
    :param samples: what every replica says.
    :param now: present time, with a time zone.
    :param results: result of each query of the plan, by its name; None when it is not one number.
    """
    found = _processes(journal.tally, samples)
    generation = document.generation if document is not None else 0
    lagging = tuple(each.replica for each in found if document is not None and each.generation != generation)
    counted = None
    if document is not None:
        is_known = journal.tally is not None and (
            journal.tally.generation == generation or document.phase == "PROMOTING"
        )
        counted = journal.tally if is_known else Tally(generation=generation)
    if counted is not None and counted.since is None and found and not lagging:
        counted = counted.model_copy(update={"since": now})
    after = _counted(counted, found, now)
    error = _why_shared(after)
    return journal.model_copy(
        update={
            "looked": now,
            "errors": journal.errors + 1 if error else 0,
            "error": error,
            "replicas": len(found),
            "lagging": lagging,
            "unready": tuple(each.replica for each in found if journal.canary not in each.ready),
            "tripped": tuple(each.replica for each in found if journal.canary in each.tripped),
            "queried": _queried(journal, counted, results),
            "tally": after if after is not None else journal.tally,
            "points": _with_point(journal, document, counted, after, now),
        }
    )


def observe_error(journal: Journal, error: str) -> Journal:
    """Return the journal after a look that failed.

    :param journal: the journal before.
    :param error: what went wrong.
    """
    return journal.model_copy(update={"errors": journal.errors + 1, "error": error})


def with_event(journal: Journal, document: RolloutDocument, now: datetime) -> Journal:
    """Return the journal after a change of the state; the same change is noted once.

    :param journal: the journal before.
    :param document: the document that was written.
    :param now: present time, with a time zone.
    """
    if any((each.generation, each.phase) == (document.generation, document.phase) for each in journal.events):
        return journal
    event = Event(
        at=now,
        phase=document.phase,
        weight=document.weight,
        generation=document.generation,
        step=document.step,
        reason=document.reason,
    )
    return journal.model_copy(update={"events": (*journal.events, event), "errors": 0, "error": ""})


def _queried(journal: Journal, tally: Tally | None, results: Mapping[str, float | None]) -> dict[str, Queried]:
    """Count at how many looks in a row each rule on a query held; nothing counts before all replicas follow."""
    found: dict[str, Queried] = {}
    if tally is None or tally.since is None:
        return found
    for rule in journal.plan.thresholds:
        if rule.metric not in results:
            continue
        value, before = results[rule.metric], journal.queried.get(str(rule))
        if before is None or before.generation != tally.generation or value is None:
            before = Queried(generation=tally.generation)
        holds = value is not None and rule.holds(value, rule.threshold)
        found[str(rule)] = Queried(
            generation=tally.generation,
            value=value,
            met=before.met + 1 if holds else 0,
            broken=before.broken + 1 if value is not None and not holds else 0,
        )
    return found


def _processes(tally: Tally | None, samples: Iterable[ReplicaSample]) -> list[ReplicaSample]:
    """Return one sample of each process: a pod with an IPv4 and an IPv6 address answers at both.

    Servers say when they started with a precision of microseconds, so the same time is the same process.
    """
    known = tally.replicas if tally is not None else {}
    found: dict[float, ReplicaSample] = {}
    for sample in sorted(samples, key=lambda sample: (sample.replica not in known, sample.replica)):
        found.setdefault(sample.started, sample)
    return sorted(found.values(), key=lambda sample: sample.replica)


def _why_shared(tally: Tally | None) -> str:
    if tally is None or not tally.shared:
        return ""
    return (
        f"several processes answer in turn at {', '.join(tally.shared)}, and a look sees only one of them. The "
        "connection must name every replica, for example by a headless Service"
    )


def _counted(tally: Tally | None, samples: list[ReplicaSample], now: datetime) -> Tally | None:
    if tally is None:
        return None
    replicas, shared = dict(tally.replicas), set(tally.shared)
    for sample in samples:
        known = replicas.get(sample.replica)
        if known is None and tally.since is None and sample.generation != tally.generation:
            continue
        if known is None:
            replicas[sample.replica] = ReplicaTally(started=sample.started, before=sample.counts, now=sample.counts)
        elif known.started == sample.started:
            replicas[sample.replica] = known.model_copy(update={"now": sample.counts})
        elif known.started < sample.started:
            replicas[sample.replica] = ReplicaTally(
                started=sample.started, before=Pair(), now=sample.counts, ended=known.total
            )
        else:  # no restart: an older process than the one that answered before is alive as well
            shared.add(sample.replica)
    counted = tally.model_copy(update={"replicas": replicas, "shared": tuple(sorted(shared))})
    return counted.marked(now)


def _with_point(
    journal: Journal, document: RolloutDocument | None, before: Tally | None, after: Tally | None, now: datetime
) -> tuple[Point, ...]:
    if document is None or before is None or after is None:
        return journal.points
    new = after.total.plus(before.total, -1)
    point = Point(
        at=now,
        weight=document.weight,
        canary=new.canary.answered,
        canary_failed=new.canary.failed,
        champion=new.champion.answered,
        champion_failed=new.champion.failed,
    )
    points = (*journal.points, point)
    return points if len(points) <= MAX_POINTS else _merged(points)


def _merged(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Add up neighbours with the same weight, two by two."""
    merged: list[Point] = []
    waiting: Point | None = None
    for point in points:
        if waiting is None or waiting.weight != point.weight:
            merged += [waiting] if waiting is not None else []
            waiting = point
            continue
        names = ("canary", "canary_failed", "champion", "champion_failed")
        merged.append(point.model_copy(update={name: getattr(waiting, name) + getattr(point, name) for name in names}))
        waiting = None
    return (*merged, waiting) if waiting is not None else tuple(merged)
