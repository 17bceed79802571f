"""What is kept about the retraining of one model: three JSON documents, each with one writer, all bounded in size.

``retrain_ledger`` is written by the task that decides, ``retrain_outcomes`` by the task that ends a training Dag, and
``retrain_control`` by people. The ledger takes over what the other two say, so that it alone explains every decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.retrain.decision import RetrainVerdict
from airflow_mcp.exceptions import EvidenceError

LEDGER_KEY, OUTCOMES_KEY, CONTROL_KEY = "retrain_ledger", "retrain_outcomes", "retrain_control"
"""Keys in the state store of the ledger's asset."""
LedgerSchema = Literal["airflow_mcp/retrain/1"]
SCHEMA: LedgerSchema = "airflow_mcp/retrain/1"

TrainingOutcome = Literal["promoted", "registered", "rejected", "inconclusive", "unchanged", "failed", "vanished"]
"""How a training ended. ``registered``: it passed the gate, and promoting it is left to others. ``vanished``: its Dag
run is gone."""
CONCLUSIVE: frozenset[TrainingOutcome] = frozenset({"promoted", "registered", "rejected"})
"""They answer what the training was needed for; after the others it is needed still."""
RunState = Literal["missing", "queued", "running", "success", "failed"]
RetrainAction = Literal["none", "trigger", "adopt"]
"""``adopt``: take a Dag run into the ledger that Airflow has already."""

LABEL_LENGTH, HASH_LENGTH, RUN_ID_LENGTH, NOTE_LENGTH, WORDS_LENGTH = 80, 100, 250, 120, 400
Label = Annotated[str, Field(max_length=LABEL_LENGTH)]
Hash = Annotated[str, Field(max_length=HASH_LENGTH)]
RunId = Annotated[str, Field(max_length=RUN_ID_LENGTH)]
Note = Annotated[str, Field(max_length=NOTE_LENGTH)]
Words = Annotated[str, Field(max_length=WORDS_LENGTH)]
KEPT_OUTCOMES, KEPT_CONTROLS = 40, 20
TAKEN_AT_ONCE = 5
"""Reports, and controls, that one decision takes over at most, so that no entry becomes large."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class WindowVerdict(_Document):
    """What a check says about one window of data."""

    name: Label
    """The same window always has the same name."""
    verdict: DriftVerdict
    end: AwareDatetime | None = None
    """When the data of the window ends; None: not said, so the time of its first verdict."""


class OutcomeReport(_Document):
    """How one training ended."""

    seq: int
    """Counts the reports of a model."""
    dag_id: RunId
    run_id: RunId
    outcome: TrainingOutcome
    detail: Note = ""
    data_version: Label = ""
    data_hash: Hash = ""
    mlflow_run_id: Label = ""
    at: AwareDatetime


class Control(_Document):
    """What a person did."""

    seq: int
    action: Literal["pause", "resume"]
    by: Label
    at: AwareDatetime
    reason: Words = ""


class OpenRun(_Document):
    """What Airflow and MLflow know about the training that the ledger holds as open."""

    run_id: RunId
    state: RunState
    outcome: TrainingOutcome | None = None
    """What MLflow shows when the run is over and has not reported."""
    detail: Note = ""


class Observation(_Document):
    """Everything that one decision is made from, beside the ledger itself."""

    at: AwareDatetime
    by: Words
    """Dag, task and Dag run."""
    dag_id: RunId
    """Dag that trains."""
    data_version: Label
    data_hash: Hash
    window: WindowVerdict | None = None
    has_champion: bool | None = None
    champion_since: AwareDatetime | None = None
    latest_training: Label = ""
    """MLflow run of the latest training of the model; empty when there is none."""
    latest_training_at: AwareDatetime | None = None
    data_concluded: Words = ""
    """What MLflow shows came of a training on this very data."""
    rows: int | None = None
    labels: int | None = None
    """Counts that only grow; None: not known."""
    reports: tuple[OutcomeReport, ...] = ()
    """Those that the ledger has not seen yet."""
    controls: tuple[Control, ...] = ()
    open_run: OpenRun | None = None
    other_runs: int = 0
    """Further runs of the training Dag that are queued or running."""
    next_run_exists: bool = False
    """Whether Airflow has a Dag run of the name that a new training would get."""


class RetrainDecision(_Document):
    """A decision as it is recorded."""

    verdict: RetrainVerdict
    action: RetrainAction = "none"
    run_id: RunId = ""
    """Dag run that is triggered or adopted."""
    reasons: tuple[Words, ...] = ()
    objections: tuple[Words, ...] = ()
    unknowns: tuple[Words, ...] = ()
    explanation: Annotated[str, Field(max_length=3000)]


class Window(_Document):
    """One window with its latest verdict."""

    name: Label
    verdict: DriftVerdict
    end: AwareDatetime
    judged_at: AwareDatetime
    data_hash: Hash
    seq: int
    """Entry that brought this verdict."""
    answered: bool = False
    """Whether a training that was judged has taken it into account."""


class DriftNeed(_Document):
    """Drift that no training has answered yet."""

    since: AwareDatetime
    seq: int
    """Entry of the latest verdict behind it."""
    times: int = 1
    """How many verdicts asked for the same."""
    data_version: Label
    data_hash: Hash


class Training(_Document):
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
    """None: not over, as far as is known."""
    detail: Note = ""


class LedgerState(_Document):
    """What follows from all entries so far."""

    clock: float = 0.0
    """Ledger time in seconds: moves with the clock on the wall, but never back."""
    clock_offset: float = 0.0
    """Ledger time minus time on the wall."""
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
    """MLflow run of the latest training that was noticed, whoever started it."""
    noticed_clock: float | None = None
    """Ledger time of its start."""
    concluded_clock: float | None = None
    """Ledger time at which a challenger was last judged."""
    rows: int | None = None
    labels: int | None = None
    """Counts at the start of the last training that was judged."""

    @property
    def open_training(self) -> Training | None:
        """The training that is not over."""
        return self.trainings[-1] if self.trainings and self.trainings[-1].outcome is None else None


class Entry(_Document):
    """One decision: what it was made from, by which policy, and the answer."""

    seq: int
    policy: str
    """Key in the ledger's ``policies``."""
    observation: Observation
    answer: RetrainDecision


