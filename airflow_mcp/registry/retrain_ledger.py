"""Keep the ledger of one model's retraining where Airflow keeps the state of assets: one writer per document.

A store without compare-and-set loses the first of two updates that cross. So each document has one writer, which runs
one at a time; every write is chained to what was read, and checked before and after. Should updates cross all the
same, the Dag run of a training still has a name that depends on the data, so that Airflow refuses it a second time.
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
from airflow_mcp.core.retrain.ledger import decide, next_run_id, state_of
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import observe, take_in
from airflow_mcp.exceptions import LedgerConflictError

_DocumentT = TypeVar("_DocumentT", Ledger, Outcomes, Controls)


class StateStore(Protocol):
    """Values by key, as Airflow's state store of an asset has them."""

    def get(self, key: str, default: Any = None) -> Any:
        """Give the value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Write or overwrite the value."""


class TrainingDag(Protocol):
    """What is asked about the Dag that trains."""

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        """Say how far a Dag run is; and when it is over, what MLflow shows of it."""

    def active_runs(self) -> int:
        """Count the runs that are queued or running."""

    def has_run(self, run_id: str) -> bool:
        """Say whether there is a Dag run of this name."""


class RetrainLedger:
    """The documents about one model.

    :param store: where they are.
    :param model_name: registered model.
    """

    def __init__(self, store: StateStore, model_name: str) -> None:
        self.store, self.model_name = store, model_name

    def ledger(self) -> Ledger:
        """Read the decisions.

        :raises EvidenceError: when what is stored is not a ledger of this model.
        """
        return self._read(Ledger, LEDGER_KEY)[0]

    def outcomes(self) -> Outcomes:
        """Read how trainings ended; errors are those of :meth:`ledger`."""
        return self._read(Outcomes, OUTCOMES_KEY)[0]

    def controls(self) -> Controls:
        """Read what people did; errors are those of :meth:`ledger`."""
        return self._read(Controls, CONTROL_KEY)[0]

    def decide(self, observation: Observation, policy: RetrainPolicy, dag: TrainingDag) -> RetrainDecision:
        """Complete the observation, decide, and record the decision; it is to be carried out only afterwards.

        :param observation: what is known beside Airflow and the other two documents.
        :param policy: what counts.
        :param dag: the Dag that trains.
        :raises EvidenceError: when a document is not one of this model; nothing is recorded.
        :raises LedgerConflictError: when another task writes to the ledger at the same time.
        """
        ledger, read = self._read(Ledger, LEDGER_KEY)
        before = state_of(ledger)
        complete = self._completed(observation, before, policy, dag, ledger.seq + 1)
        decided = decide(ledger, complete, policy)
        self._write(LEDGER_KEY, decided.ledger, read)
        return decided.answer

    def report(self, report: Mapping[str, Any]) -> None:
        """Record how a training ended.

        :param report: fields of a :class:`~airflow_mcp.core.retrain.documents.OutcomeReport` but its number.
        :raises LedgerConflictError: when another task writes at the same time.
        """
        self._update(Outcomes, OUTCOMES_KEY, lambda outcomes: add_report(outcomes, report))

    def control(self, action: str, by: str, at: datetime, reason: str) -> Controls:
        """Record what a person does.

        :param action: ``pause`` or ``resume``.
        :param by: who.
        :param at: when.
        :param reason: why.
        :raises LedgerConflictError: when somebody else does something at the same time.
        """
        done = {"action": action, "by": by, "at": at, "reason": reason}
        return self._update(Controls, CONTROL_KEY, lambda controls: add_control(controls, done))

    def news(self, state: LedgerState) -> tuple[tuple[OutcomeReport, ...], tuple[Control, ...]]:
        """Give the oldest reports and controls that the ledger has not seen yet.

        :param state: state of the ledger.
        """
        reports = [each for each in self.outcomes().entries if each.seq > state.reports_seen]
        controls = [each for each in self.controls().entries if each.seq > state.controls_seen]
        return tuple(reports[:TAKEN_AT_ONCE]), tuple(controls[:TAKEN_AT_ONCE])

    def _completed(
        self, observation: Observation, before: LedgerState, policy: RetrainPolicy, dag: TrainingDag, seq: int
    ) -> Observation:
        """Add the news, and what Airflow knows."""
        reports, controls = self.news(before)
        known = observation.model_copy(update={"reports": reports, "controls": controls})
        training = take_in(before, known, policy).open_training
        active = dag.active_runs()
        if training is not None:
            run = dag.open_run(training.run_id, training.data_hash)
            known = known.model_copy(update={"open_run": run})
            active -= run.state in ("queued", "running")
        known = known.model_copy(update={"other_runs": max(0, active)})
        run_id = next_run_id(observe(before, seq, known, policy), known, self.model_name)
        return known.model_copy(update={"next_run_exists": dag.has_run(run_id)})

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
        """Write only on top of what was read, and see that it is there."""
        value = plain_document(document)
        if fingerprint(self.store.get(key)) != read:
            raise LedgerConflictError(
                f"{key} of {self.model_name!r} was changed by somebody else while it was worked on; nothing was "
                "written or triggered. A retry reads it anew"
            )
        self.store.set(key, value)
        if fingerprint(self.store.get(key)) != fingerprint(value):
            raise LedgerConflictError(
                f"{key} of {self.model_name!r} was overwritten by somebody else right after it was written; nothing "
                "was triggered. Let one task at a time write to it: max_active_runs=1, and one deciding Dag per "
                "model. A retry reads it anew"
            )
