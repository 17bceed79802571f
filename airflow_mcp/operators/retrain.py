"""Decide whether to retrain, trigger the training Dag, and record what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException
from pydantic import TypeAdapter, ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.argument import OnInconclusive, choice, required_text
from airflow_mcp.core.data.dataset import dataset_pin
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.retrain.documents import (
    NOTE_LENGTH,
    Observation,
    OpenRun,
    RetrainDecision,
    TrainingOutcome,
    WindowVerdict,
    label,
    words,
)
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.operators.base import now
from airflow_mcp.operators.ledger import LedgerOperator
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.trainings import Trainings

if TYPE_CHECKING:
    from airflow.sdk import Context

_OWN_CONF = ("reason", "data_version")
_ACTIVE = ["queued", "running"]


class RetrainTriggerOperator(LedgerOperator):
    """Decide whether to retrain, write the decision into the model's ledger, and trigger the training Dag if it is due.

    One training of a model at a time. What is needed stays needed until a training has answered it. The triggered Dag
    run is named after model and data, so that Airflow refuses it a second time. Unless a training is triggered the
    task is skipped; the decision is in the ledger, in XCom and in the log either way.

    XCom: ``retrain``, ``verdict`` (``retrain``, ``not_now``, ``not_needed`` or ``inconclusive``), ``explanation``,
    ``reasons``, ``objections``, ``unknowns``, ``triggered_run_id`` (empty when not triggered).

    :param trigger_dag_id: Dag that trains (templated). It receives ``reason`` and ``data_version`` in its conf, and
        should end with a :class:`RetrainOutcomeOperator`.
    :param model_name: registered model (templated).
    :param experiment_name: MLflow experiment of its trainings (templated).
    :param dataset: pinned data that the training would use, ``{uri, version, hash}``; the hash is needed (templated).
    :param drift_verdict: verdict of the drift check, ``drifted``, ``not_drifted`` or ``inconclusive``; None when
        there was no check (templated).
    :param window: name of the window of data that the verdict is about; the same window judged again replaces its
        verdict. None names it after ``dataset`` (templated).
    :param window_end: when the data of the window ends, ISO 8601 with an offset; None takes the time of its first
        verdict (templated).
    :param on_drift: whether drift is a reason to retrain.
    :param violations: drift is a reason when this many of the last ``windows`` windows drifted, the newest among them.
    :param windows: how many windows are looked at.
    :param label_delay: a verdict counts only if it was given this long after its window ended: a time, or an ISO 8601
        duration such as ``P7D`` (templated).
    :param max_model_age: retrain when the champion is older than this (as above, templated).
    :param retrain_every: retrain when the latest training started longer ago than this (as above, templated).
    :param cooldown: not again within this time after the latest training started (as above, templated).
    :param daily_budget: most retrains that are triggered within any 24 hours; None: no limit.
    :param weekly_budget: most retrains that are triggered within any 7 days; None: no limit.
    :param max_rejections: after so many rejected challengers in a row nothing is triggered until a person resumes;
        None: no limit.
    :param min_new_rows: fewer new rows than this since the last training: not yet; needs ``rows``.
    :param min_new_labels: fewer new labels than this since the last training: not yet; needs ``labels``.
    :param rows: rows received so far, a count that only grows (templated).
    :param labels: labels received so far, a count that only grows (templated).
    :param on_inconclusive: what happens when something that decides is not known: ``skip`` or ``fail`` this task, or
        ``continue`` without a training.
    :param conf: further conf of the triggered Dag run (templated).
    :param ledger: asset whose state store holds the ledger; None names it ``retrain/<model>``.
    """

    template_fields: Sequence[str] = (
        "trigger_dag_id",
        "model_name",
        "experiment_name",
        "dataset",
        "drift_verdict",
        "window",
        "window_end",
        "label_delay",
        "max_model_age",
        "retrain_every",
        "cooldown",
        "rows",
        "labels",
        "conf",
    )
    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#ffe8c7"

    def __init__(
        self,
        *,
        trigger_dag_id: str,
        model_name: str,
        experiment_name: str,
        dataset: Any,
        drift_verdict: str | None = None,
        window: str | None = None,
        window_end: datetime | str | None = None,
        on_drift: bool = True,
        violations: int = RetrainPolicy.violations,
        windows: int = RetrainPolicy.windows,
        label_delay: timedelta | str = RetrainPolicy.label_delay,
        max_model_age: timedelta | str | None = None,
        retrain_every: timedelta | str | None = None,
        cooldown: timedelta | str = RetrainPolicy.cooldown,
        daily_budget: int | None = RetrainPolicy.daily_budget,
        weekly_budget: int | None = RetrainPolicy.weekly_budget,
        max_rejections: int | None = RetrainPolicy.max_rejections,
        min_new_rows: int | None = None,
        min_new_labels: int | None = None,
        rows: int | str | None = None,
        labels: int | str | None = None,
        on_inconclusive: OnInconclusive = "skip",
        conf: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name=model_name, **kwargs)
        self.trigger_dag_id = trigger_dag_id
        self.experiment_name = experiment_name
        self.dataset = dataset
        self.drift_verdict = drift_verdict
        self.window = window
        self.window_end = window_end
        self.on_drift = on_drift
        self.violations, self.windows = violations, windows
        self.label_delay = label_delay
        self.max_model_age = max_model_age
        self.retrain_every = retrain_every
        self.cooldown = cooldown
        self.daily_budget = daily_budget
        self.weekly_budget = weekly_budget
        self.max_rejections = max_rejections
        self.min_new_rows = min_new_rows
        self.min_new_labels = min_new_labels
        self.rows = rows
        self.labels = labels
        self.on_inconclusive = choice("on_inconclusive", on_inconclusive, get_args(OnInconclusive))
        self.conf = conf

    def act(self, context: Context) -> dict[str, Any]:
        """Decide and record; then trigger by raising, or skip.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises EvidenceError: when the ledger cannot be read, or the answer is inconclusive and ``on_inconclusive`` is
            ``fail``.
        :raises LedgerConflictError: when another task writes to the ledger at the same time.
        :raises AirflowSkipException: when no training is triggered.
        :raises DagRunTriggerException: to have Airflow trigger the training Dag.
        """
        pin = dataset_pin("dataset", self.dataset)
        if not pin.hash:
            raise InvalidArgumentError(
                f"dataset {pin.uri!r} has no hash; without it the same data could be trained twice"
            )
        policy, ledger, further = self._policy(), self.open_ledger(context), self._further_conf()
        dag_id = required_text("trigger_dag_id", self.trigger_dag_id)
        trainings = Trainings(self.hook, required_text("experiment_name", self.experiment_name), ledger.model_name)
        observation = self._observation(context, pin, trainings, dag_id)
        answer = ledger.decide(observation, policy, AirflowTrainingDag(context["ti"], dag_id, trainings))
        self.log.info("%s", answer.explanation)
        self.push(context, _result(answer))
        if answer.verdict == "inconclusive" and self.on_inconclusive == "fail":
            raise EvidenceError(f"{answer.explanation}; nothing was triggered")
        if answer.verdict == "inconclusive" and self.on_inconclusive == "continue":
            return _result(answer)
        if answer.action != "trigger":
            raise AirflowSkipException(answer.explanation)
        raise DagRunTriggerException(
            trigger_dag_id=dag_id,
            dag_run_id=answer.run_id,
            conf={**further, "reason": answer.explanation, "data_version": pin.version},
            logical_date=None,
            reset_dag_run=False,
            skip_when_already_exists=True,
            wait_for_completion=False,
            allowed_states=["success"],
            failed_states=["failed"],
            poke_interval=60,
            deferrable=False,
            note=answer.explanation,
        )

    def _policy(self) -> RetrainPolicy:
        return RetrainPolicy(
            on_drift=self.on_drift,
            violations=self.violations,
            windows=self.windows,
            label_delay=_duration("label_delay", self.label_delay) or timedelta(0),
            max_model_age=_duration("max_model_age", self.max_model_age),
            retrain_every=_duration("retrain_every", self.retrain_every),
            cooldown=_duration("cooldown", self.cooldown) or timedelta(0),
            daily_budget=self.daily_budget,
            weekly_budget=self.weekly_budget,
            max_rejections=self.max_rejections,
            min_new_rows=self.min_new_rows,
            min_new_labels=self.min_new_labels,
        )

    def _further_conf(self) -> dict[str, Any]:
        further = dict(self.conf or {})
        taken = sorted(further.keys() & set(_OWN_CONF))
        if taken:
            raise InvalidArgumentError(f"conf sets {', '.join(taken)}, which the operator sets itself; remove them")
        return further

    def _observation(self, context: Context, pin: DatasetPin, trainings: Trainings, dag_id: str) -> Observation:
        """Put together what MLflow and the arguments say."""
        window = self._window(pin)
        rows, labels = _count("rows", self.rows), _count("labels", self.labels)
        champion = champion_of(self.hook, trainings.model_name)
        if champion is not None:
            self.mlflow_model_version_url = self.hook.model_version_url(trainings.model_name, champion.version)
        latest = trainings.latest()
        return Observation(
            at=now(),
            by=self.who(context),
            dag_id=dag_id,
            data_version=label(pin.version),
            data_hash=label(pin.hash),
            window=window,
            has_champion=champion is not None,
            champion_since=_time(champion.creation_timestamp) if champion else None,
            latest_training=latest.run_id if latest else "",
            latest_training_at=_time(latest.start_time) if latest else None,
            data_concluded=words(trainings.concluded_on(pin.hash)),
            rows=rows,
            labels=labels,
        )

    def _window(self, pin: DatasetPin) -> WindowVerdict | None:
        if self.drift_verdict is None:
            return None
        verdict = choice("drift_verdict", self.drift_verdict, get_args(DriftVerdict))
        name = f"{pin.version}@{pin.hash}" if self.window is None else required_text("window", self.window)
        end = _moment("window_end", self.window_end)
        return WindowVerdict(name=label(name), verdict=cast("DriftVerdict", verdict), end=end)


class RetrainOutcomeOperator(LedgerOperator):
    """End a training Dag: write into the model's ledger what came of the training.

    It is a teardown task: it runs however the tasks before it ended, also when somebody marks the Dag run as failed. It
    fails when one of them failed, after it has recorded the outcome: the Dag run ends as it does. Put it behind the
    last task.

    XCom: ``outcome`` (``promoted``, ``registered``, ``rejected``, ``inconclusive``, ``unchanged`` or ``failed``),
    ``detail``, ``run_id``.

    :param model_name: registered model (templated).
    :param run_id: MLflow run of the training; empty when the training was skipped or failed (templated). Read it with
        ``ti.xcom_pull``, not with ``output``: the latter would make this task depend on the training directly.
    :param ledger: asset whose state store holds the ledger; None names it ``retrain/<model>``.
    """

    template_fields: Sequence[str] = ("model_name", "run_id")
    operator_extra_links = (MlflowRunLink(),)
    ui_color = "#ffe8c7"

    def __init__(self, *, model_name: str, run_id: str, **kwargs: Any) -> None:
        super().__init__(model_name=model_name, **kwargs)
        self.run_id = run_id
        self.as_teardown(on_failure_fail_dagrun=True)

    def act(self, context: Context) -> dict[str, Any]:
        """Read the outcome from MLflow, and from the states of the other tasks; then record it.

        :raises EvidenceError: when the ledger cannot be read.
        :raises LedgerConflictError: when another task writes at the same time.
        :raises AirflowFailException: when another task of the Dag run failed; the outcome is recorded.
        """
        ledger, key = self.open_ledger(context), self.task_key(context)
        ended = self._ended(context)
        run = self.hook.get_run(self.run_id) if self.run_id and self.run_id != "None" else None
        if run is not None:
            self.mlflow_run_url = self.hook.run_url(run)
        outcome, detail = ended.outcome, ended.detail
        if run is not None:
            trainings = Trainings(self.hook, "", ledger.model_name)
            outcome, detail = trainings.outcome_of(run, ended_well=ended.outcome != "failed")
        ledger.report(
            {
                "dag_id": key.dag_id,
                "run_id": key.dag_run_id,
                "outcome": outcome,
                "detail": words(detail, NOTE_LENGTH),
                "data_version": label(run.tags.get(contract.TAG_DATA_VERSION, "")) if run else "",
                "data_hash": label(run.tags.get(contract.TAG_DATA_HASH, "")) if run else "",
                "mlflow_run_id": run.run_id if run else "",
                "at": now(),
            }
        )
        self.log.info("Outcome of the training: %s (%s)", outcome, detail)
        result = {"outcome": outcome, "detail": detail, "run_id": run.run_id if run else ""}
        if ended.outcome != "failed":
            return result
        self.push(context, result)
        raise AirflowFailException(f"{ended.detail}; the outcome is recorded: {outcome} ({detail})")

    def _ended(self, context: Context) -> _Ended:
        """Say how the Dag run ended, from the states of its other tasks."""
        key = self.task_key(context)
        states = context["ti"].get_task_states(key.dag_id, run_ids=[key.dag_run_id]).get(key.dag_run_id, {})
        named = {task_id: str(getattr(state, "value", state)) for task_id, state in states.items()}
        failed = sorted(task_id for task_id, state in named.items() if state == "failed" and task_id != key.task_id)
        if failed:
            return _Ended("failed", f"task {', '.join(failed)} failed")
        skipped = sorted(task_id for task_id, state in named.items() if state == "skipped")
        if skipped:
            return _Ended("unchanged", f"task {', '.join(skipped)} was skipped: nothing has changed")
        return _Ended("failed" if "upstream_failed" in named.values() else "unchanged", "no training was done")


class _Ended(NamedTuple):
    """How a Dag run ended, as far as the states of its tasks show it."""

    outcome: TrainingOutcome
    detail: str


class AirflowTrainingDag:
    """Asks Airflow, and MLflow where a run has not reported, about the Dag that trains.

    :param instance: the task instance that asks.
    :param dag_id: Dag that trains.
    :param trainings: trainings of the model.
    """

    def __init__(self, instance: Any, dag_id: str, trainings: Trainings) -> None:
        self._instance, self._dag_id, self._trainings = instance, dag_id, trainings

    def has_run(self, run_id: str) -> bool:
        """Say whether there is a Dag run of this name."""
        return bool(self._instance.get_dr_count(self._dag_id, run_ids=[run_id]))

    def active_runs(self) -> int:
        """Count the runs that are queued or running."""
        return int(self._instance.get_dr_count(self._dag_id, states=_ACTIVE))

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        """Say how far a Dag run is; and when it is over and has not reported, what MLflow shows of it."""
        state: Any = self._instance.get_dagrun_state(self._dag_id, run_id) if self.has_run(run_id) else "missing"
        state = str(getattr(state, "value", state))
        if state in _ACTIVE:
            return OpenRun(run_id=run_id, state=state)
        run = self._trainings.of_dag_run(self._dag_id, run_id, "" if state == "missing" else data_hash)
        outcome, detail = None, "its Dag run is gone" if state == "missing" else f"its Dag run ended as {state}"
        if run is not None:
            outcome, detail = self._trainings.outcome_of(run, ended_well=state != "failed")
        elif state == "success":
            outcome, detail = "unchanged", f"{detail} without a training"
        return OpenRun(run_id=run_id, state=state, outcome=outcome, detail=words(detail, NOTE_LENGTH))


def _result(answer: RetrainDecision) -> dict[str, Any]:
    return {
        "retrain": answer.action == "trigger",
        "verdict": answer.verdict,
        "explanation": answer.explanation,
        "reasons": list(answer.reasons),
        "objections": list(answer.objections),
        "unknowns": list(answer.unknowns),
        "triggered_run_id": answer.run_id if answer.action == "trigger" else "",
    }


def _count(name: str, value: int | str | None) -> int | None:
    if value is None or value == "None":
        return None
    try:
        count = int(value)
    except ValueError:
        count = -1
    if count < 0 or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: a whole number from 0, or None when it is not known")
    return count


def _moment(name: str, value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = TypeAdapter(datetime).validate_python(value)
    except ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidArgumentError(f"{name} is {value!r}; allowed: ISO 8601 with an offset, such as 2026-11-21T08:00Z")
    return moment


def _duration(name: str, value: timedelta | str | None) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    try:
        return TypeAdapter(timedelta).validate_python(value)
    except ValidationError:
        raise InvalidArgumentError(
            f"{name} is {value!r}; allowed: a timedelta, or an ISO 8601 duration such as PT12H or P30D"
        ) from None


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
