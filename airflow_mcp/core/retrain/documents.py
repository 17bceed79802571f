"""The three JSON documents about the retraining of one model, each with one writer and a bounded size.

``retrain_ledger`` is written by the task that decides, ``retrain_outcomes`` by the task that ends a training Dag, and
``retrain_control`` by people. The ledger copies what it reads from the other two, so that it alone explains every
decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, Field

from airflow_mcp.core.document import Document, parse_document
from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.quality.summary import QualityVerdict
from airflow_mcp.exceptions import EvidenceError

LEDGER_KEY, OUTCOMES_KEY, CONTROL_KEY = "retrain_ledger", "retrain_outcomes", "retrain_control"
"""Keys in the state store of the ledger's asset."""
LedgerSchema = Literal["airflow_mcp/retrain/1"]
SCHEMA: LedgerSchema = "airflow_mcp/retrain/1"

RetrainVerdict = Literal["retrain", "not_now", "not_needed", "inconclusive"]
"""``not_now``: needed, but there is an objection. ``inconclusive``: a fact that decides is not known."""
TrainingOutcome = Literal["promoted", "registered", "rejected", "inconclusive", "unchanged", "failed", "vanished"]
"""How a training ended. ``registered``: it passed the gate and was not promoted. ``vanished``: its Dag run no longer
exists."""
CONCLUSIVE: frozenset[TrainingOutcome] = frozenset({"promoted", "registered", "rejected"})
"""Outcomes that answer the reason for the training; after any other outcome it is still needed."""
WindowKind = Literal["drift", "quality"]
"""Which check has judged a window."""
WindowAnswer = DriftVerdict | QualityVerdict
RunState = Literal["missing", "queued", "running", "success", "failed"]
RetrainAction = Literal["none", "trigger", "adopt"]
"""``adopt``: add a Dag run to the ledger that Airflow already has."""

LABEL_LENGTH, HASH_LENGTH, RUN_ID_LENGTH, NOTE_LENGTH, WORDS_LENGTH = 80, 100, 250, 120, 400
EXPLANATION_LENGTH = 3000
Label = Annotated[str, Field(max_length=LABEL_LENGTH)]
Hash = Annotated[str, Field(max_length=HASH_LENGTH)]
RunId = Annotated[str, Field(max_length=RUN_ID_LENGTH)]
Note = Annotated[str, Field(max_length=NOTE_LENGTH)]
Words = Annotated[str, Field(max_length=WORDS_LENGTH)]
KEPT_OUTCOMES, KEPT_CONTROLS = 40, 20
TAKEN_AT_ONCE = 5
"""At most so many reports, and so many controls, enter one decision, so that no entry becomes large."""


class WindowVerdict(Document):
    """The verdict of a drift check or a quality check on one window of data."""

    name: Label
    """Every check of the same window uses the same name."""
    kind: WindowKind = "drift"
    verdict: WindowAnswer
    end: AwareDatetime | None = None
    """End of the window's data; None: the time of its first verdict."""


class OutcomeReport(Document):
    """How one training ended."""

    seq: int
    """Position among the reports of a model."""
    dag_id: RunId
    run_id: RunId
    outcome: TrainingOutcome
    detail: Note = ""
    data_version: Label = ""
    data_hash: Hash = ""
    mlflow_run_id: Label = ""
    at: AwareDatetime


class Control(Document):
    """A pause or resume by a person."""

    seq: int
    action: Literal["pause", "resume"]
    by: Label
    at: AwareDatetime
    reason: Words = ""


class OpenRun(Document):
    """What Airflow and MLflow know about the training that is open in the ledger."""

    run_id: RunId
    state: RunState
    outcome: TrainingOutcome | None = None
    """Outcome that MLflow shows when the run has ended without a report."""
    detail: Note = ""


