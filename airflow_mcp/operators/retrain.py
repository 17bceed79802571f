"""Decide whether to retrain, and trigger the training Dag once per version of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast, get_args

from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException
from pydantic import TypeAdapter, ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.dataset import dataset_pin
from airflow_mcp.core.evidence import DatasetPin, DriftVerdict
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.retrain import RetrainDecision, RetrainPolicy, RetrainState, decide_retrain, retrain_run_id
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.aliases import champion_of
from airflow_mcp.hooks.mlflow_api import filter_value
from airflow_mcp.links.mlflow import MlflowModelVersionLink
from airflow_mcp.operators.base import ModelControlOperator, choice, now, required_text

if TYPE_CHECKING:
    from airflow.sdk import Context

_OWN_CONF = ("reason", "data_version")


class RetrainTriggerOperator(ModelControlOperator):
    """Trigger the training Dag when drift, the champion's age or the schedule asks for it, and nothing forbids it.

    The triggered Dag run is named after model and data, so that the same version of the data never gets a second
    one, however often this task runs. Without a reason to retrain the task is skipped; the decision is in XCom
    and in the log either way.

    XCom: ``retrain``, ``explanation``, ``reasons``, ``objections``, ``triggered_run_id`` (empty when not triggered).

    :param trigger_dag_id: Dag that trains (templated). It receives ``reason`` and ``data_version`` in its conf.
    :param model_name: registered model (templated).
    :param experiment: MLflow experiment of its trainings (templated).
    :param dataset: pinned data that the training would use, ``{uri, version, hash}``; the hash is needed (templated).
    :param drift_verdict: verdict of the drift check, ``drifted``, ``not_drifted`` or ``inconclusive``; None when
        there was no check (templated).
    :param on_drift: whether drift is a reason to retrain.
    :param max_model_age: retrain when the champion is older than this; a time, or an ISO 8601 duration such as
        ``P30D`` or ``PT12H`` (templated).
    :param retrain_every: retrain when the latest training started longer ago than this (as above, templated).
    :param cooldown: not again within this time after the latest training started (as above, templated).
    :param conf: further conf of the triggered Dag run (templated).
    """

    template_fields: Sequence[str] = (
        "trigger_dag_id",
        "model_name",
        "experiment",
        "dataset",
        "drift_verdict",
        "conf",
        "max_model_age",
        "retrain_every",
        "cooldown",
    )
    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#ffe8c7"

    def __init__(
        self,
        *,
        trigger_dag_id: str,
        model_name: str,
        experiment: str,
        dataset: Any,
        drift_verdict: str | None = None,
        on_drift: bool = True,
        max_model_age: timedelta | str | None = None,
        retrain_every: timedelta | str | None = None,
        cooldown: timedelta | str = RetrainPolicy.cooldown,
        conf: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trigger_dag_id = trigger_dag_id
        self.model_name = model_name
        self.experiment = experiment
        self.dataset = dataset
        self.drift_verdict = drift_verdict
        self.conf = conf
        self.on_drift = on_drift
        self.max_model_age = max_model_age
        self.retrain_every = retrain_every
        self.cooldown = cooldown

    def act(self, context: Context) -> dict[str, Any]:
        """Decide; then trigger by raising, or skip.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises AirflowSkipException: when the decision is not to retrain.
        :raises DagRunTriggerException: to have Airflow trigger the training Dag.
        """
        pin = dataset_pin("dataset", self.dataset)
        if not pin.hash:
            raise InvalidArgumentError(
                f"dataset {pin.uri!r} has no hash; without it the same data could be trained twice"
            )
        decision = decide_retrain(self._state(pin), self._policy())
        self.log.info("%s", decision.explanation)
        run_id = retrain_run_id(required_text("model_name", self.model_name), pin.version, pin.hash)
        self.push(context, _result(decision, run_id if decision.retrain else ""))
        if not decision.retrain:
            raise AirflowSkipException(decision.explanation)
        raise DagRunTriggerException(
            trigger_dag_id=required_text("trigger_dag_id", self.trigger_dag_id),
            dag_run_id=run_id,
            conf=self._conf(decision, pin),
            logical_date=None,
            reset_dag_run=False,
            skip_when_already_exists=True,
            wait_for_completion=False,
            allowed_states=["success"],
            failed_states=["failed"],
            poke_interval=60,
            deferrable=False,
            note=decision.explanation,
        )

    def _policy(self) -> RetrainPolicy:
        return RetrainPolicy(
            on_drift=self.on_drift,
            max_model_age=_duration("max_model_age", self.max_model_age),
            retrain_every=_duration("retrain_every", self.retrain_every),
            cooldown=_duration("cooldown", self.cooldown) or timedelta(0),
        )

    def _conf(self, decision: RetrainDecision, pin: DatasetPin) -> dict[str, Any]:
        further = dict(self.conf or {})
        taken = sorted(further.keys() & set(_OWN_CONF))
        if taken:
            raise InvalidArgumentError(f"conf sets {', '.join(taken)}, which the operator sets itself; remove them")
        return {**further, "reason": decision.explanation, "data_version": pin.version}

    def _state(self, pin: DatasetPin) -> RetrainState:
        name = required_text("model_name", self.model_name)
        drift = (
            None if self.drift_verdict is None else choice("drift_verdict", self.drift_verdict, get_args(DriftVerdict))
        )
        champion = champion_of(self.hook, name)
        if champion is not None:
            self.mlflow_model_version_url = self.hook.model_version_url(name, champion.version)
        latest, trained = self._trainings(name, pin)
        return RetrainState(
            now=now(),
            drift=cast("DriftVerdict | None", drift),
            champion_since=_time(champion.creation_timestamp) if champion else None,
            last_training_started=_time(latest.start_time) if latest else None,
            data_version=pin.version,
            data_hash=pin.hash,
            last_trained_data_hash=pin.hash if trained else None,
        )

    def _trainings(self, name: str, pin: DatasetPin) -> tuple[Run | None, bool]:
        """Find the latest training of the model, and whether one has finished on this very data."""
        experiment = self.hook.get_experiment_by_name(required_text("experiment", self.experiment))
        if experiment is None:
            return None, False
        newest_first = ["attributes.start_time DESC"]
        of_model = (
            f"tags.`{contract.TAG_KIND}` = {filter_value(contract.KIND_TRAINING)} "
            f"and tags.`{contract.TAG_MODEL_NAME}` = {filter_value(name)}"
        )
        ids = [experiment.experiment_id]
        latest = self.hook.search_runs(ids, of_model, newest_first, 1)
        on_this_data = (
            f"{of_model} and tags.`{contract.TAG_DATA_HASH}` = {filter_value(pin.hash)} "
            "and attributes.status = 'FINISHED'"
        )
        return (latest[0] if latest else None), bool(self.hook.search_runs(ids, on_this_data, newest_first, 1))


def _result(decision: RetrainDecision, run_id: str) -> dict[str, Any]:
    return {
        "retrain": decision.retrain,
        "explanation": decision.explanation,
        "reasons": list(decision.reasons),
        "objections": list(decision.objections),
        "triggered_run_id": run_id,
    }


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
