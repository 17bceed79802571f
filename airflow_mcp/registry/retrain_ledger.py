"""The ledger of one model's retraining in Airflow's state store of assets: one writer per document.

A store without compare-and-set loses one of two concurrent updates. So each document has one writer, of which one task
runs at a time, and every write is checked against what was read, before and after. If an update is lost all the same,
the name of a training's Dag run still depends on the data, so Airflow refuses to start it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.retrain.documents import (
    CONTROL_KEY,
    LEDGER_KEY,
    OUTCOMES_KEY,
    TAKEN_AT_ONCE,
    Control,
    Controls,
    Ledger,
    LedgerState,
    Observation,
    OpenRun,
    OutcomeReport,
    Outcomes,
    RetrainDecision,
    add_control,
    add_report,
    plain_document,
    read_document,
)
from airflow_mcp.core.retrain.ledger import decide, next_run_id, record, state_of
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import observe, take_in
from airflow_mcp.exceptions import LedgerConflictError

_DocumentT = TypeVar("_DocumentT", Ledger, Outcomes, Controls)


class StateStore(Protocol):
    """Values by key, such as Airflow's state store of an asset."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Write or overwrite the value."""


class TrainingDag(Protocol):
    """The questions to Airflow about the Dag that trains."""

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        """Return the state of a Dag run, and the outcome that MLflow shows when it has ended."""

    def active_runs(self) -> int:
        """Count the runs that are queued or running."""

    def has_run(self, run_id: str) -> bool:
        """Return whether there is a Dag run of this name."""


class RetrainLedger:
    """The documents about one model.

    :param store: where they are.
    :param model_name: registered model.
    """

    def __init__(self, store: StateStore, model_name: str) -> None:
        self.store, self.model_name = store, model_name

    def ledger(self) -> Ledger:
        """Return the decisions.

        :raises EvidenceError: when what is stored is not a ledger of this model.
        """
        return self._read(Ledger, LEDGER_KEY)[0]

    def outcomes(self) -> Outcomes:
        """Return how trainings ended; errors as in :meth:`ledger`."""
        return self._read(Outcomes, OUTCOMES_KEY)[0]

    def controls(self) -> Controls:
        """Return the pauses and resumes; errors as in :meth:`ledger`."""
        return self._read(Controls, CONTROL_KEY)[0]

    def decide(self, observation: Observation, policy: RetrainPolicy, dag: TrainingDag) -> RetrainDecision:
        """Complete the observation, decide, and record the decision, which the caller then carries out.

        :param observation: what is known, apart from Airflow and the other two documents.
        :param policy: the retrain policy.
        :param dag: the Dag that trains.
        :raises EvidenceError: when a document is not one of this model; nothing is recorded.
        :raises LedgerConflictError: when another task writes to the ledger at the same time.
        """
        ledger, read = self._read(Ledger, LEDGER_KEY)
        before = state_of(ledger)
        observation = self._with_news(observation, before, policy, dag)
        state = observe(before, ledger.seq + 1, observation, policy)
        run_id = next_run_id(state, observation, self.model_name)
        observation = observation.model_copy(update={"next_run_exists": dag.has_run(run_id)})
        decision = decide(state, observation, policy, self.model_name)
        self._write(LEDGER_KEY, record(ledger, observation, policy, decision), read)
        return decision

    def report(self, report: Mapping[str, Any]) -> None:
        """Record how a training ended.

        :param report: fields of a :class:`~airflow_mcp.core.retrain.documents.OutcomeReport` without its number.
        :raises LedgerConflictError: when another task writes at the same time.
        """
        self._update(Outcomes, OUTCOMES_KEY, lambda outcomes: add_report(outcomes, report))

    def control(self, action: str, by: str, at: datetime, reason: str) -> Controls:
        """Record a pause or resume.

        :param action: ``pause`` or ``resume``.
        :param by: who.
        :param at: when.
        :param reason: why.
        :raises LedgerConflictError: when somebody else pauses or resumes at the same time.
        """
        done = {"action": action, "by": by, "at": at, "reason": reason}
        return self._update(Controls, CONTROL_KEY, lambda controls: add_control(controls, done))

    def news(self, state: LedgerState) -> tuple[tuple[OutcomeReport, ...], tuple[Control, ...]]:
        """Return the oldest reports and controls that the ledger has not seen yet.

        :param state: state of the ledger.
        """
        reports = [each for each in self.outcomes().entries if each.seq > state.reports_seen]
        controls = [each for each in self.controls().entries if each.seq > state.controls_seen]
        return tuple(reports[:TAKEN_AT_ONCE]), tuple(controls[:TAKEN_AT_ONCE])

    def _with_news(
        self, observation: Observation, before: LedgerState, policy: RetrainPolicy, dag: TrainingDag
    ) -> Observation:
        """Add new reports and controls, and the active runs of the training Dag."""
        reports, controls = self.news(before)
        known = observation.model_copy(update={"reports": reports, "controls": controls})
        training = take_in(before, known, policy).open_training
        active = dag.active_runs()
        if training is not None:
            run = dag.open_run(training.run_id, training.data_hash)
            known = known.model_copy(update={"open_run": run})
            active -= run.state in ("queued", "running")
        return known.model_copy(update={"other_runs": max(0, active)})

    def _update(self, model: type[_DocumentT], key: str, change: Callable[[_DocumentT], _DocumentT]) -> _DocumentT:
        document, read = self._read(model, key)
        changed = change(document)
        if changed is not document:
            self._write(key, changed, read)
        return changed

    def _read(self, model: type[_DocumentT], key: str) -> tuple[_DocumentT, str]:
        value = self.store.get(key)
        return read_document(model, value, self.model_name), fingerprint(value)

    def _write(self, key: str, document: Ledger | Outcomes | Controls, read: str) -> None:
        """Write if the stored document is the one that was read, and check that the write is there."""
        value = plain_document(document)
        if fingerprint(self.store.get(key)) != read:
            raise LedgerConflictError(
                f"{key} of {self.model_name!r} was changed by another task meanwhile; nothing was written or "
                "triggered. A retry reads it again"
            )
        self.store.set(key, value)
        if fingerprint(self.store.get(key)) != fingerprint(value):
            raise LedgerConflictError(
                f"{key} of {self.model_name!r} was overwritten by another task right after it was written; nothing was "
                "triggered. Let one task at a time write to it: max_active_runs=1, and one deciding Dag per model. A "
                "retry reads it again"
            )