class Observation(Document):
    """Everything that one decision depends on, apart from the ledger and the policy."""

    at: AwareDatetime
    by: Words
    """Dag, task and Dag run."""
    dag_id: RunId
    """Dag that trains."""
    data_version: Label
    data_hash: Hash
    window: WindowVerdict | None = None
    quality: tuple[WindowVerdict, ...] = ()
    """Windows of predictions that a quality check has judged."""
    has_champion: bool | None = None
    champion_since: AwareDatetime | None = None
    latest_training: Label = ""
    """MLflow run of the model's latest training; empty when there is none."""
    latest_training_at: AwareDatetime | None = None
    data_concluded: Words = ""
    """How a training on the same data ended, as MLflow shows it."""
    rows: int | None = None
    labels: int | None = None
    """Total counts, which only grow; None: not known."""
    reports: tuple[OutcomeReport, ...] = ()
    """Reports that the ledger has not seen yet."""
    controls: tuple[Control, ...] = ()
    open_run: OpenRun | None = None
    other_runs: int = 0
    """Further runs of the training Dag that are queued or running."""
    next_run_exists: bool = False
    """Whether Airflow already has a Dag run with the name of the next training."""


class RetrainDecision(Document):
    """A decision, as the ledger records it."""

    verdict: RetrainVerdict
    action: RetrainAction = "none"
    run_id: RunId = ""
    """Dag run that is triggered or adopted."""
    reasons: tuple[Words, ...] = ()
    """Reasons to retrain."""
    objections: tuple[Words, ...] = ()
    """Reasons not to retrain now; one is enough."""
    unknowns: tuple[Words, ...] = ()
    """Facts that would have to be known."""
    explanation: Annotated[str, Field(max_length=EXPLANATION_LENGTH)]

    @property
    def retrain(self) -> bool:
        """Whether to train now."""
        return self.verdict == "retrain"

    def to_json(self) -> dict[str, Any]:
        """Return it as the audit log and XCom hold it."""
        return {
            "verdict": self.verdict,
            "explanation": self.explanation,
            "reasons": list(self.reasons),
            "objections": list(self.objections),
            "unknowns": list(self.unknowns),
            "triggered_run_id": self.run_id if self.action == "trigger" else "",
        }


class Window(Document):
    """One window with its latest verdict."""

    name: Label
    kind: WindowKind = "drift"
    verdict: WindowAnswer
    end: AwareDatetime
    judged_at: AwareDatetime
    data_hash: Hash
    seq: int
    """Entry with this verdict."""
    answered: bool = False
    """Whether a judged training has answered it."""


class DriftNeed(Document):
    """Drift or degradation that no training has answered yet."""

    kind: WindowKind = "drift"
    """What asked first."""
    since: AwareDatetime
    seq: int
    """Entry of the latest verdict that asked for it."""
    times: int = 1
    """Number of verdicts that asked for it."""
    data_version: Label
    data_hash: Hash


class Training(Document):
    """One training that this ledger started or adopted."""

    dag_id: RunId
    run_id: RunId
    seq: int
    at: AwareDatetime
    clock: float
    """Ledger time of its start, in seconds."""
    data_version: Label
    data_hash: Hash
    reason: Note = ""
    rows: int | None = None
    labels: int | None = None
    seen: bool = False
    """Whether its Dag run has been seen in Airflow."""
    outcome: TrainingOutcome | None = None
    """None: not known to have ended."""
    detail: Note = ""


class LedgerState(Document):
    """The state after all entries so far."""

    clock: float = 0.0
    """Ledger time in seconds: moves with the wall clock, but never back."""
    clock_offset: float = 0.0
    """Ledger time minus wall clock time."""
    windows: tuple[Window, ...] = ()
    """Oldest first."""
    need: DriftNeed | None = None
    trainings: tuple[Training, ...] = ()
    """Oldest first; at most the last one is open."""
    rejected_in_a_row: int = 0
    paused: Control | None = None
    reports_seen: int = 0
    controls_seen: int = 0
    noticed: Label = ""
    """MLflow run of the latest known training, whoever started it."""
    noticed_clock: float | None = None
    """Ledger time of its start."""
    concluded_clock: float | None = None
    """Ledger time at which a challenger was last judged."""
    rows: int | None = None
    labels: int | None = None
    """Counts at the start of the last training that was judged."""

    @property
    def open_training(self) -> Training | None:
        """The training that has not ended."""
        return self.trainings[-1] if self.trainings and self.trainings[-1].outcome is None else None


