"""Decide whether to retrain, trigger the training Dag, and record its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException
from pydantic import TypeAdapter, ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.access.permitted import require_permitted
from airflow_mcp.core.argument import (
    OnInconclusive,
    choice,
    flag,
    nearest,
    read_list,
    read_policy,
    required_text,
    whole_number,
)
from airflow_mcp.core.audit.decisions import retrain_decided
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.data.dataset import dataset_pin
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.identity import PARENT_RUN
from airflow_mcp.core.quality.summary import QualityVerdictGiven
from airflow_mcp.core.retrain.documents import (
    NOTE_LENGTH,
    Observation,
    RetrainDecision,
    WindowVerdict,
    label,
    words,
)
from airflow_mcp.core.retrain.ledger import facts_hash
from airflow_mcp.core.retrain.policy import MAX_WINDOWS, RetrainPolicy
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.dag_run_ending import read_ending
from airflow_mcp.hooks.training_dag import AirflowTrainingDag
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.operators.base import now
from airflow_mcp.operators.ledger import LedgerOperator
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.trainings import Trainings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.actor import Actor
    from airflow_mcp.core.audit.event import AuditEvent
    from airflow_mcp.registry.retrain_ledger import RetrainLedger

_OWN_CONF = ("reason", "data_version", PARENT_RUN)
_DURATIONS = ("label_delay", "max_model_age", "retrain_every", "cooldown")
_SHORT_FORM: Mapping[str, Any] = {
    name: getattr(RetrainPolicy, name)
    for name in ("max_model_age", "retrain_every", "cooldown", "daily_budget", "max_rejections")
}
"""Fields of the policy that are arguments of their own, with their defaults."""


class RetrainTriggerOperator(LedgerOperator):
    """Decide whether to retrain, record the decision in the model's ledger, and trigger the training Dag if needed.

    Only one training of a model runs at a time. A reason to retrain stays until a training has answered it. The
    triggered Dag run is named after model and data, so that Airflow refuses to trigger it twice. The task is skipped
    unless it triggers a training; the decision is in the ledger, in XCom and in the log in any case.

    XCom: ``retrain``, ``verdict`` (``retrain``, ``not_now``, ``not_needed`` or ``inconclusive``), ``explanation``,
    ``reasons``, ``objections``, ``unknowns``, ``triggered_run_id`` (empty when not triggered).

    :param trigger_dag_id: training Dag (templated). It receives ``reason``, ``data_version`` and ``parent_run`` in its
        conf, and should end with a :class:`RetrainOutcomeOperator`.
    :param model_name: registered model (templated).
    :param experiment_name: MLflow experiment of the model's trainings (templated).
    :param dataset: pinned data for the training, ``{uri, version, hash}``; the hash is required (templated).
    :param drift_verdict: verdict of the drift check, ``drifted``, ``not_drifted`` or ``inconclusive``; None when
        there was no check (templated).
    :param quality_windows: XCom ``windows`` of a quality check: a list of ``{name, verdict, end}``; None when there was
        no check. Needs ``policy={"on_quality": True}`` (templated).
    :param window_id: name of the window of data that the drift verdict is about; the same window judged again replaces
        its verdict. None names it after ``dataset`` (templated).
    :param window_end: end of the window's data, ISO 8601 with an offset; None takes the time of its first verdict
        (templated).
    :param policy: when to retrain, as a :class:`~airflow_mcp.core.retrain.policy.RetrainPolicy` or a mapping of its
        fields; durations in a mapping may be ISO 8601, such as ``P7D``. A field that is given both here and as an
        argument of its own is refused (templated).
    :param max_model_age: retrain when the champion is older than this: a timedelta, or an ISO 8601 duration such as
        ``P30D`` (templated).
    :param retrain_every: retrain when the latest training started longer ago than this (as above, templated).
    :param cooldown: do not retrain within this time after the start of the latest training (as above, templated).
    :param daily_budget: maximum of retrains triggered within any 24 hours; None: no limit.
    :param max_rejections: after this many rejected challengers in a row nothing is triggered until a person resumes;
        None: no limit.
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
        "quality_windows",
        "window_id",
        "window_end",
        "policy",
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
        quality_windows: Any = None,
        window_id: str | None = None,
        window_end: datetime | str | None = None,
        policy: RetrainPolicy | Mapping[str, Any] | None = None,
        max_model_age: timedelta | str | None = RetrainPolicy.max_model_age,
        retrain_every: timedelta | str | None = RetrainPolicy.retrain_every,
        cooldown: timedelta | str = RetrainPolicy.cooldown,
        daily_budget: int | None = RetrainPolicy.daily_budget,
        max_rejections: int | None = RetrainPolicy.max_rejections,
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
        self.quality_windows = quality_windows
        self.window_id = window_id
        self.window_end = window_end
        self.policy = policy
        self.max_model_age = max_model_age
        self.retrain_every = retrain_every
        self.cooldown = cooldown
        self.daily_budget = daily_budget
        self.max_rejections = max_rejections
        self.rows = rows
        self.labels = labels
        self.on_inconclusive = choice("on_inconclusive", on_inconclusive, get_args(OnInconclusive))
        self.conf = conf

    def act(self, context: Context) -> dict[str, Any]:
        """Decide and record the decision; then trigger the training Dag, or skip.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises AccessRefusedError: when the policy in force does not permit it; nothing was decided.
        :raises EvidenceError: when the ledger cannot be read, or the answer is inconclusive and ``on_inconclusive`` is
            ``fail``.
        :raises LedgerConflictError: when another task writes to the ledger at the same time.
        :raises AirflowSkipException: when no training is triggered.
        :raises DagRunTriggerException: so that Airflow triggers the training Dag.
        """
        pin = dataset_pin("dataset", self.dataset)
        if not pin.hash:
            raise InvalidArgumentError(
                f"dataset {pin.uri!r} has no hash. Pin the data: without a hash it could be trained on twice"
            )
        policy, ledger, further = self._policy(), self.open_ledger(context), self._further_conf()
        dag_id = required_text("trigger_dag_id", self.trigger_dag_id)
        self._require_permitted(context, ledger.model_name)
        trainings = Trainings(self.hook, required_text("experiment_name", self.experiment_name), ledger.model_name)
        observation = self._observation(context, pin, trainings, dag_id, policy)
        answer = ledger.decide(observation, policy, AirflowTrainingDag(context["ti"], dag_id, trainings))
        self.log.info("%s", answer.explanation)
        self.push(context, _result(answer))
        self._record(context, ledger, answer)
        if answer.verdict == "inconclusive" and self.on_inconclusive == "fail":
            raise EvidenceError(f"{answer.explanation}. Nothing was triggered")
        if answer.verdict == "inconclusive" and self.on_inconclusive == "continue":
            return _result(answer)
        if answer.action != "trigger":
            raise AirflowSkipException(answer.explanation)
        raise DagRunTriggerException(
            trigger_dag_id=dag_id,
            dag_run_id=answer.run_id,
            conf={
                **further,
                "reason": answer.explanation,
                "data_version": pin.version,
                # The guard asks who is behind the training: whoever is behind this run.
                PARENT_RUN: {"dag_id": context["ti"].dag_id, "dag_run_id": context["ti"].run_id},
            },
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

    def _require_permitted(self, context: Context, model_name: str) -> None:
        """Check that whoever is behind this run may retrain the model, where a policy is in force."""
        governed, actor = self.governance, self.actor(context)
        if governed.open_log is None or governed.off_reason:
            return
        ask, resource = partial(governed.requester, actor), model_subject(model_name)
        require_permitted(governed.open_log(), ask, actor, governed.environment, resource=resource, action="retrain")

    def _record(self, context: Context, ledger: RetrainLedger, answer: RetrainDecision) -> None:
        """Record the decision in the audit log; a retry decides anew, which is another entry of the ledger."""

        def event(environment: str, actor: Actor) -> AuditEvent:
            book = ledger.ledger()
            new = {"entry": "decision", "number": book.seq, **answer.to_json()}
            facts = facts_hash(book, book.seq)
            # With the facts: a ledger that was lost begins at 1 again.
            key = ("decision", book.seq, facts)
            return retrain_decided(ledger.model_name, key, environment, actor, new, {"facts": facts})

        self.record(context, event)

    def _policy(self) -> RetrainPolicy:
        short = {name: getattr(self, name) for name in _SHORT_FORM}
        return read_policy(RetrainPolicy, self.policy, short, _SHORT_FORM, _retrain_policy)

    def _further_conf(self) -> dict[str, Any]:
        further = dict(self.conf or {})
        taken = sorted(further.keys() & set(_OWN_CONF))
        if taken:
            raise InvalidArgumentError(
                f"conf must not set {', '.join(_OWN_CONF)}, which the operator sets; got {', '.join(taken)}"
            )
        return further

    def _observation(
        self, context: Context, pin: DatasetPin, trainings: Trainings, dag_id: str, policy: RetrainPolicy
    ) -> Observation:
        """Collect the facts from MLflow and the arguments."""
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
            quality=self._quality(policy),
            has_champion=champion is not None,
            champion_since=_time(champion.creation_timestamp) if champion else None,
            latest_training=latest.run_id if latest else "",
            latest_training_at=_time(latest.start_time) if latest else None,
            data_concluded=words(trainings.concluded_on(pin.hash)),
            rows=rows,
            labels=labels,
        )

    def _quality(self, policy: RetrainPolicy) -> tuple[WindowVerdict, ...]:
        """Return the windows of a quality check, the newest of them if there are many."""
        if self.quality_windows is None:
            return ()
        if not policy.on_quality:
            raise InvalidArgumentError(
                "quality_windows needs a policy with on_quality=True, or its verdicts would change nothing"
            )
        given = read_list(QualityVerdictGiven, "quality_windows", self.quality_windows)
        return tuple(
            WindowVerdict(name=label(each.name), kind="quality", verdict=each.verdict, end=each.end)
            for each in given[-MAX_WINDOWS:]
        )

    def _window(self, pin: DatasetPin) -> WindowVerdict | None:
        if self.drift_verdict is None:
            return None
        verdict = choice("drift_verdict", self.drift_verdict, get_args(DriftVerdict))
        name = f"{pin.version}@{pin.hash}" if self.window_id is None else required_text("window_id", self.window_id)
        end = _moment("window_end", self.window_end)
        return WindowVerdict(name=label(name), verdict=cast("DriftVerdict", verdict), end=end)


