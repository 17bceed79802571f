"""What the page of a model needs, read from MLflow, Airflow and the audit log; a part that fails becomes a note."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from airflow_mcp.core import contract
from airflow_mcp.core.approvals.cycle import Cycle
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.summary import by_severity, read_drift_summary
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
from airflow_mcp.core.panel.approvals import OpenQuestion
from airflow_mcp.core.panel.facts import (
    MOST_CYCLES,
    DriftCheck,
    ListRow,
    ModelFacts,
    RolloutFacts,
    drift_check,
    from_milliseconds,
    version_facts,
)
from airflow_mcp.core.panel.state import Situation, assess_state
from airflow_mcp.core.registry.history import champion_at, former_champions, read_timeline
from airflow_mcp.core.registry.standing import Standing
from airflow_mcp.core.retrain.documents import (
    CONTROL_KEY,
    LEDGER_KEY,
    OUTCOMES_KEY,
    Controls,
    Ledger,
    Outcomes,
    ledger_name,
    read_document,
)
from airflow_mcp.core.retrain.status import retrain_status
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.exceptions import MlflowError, ModelControlPlaneError
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.plugins.airflow_rest import AirflowRest
from airflow_mcp.registry.drift_checks import SHOWN_CHECKS
from airflow_mcp.registry.overview import list_row, open_questions, questions_of
from airflow_mcp.registry.rollout_control import read_journal
from airflow_mcp.registry.rollouts import bake_document
from airflow_mcp.registry.standing import read_standings

log = logging.getLogger(__name__)
T = TypeVar("T")
NEWEST = 50
"""Newest versions that are read; a model may have thousands."""
KEPT_SECONDS = 5.0
"""How long what was read of a model is kept: many pages of one model are open in an incident."""
_WORST_COLUMNS = 3
_WAIT_SECONDS = 2.0
"""Each source has so long; then its card says that it did not answer."""
_NO_MLFLOW = "MLflow did not answer this question."
_NO_AIRFLOW = "Airflow did not answer."
NO_AUDIT = "The audit log did not answer."


@dataclass(frozen=True)
class Drift:
    """What drift checks found."""

    checks: tuple[DriftCheck, ...]
    limit: float | None
    worst: tuple[tuple[str, str, float | None, float | None], ...]


@dataclass(frozen=True)
class Part:
    """What was read of a model in MLflow and the audit log: the same for every caller who may see it."""

    model: RegisteredModel
    standing: Standing
    versions: tuple[ModelVersion, ...]
    drift: Drift | None
    gate: GateReport | None
    rollout: RolloutFacts | None
    questions: tuple[OpenQuestion, ...]
    notes: dict[str, str]
    read_at: datetime


class ModelReader:
    """Reads models for their pages, in threads of its own.

    :param mlflow: returns the MLflow server; it should not repeat requests, because somebody waits.
    :param open_log: returns the audit log, or None when there is none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        mlflow: Callable[[], MlflowOperations],
        open_log: Callable[[], AuditLog | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mlflow, self._open_log, self._clock = mlflow, open_log, clock
        self._threads = ThreadPoolExecutor(8, "airflow-mcp-page")
        self._kept: dict[str, tuple[float, Part]] = {}
        self._reading: dict[str, asyncio.Task[Part]] = {}

    async def ask(self, question: Callable[[MlflowOperations], T]) -> T:
        """Return the answer to a question that blocks.

        :param question: called with the MLflow server in a thread.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: question(self._mlflow()))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def forget(self, name: str) -> None:
        """Forget what was read of a model, because it is being changed."""
        self._kept.pop(name, None)

    async def part(self, name: str) -> Part:
        """Return what MLflow and the audit log say about a model; several pages share one reading.

        :raises MlflowNotFoundError: when there is no such model.
        :raises MlflowError: when MLflow does not answer at all.
        """
        kept = self._kept.get(name)
        if kept is not None and self._clock() - kept[0] < KEPT_SECONDS:
            return kept[1]
        if name not in self._reading:
            task = self._reading[name] = asyncio.create_task(self._read(name))
            task.add_done_callback(lambda _: self._reading.pop(name, None))
        part = await asyncio.shield(self._reading[name])
        if len(self._kept) > 200:  # a page or two per model that somebody looks at
            self._kept.clear()
        self._kept[name] = (self._clock(), part)
        return part

    async def _read(self, name: str) -> Part:
        model, versions = await self.ask(lambda mlflow: _read_versions(mlflow, name))
        notes: dict[str, str] = {}
        standing, drift, gate, rollout, questions = await asyncio.gather(
            self.ask(lambda mlflow: read_standings(mlflow, [model])[0][0]),
            noted(notes, "drift", _NO_MLFLOW, self.ask(lambda mlflow: _read_drift(mlflow, name))),
            noted(notes, "gate", _NO_MLFLOW, self.ask(lambda mlflow: _read_gate(mlflow, versions))),
            noted(notes, "rollout", _NO_MLFLOW, self.ask(lambda mlflow: _read_rollout(mlflow, model, versions))),
            noted(notes, "approvals", NO_AUDIT, self.ask(lambda _: questions_of(self._open_log(), name))),
        )
        return Part(model, standing, versions, drift, gate, rollout, questions or (), notes, datetime.now(UTC))

    async def model(self, name: str) -> RegisteredModel:
        """Return a registered model as MLflow knows it."""
        return await self.ask(lambda mlflow: mlflow.get_registered_model(name))

    async def open_questions(self, keys: Sequence[ReleaseKey]) -> tuple[OpenQuestion, ...]:
        """Return the questions of some releases that are open.

        :param keys: the releases.
        :raises AuditUnavailableError: when the log does not answer.
        """
        return await self.ask(lambda _: open_questions(self._open_log(), keys))


async def read_retraining(airflow: AirflowRest, name: str, notes: dict[str, str]) -> dict[str, Any] | None:
    """Return why a model is or is not retrained; None when it has no ledger that the caller may read.

    :param airflow: Airflow as the caller sees it.
    :param name: the model.
    :param notes: takes a note when Airflow does not answer.
    """

    async def read() -> dict[str, Any] | None:
        asset = await airflow.asset_id(ledger_name(name))
        if asset is None:
            return None
        keys = (LEDGER_KEY, OUTCOMES_KEY, CONTROL_KEY)
        ledger, outcomes, controls = await asyncio.gather(*(airflow.state(asset, key) for key in keys))
        return retrain_status(
            read_document(Ledger, ledger, name),
            read_document(Outcomes, outcomes, name),
            read_document(Controls, controls, name),
        )

    return await noted(notes, "retraining", _NO_AIRFLOW, read())


def model_facts(
    part: Part, retraining: dict[str, Any] | None, notes: dict[str, str], *, at: datetime | None = None
) -> ModelFacts:
    """Return what the page of a model shows.

    :param part: what MLflow and the audit log say.
    :param retraining: what Airflow says.
    :param notes: notes on what Airflow did not answer.
    :param at: a moment in the past; None for now.
    :raises InvalidArgumentError: when that moment is in the future.
    """
    timeline = read_timeline(part.model, part.read_at)
    split = None if part.rollout is None or part.rollout.is_baking else part.rollout
    situation = Situation(
        part.standing,
        canary=split.document.canary if split else "",
        weight=split.document.weight if split else 0.0,
        rollout_trouble=split.trouble if split else "",
        approval=part.questions[0].version if part.questions else "",
        approval_is_late=any(question.is_late(part.read_at) for question in part.questions),
        retraining=retraining,
    )
    judged = [version for version in part.versions if part.gate and version.run_id == part.gate.run_id]
    return ModelFacts(
        model=part.model,
        standing=part.standing,
        state=assess_state(situation),
        timeline=timeline,
        versions=tuple(version_facts(version) for version in part.versions),
        checks=part.drift.checks if part.drift else None,
        drift_limit=part.drift.limit if part.drift else None,
        drifted_columns=part.drift.worst if part.drift else (),
        gate=part.gate,
        gate_version=judged[0].version if judged else "",
        retraining=retraining,
        rollout=part.rollout,
        questions=part.questions,
        at=None if at is None else champion_at(timeline, at),
        notes={**part.notes, **notes},
    )


def row_of(part: Part) -> ListRow:
    """Return the row of the list for a model that was just read."""
    rollout = part.rollout.document if part.rollout and not part.rollout.is_baking else None
    checks = part.drift.checks if part.drift else ()
    return list_row(part.model, part.standing, checks, rollout, part.questions)


def with_trainings(
    mlflow: MlflowOperations, versions: Sequence[ModelVersion], cycles: Mapping[str, Cycle]
) -> dict[str, Cycle]:
    """Return the times of releases with those of the newest trainings; without those when MLflow does not answer.

    :param mlflow: the MLflow server.
    :param versions: the versions of the model.
    :param cycles: what the audit log knows, by version, the newest first.
    """
    newest = list(cycles)[:MOST_CYCLES]
    runs = {version.run_id: version.version for version in versions if version.run_id and version.version in newest}
    found = dict(cycles)
    try:
        for run in _search(mlflow, list(runs)):
            found[runs[run.run_id]] = trained(cycles[runs[run.run_id]], run)
    except MlflowError as error:
        log.warning("the times of the trainings could not be read, so the page leaves them out: %s", error)
    return found


def trained(cycle: Cycle, run: Run | None) -> Cycle:
    """Return the times of a release with those of its training.

    :param cycle: what the audit log knows.
    :param run: MLflow run of the training; None when it is not known.
    """
    if run is None:
        return cycle
    return cycle.trained(*(from_milliseconds(time) if time else None for time in (run.start_time, run.end_time)))


async def noted(notes: dict[str, str], card: str, said: str, question: Awaitable[T]) -> T | None:
    """Return the answer; None with a note for a card when there is none in time."""
    try:
        return await asyncio.wait_for(question, _WAIT_SECONDS)
    except (TimeoutError, ModelControlPlaneError) as error:
        log.warning("a part of a page could not be read: %s: %s", card, error or "no answer in time")
        notes[card] = said
        return None


# --- questions that block ---------------------------------------------------------------------------------------


def _read_versions(mlflow: MlflowOperations, name: str) -> tuple[RegisteredModel, tuple[ModelVersion, ...]]:
    """Return the model with its newest versions, and those that its aliases and moves name."""
    model = mlflow.get_registered_model(name)
    newest = mlflow.search_model_versions(f"name = {filter_value(name)}", ("version_number DESC",), NEWEST)
    known = {version.version for version in newest}
    named = {number for number in (*model.aliases.values(), *former_champions(model)[:NEWEST]) if number not in known}
    older = mlflow.read_model_versions(name, [int(number) for number in named]) if named else []
    aliases: dict[str, tuple[str, ...]] = {}
    for alias, number in model.aliases.items():  # a search leaves the aliases out
        aliases[number] = (*aliases.get(number, ()), alias)
    found = sorted((*newest, *older), key=lambda version: -int(version.version))
    verdicts = _later_verdicts(mlflow, found)
    return model, tuple(
        replace(
            version,
            aliases=aliases.get(version.version, ()),
            tags={**verdicts.get(version.run_id, {}), **version.tags},
        )
        for version in found
    )


def _later_verdicts(mlflow: MlflowOperations, versions: Sequence[ModelVersion]) -> dict[str, dict[str, str]]:
    """Return the verdicts of gates that judged a run after its version was registered, as tags by run.

    That is how published versions are judged; a promotion finds the verdict on the run too.
    """
    tag = contract.TAG_GATE_VERDICT
    runs = [each.run_id for each in versions if each.run_id and not {tag, contract.TAG_COPY_RUN} & set(each.tags)]
    return {run.run_id: {tag: run.tags[tag]} for run in _search(mlflow, runs) if tag in run.tags}


def _search(mlflow: MlflowOperations, run_ids: Sequence[str]) -> list[Run]:
    """Return those of some runs that exist and that this account may read."""
    experiments = [each.experiment_id for each in mlflow.search_experiments()] if run_ids else []
    if not experiments:
        return []
    where = f"attributes.run_id IN ({', '.join(map(filter_value, run_ids))})"
    return mlflow.search_runs(experiments, where, (), len(run_ids))


def _read_drift(mlflow: MlflowOperations, name: str) -> Drift:
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    if not experiments:
        return Drift((), None, ())
    where = (
        f"attributes.status = 'FINISHED' and tags.`{contract.TAG_KIND}` = '{contract.KIND_DRIFT_CHECK}' "
        f"and tags.`{contract.TAG_MODEL_NAME}` = {filter_value(name)}"
    )
    runs = mlflow.search_runs(experiments, where, ("attributes.end_time DESC",), SHOWN_CHECKS)
    checks = tuple(drift_check(run) for run in reversed(runs))
    text = mlflow.find_artifact(runs[0].run_id, contract.ARTIFACT_DRIFT_SUMMARY) if runs else None
    if text is None:
        return Drift(checks, None, ())
    result = read_drift_summary(text, f"{contract.ARTIFACT_DRIFT_SUMMARY} of MLflow run {runs[0].run_id}").result
    drifted = [column for column in by_severity(result.columns) if column.drifted][:_WORST_COLUMNS]
    worst = tuple((each.column, each.method, each.score, each.threshold) for each in drifted)
    return Drift(checks, result.policy.drift_share, worst)


def _read_gate(mlflow: MlflowOperations, versions: tuple[ModelVersion, ...]) -> GateReport | None:
    """Return the gate report of the newest version."""
    if not versions:
        return None
    run_id = versions[0].tags.get(contract.TAG_COPY_RUN) or versions[0].run_id
    text = mlflow.find_artifact(run_id, contract.ARTIFACT_GATE_REPORT_JSON) if run_id else None
    source = f"{contract.ARTIFACT_GATE_REPORT_JSON} of MLflow run {run_id}"
    return None if text is None else parse_document(GateReport, text, source)


def _read_rollout(
    mlflow: MlflowOperations, model: RegisteredModel, versions: tuple[ModelVersion, ...]
) -> RolloutFacts | None:
    number = model.aliases.get(contract.ALIAS_CHAMPION)
    champion = next((version for version in versions if version.version == number), None)
    document = bake_document(champion, datetime.now(UTC)) or RolloutState.of(champion).active
    if document is None:
        return None
    journal = read_journal(mlflow, document.run_id)
    trouble = ""  # replicas are counted and not named: their names are addresses
    if journal is not None and journal.tripped:
        trouble = f"the breaker of version {document.canary} is open on {len(journal.tripped)} replicas"
    elif journal is not None and journal.errors:
        trouble = f"{journal.errors} looks at the model servers in a row failed"
    return RolloutFacts(document, journal, trouble)