class Entry(Document):
    """One decision with its observation and policy."""

    seq: int
    policy: str
    """Key in the ledger's ``policies``."""
    observation: Observation
    answer: RetrainDecision


class Ledger(Document):
    """The record of all decisions; the oldest are folded into ``base``."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    base: LedgerState = LedgerState()
    base_seq: int = 0
    """Number of the last entry that is folded into ``base``."""
    policies: dict[str, dict[str, Any]] = Field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    @property
    def seq(self) -> int:
        """Number of the last entry."""
        return self.entries[-1].seq if self.entries else self.base_seq


class Outcomes(Document):
    """Reports of trainings that have ended, oldest first; the newest are kept."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    seq: int = 0
    entries: tuple[OutcomeReport, ...] = ()


class Controls(Document):
    """Pauses and resumes, oldest first; the newest are kept."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    seq: int = 0
    entries: tuple[Control, ...] = ()


_DocumentT = TypeVar("_DocumentT", Ledger, Outcomes, Controls)


def ledger_name(model_name: str) -> str:
    """Return the name of the Airflow asset whose state store holds the ledger of a model.

    :param model_name: registered model.
    """
    return f"retrain/{quote(model_name, safe='')}"


def read_document(model: type[_DocumentT], value: Any, model_name: str) -> _DocumentT:
    """Read a document of the state store.

    :param model: type of the document.
    :param value: the stored JSON value; None when nothing is stored.
    :param model_name: registered model that it must be about.
    :raises EvidenceError: when it is another document or about another model; nothing is decided from it.
    """
    if value is None:
        return model(model_name=model_name)
    document = parse_document(model, json.dumps(value), f"the stored {model.__name__} of {model_name!r}")
    if document.model_name != model_name:
        raise EvidenceError(
            f"the stored {model.__name__} is about {document.model_name!r}, not about {model_name!r}: two models share "
            "one ledger. Nothing was decided from it; give each model a ledger of its own"
        )
    return document


def plain_document(document: Ledger | Outcomes | Controls) -> dict[str, Any]:
    """Return a document as plain JSON values, without fields that have their default.

    :param document: the document.
    """
    values = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"schema": document.schema_, **values}


def label(text: str, limit: int = LABEL_LENGTH) -> str:
    """Shorten a name so that different names stay different.

    :param text: the name.
    :param limit: characters at most.
    """
    return text if len(text) <= limit else f"{text[: limit - 13]}~{fingerprint(text)[:12]}"


def words(text: str, limit: int = WORDS_LENGTH) -> str:
    """Shorten a text.

    :param text: the text.
    :param limit: characters at most.
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def add_report(outcomes: Outcomes, report: Mapping[str, Any]) -> Outcomes:
    """Add a report; the same report again changes nothing, and a new outcome replaces the old one.

    :param outcomes: the reports so far.
    :param report: fields of an :class:`OutcomeReport` without ``seq``.
    """
    seq = outcomes.seq + 1
    added = OutcomeReport(seq=seq, **report)
    others = []
    for each in outcomes.entries:
        if (each.dag_id, each.run_id) != (added.dag_id, added.run_id):
            others.append(each)
        elif each.outcome == added.outcome and each.mlflow_run_id == added.mlflow_run_id:
            return outcomes
    return outcomes.model_copy(update={"seq": seq, "entries": (*others, added)[-KEPT_OUTCOMES:]})


def add_control(controls: Controls, control: Mapping[str, Any]) -> Controls:
    """Add a pause or resume.

    :param controls: the entries so far.
    :param control: fields of a :class:`Control` without ``seq``.
    """
    seq = controls.seq + 1
    entries = (*controls.entries, Control(seq=seq, **control))[-KEPT_CONTROLS:]
    return controls.model_copy(update={"seq": seq, "entries": entries})