class RetrainOutcomeOperator(LedgerOperator):
    """Record the outcome of a training in the model's ledger, at the end of the training Dag.

    It is a teardown task: it runs whatever the state of its upstream tasks, also when somebody marks the Dag run as
    failed. When another task failed, or somebody ended the Dag run, it records the outcome and then fails too, so that
    the Dag run fails. Make it downstream of the last task.

    XCom: ``outcome`` (``promoted``, ``registered``, ``rejected``, ``inconclusive``, ``unchanged`` or ``failed``),
    ``detail``, ``run_id``.

    :param model_name: registered model (templated).
    :param run_id: MLflow run of the training; empty when the training was skipped or failed (templated). Read it with
        ``ti.xcom_pull``, not with ``output``, which would make this task directly downstream of the training.
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
        """Read the outcome from MLflow and from the states of the other tasks, and record it.

        :raises EvidenceError: when the ledger cannot be read.
        :raises LedgerConflictError: when another task writes at the same time.
        :raises AirflowFailException: when another task of the Dag run failed, or somebody ended the Dag run before its
            last task; the outcome is recorded.
        """
        ledger, key = self.open_ledger(context), self.task_key(context)
        ended = read_ending(self, context)
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
        ended_as = {"entry": "outcome", "outcome": outcome, "detail": detail, "run_id": run.run_id if run else ""}
        self.record(
            context,
            lambda environment, actor: retrain_decided(
                ledger.model_name, ("outcome", key.dag_id, key.dag_run_id, outcome), environment, actor, ended_as
            ),
        )
        self.log.info("Outcome of the training: %s (%s)", outcome, detail)
        result = {"outcome": outcome, "detail": detail, "run_id": run.run_id if run else ""}
        if ended.outcome != "failed":
            return result
        self.push(context, result)
        raise AirflowFailException(f"{ended.detail}. The outcome was recorded: {outcome} ({detail})")


def _result(answer: RetrainDecision) -> dict[str, Any]:
    return {"retrain": answer.action == "trigger", **answer.to_json()}


def _retrain_policy(given: Mapping[str, Any]) -> RetrainPolicy:
    """Return the policy with these fields, as arguments and templates give them."""
    known = {field.name: field.default for field in fields(RetrainPolicy)}
    if unknown := [name for name in given if name not in known]:
        raise InvalidArgumentError(f"policy.{unknown[0]} is not a known name. {nearest(unknown[0], known)}")
    read = {name: _field(name, value, known[name]) for name, value in given.items()}
    return RetrainPolicy(**read)


def _field(name: str, value: Any, default: Any) -> Any:
    """Return the value of a field of the policy; text, which a template renders to, is read."""
    if name in _DURATIONS:
        duration = _duration(name, value)
        return timedelta(0) if duration is None and default is not None else duration
    if not isinstance(value, str):
        return value
    if value == "None":
        return None
    return flag(name, value) if isinstance(default, bool) else whole_number(name, value)


def _count(name: str, value: int | str | None) -> int | None:
    if value is None or value == "None":
        return None
    try:
        count = int(value)
    except ValueError:
        count = -1
    if count < 0 or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be a whole number from 0, or None when it is not known; got {value!r}")
    return count


def _moment(name: str, value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = TypeAdapter(datetime).validate_python(value)
    except ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidArgumentError(f"{name} must be ISO 8601 with an offset, such as 2026-11-21T08:00Z; got {value!r}")
    return moment


def _duration(name: str, value: timedelta | str | None) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    try:
        return TypeAdapter(timedelta).validate_python(value)
    except ValidationError:
        raise InvalidArgumentError(
            f"{name} must be a timedelta, or an ISO 8601 duration such as PT12H or P30D; got {value!r}"
        ) from None


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