class Ledger(_Document):
    """The record of all decisions; the oldest are folded into ``base``."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    base: LedgerState = LedgerState()
    base_seq: int = 0
    """Number of the last entry that is folded into ``base``."""
    policies: dict[str, dict[str, Any]] = {}
    entries: tuple[Entry, ...] = ()

    @property
    def seq(self) -> int:
        """Number of the last entry."""
        return self.entries[-1].seq if self.entries else self.base_seq


class Outcomes(_Document):
    """Reports of trainings that have ended, oldest first; the newest are kept."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    seq: int = 0
    entries: tuple[OutcomeReport, ...] = ()


class Controls(_Document):
    """What people did, oldest first; the newest are kept."""

    schema_: LedgerSchema = Field(default=SCHEMA, alias="schema")
    model_name: str
    seq: int = 0
    entries: tuple[Control, ...] = ()


_DocumentT = TypeVar("_DocumentT", Ledger, Outcomes, Controls)


def ledger_name(model_name: str) -> str:
    """Name the Airflow asset whose state store holds the ledger of a model.

    :param model_name: registered model.
    """
    return f"retrain/{quote(model_name, safe='')}"


def read_document(model: type[_DocumentT], value: Any, model_name: str) -> _DocumentT:
    """Read a document of the state store.

    :param model: what it must be.
    :param value: the stored JSON value; None when nothing is stored.
    :param model_name: registered model that it must be about.
    :raises EvidenceError: when it is something else; nothing is decided from it.
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
    """Write a document as plain JSON values; what has its default is left out.

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
    """Shorten a text for people.

    :param text: the text.
    :param limit: characters at most.
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def add_report(outcomes: Outcomes, report: Mapping[str, Any]) -> Outcomes:
    """Add how a training ended; reporting the same once more changes nothing, and a new outcome replaces the old one.

    :param outcomes: the reports so far.
    :param report: fields of a :class:`OutcomeReport` but its ``seq``.
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
    """Add what a person did.

    :param controls: what was done so far.
    :param control: fields of a :class:`Control` but its ``seq``.
    """
    seq = controls.seq + 1
    entries = (*controls.entries, Control(seq=seq, **control))[-KEPT_CONTROLS:]
    return controls.model_copy(update={"seq": seq, "entries": entries})
