"""What all operators share: arguments, refusals and retries, serialisation, rendering; no server is asked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowSkipException

import airflow_mcp.operators
from airflow_mcp.core.argument import choice, flag, required_text, whole_number
from airflow_mcp.exceptions import FailedError, InvalidArgumentError, MlflowError, RefusedError
from airflow_mcp.operators.approval import ApprovalSeatOperator, RequestReleaseOperator
from airflow_mcp.operators.audit import CheckpointAuditOperator, ReconcileAuditOperator
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.features import FeatureSkewCheckOperator, GetHistoricalFeaturesOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.gate_approval import RecordApprovalOperator
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.maintenance import SweepPodsOperator
from airflow_mcp.operators.model_server import DeployModelServerOperator, RollbackModelServerOperator
from airflow_mcp.operators.passport import IssuePassportOperator
from airflow_mcp.operators.pipeline import BeginPipelineOperator
from airflow_mcp.operators.publish import PublishModelOperator
from airflow_mcp.operators.quality import CheckQualityOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_mcp.operators.rehearsal import RehearseRollbackOperator
from airflow_mcp.operators.replay import ReplayModelOperator
from airflow_mcp.operators.retrain import RetrainOutcomeOperator, RetrainTriggerOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.select import SelectModelOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator
from airflow_mcp.operators.steer_rollout import SteerRolloutOperator
from airflow_mcp.operators.step import RunStepOperator
from airflow_mcp.operators.training import TrainModelOperator
from tests.support.task_harness import TaskOutcome, run_task

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens here: a task that asks it does not end as a refusal."""
DATA = {"uri": "/data/v1/train.csv", "version": "v1", "hash": "sha256:00"}
MODEL = {"model_name": "fraud"}
ARGUMENTS: dict[type[ModelControlOperator], dict[str, Any]] = {
    BeginPipelineOperator: {
        "spec_hash": "h",
        "code": {"repo_url": "https://git.example.com/team/fraud"},
        "experiment_name": "fraud",
        "stages": ["train", "gate"],
        **MODEL,
    },
    PinDatasetOperator: {"root": "/data", "files": {"train": "train.csv"}},
    IssuePassportOperator: {"version": "1", **MODEL},
    TrainModelOperator: {"experiment_name": "fraud", "command": ["train"], **MODEL},
    EvaluateModelOperator: {
        "run_id": "r1",
        "model_uri": "models:/m-1",
        "dataset": DATA,
        "target": "y",
        "model_type": "classifier",
        **MODEL,
    },
    SelectModelOperator: {"candidates": [{"name": "a", "run_id": "r1", "model_uri": "models:/m-1"}], "metric": "f1"},
    EvaluationGateOperator: {"run_id": "r1", "thresholds": ["accuracy >= 0.9"], **MODEL},
    RegisterModelOperator: {"model_uri": "models:/m-1", **MODEL},
    LoadCheckOperator: {"version": "2", "alias": "champion", "image": "image:1", "experiment_name": "checks", **MODEL},
    RehearseRollbackOperator: {"image": "image:1", "experiment_name": "checks", **MODEL},
    PromoteModelOperator: {"version": "2", "expected_champion": "1", **MODEL},
    RollbackModelOperator: {"to_version": "1", **MODEL},
    RolloutModelOperator: {"version": "2", "expected_champion": "1", "experiment_name": "rollouts", **MODEL},
    SteerRolloutOperator: {"action": "pause", "reason": "errors", **MODEL},
    DriftCheckOperator: {"experiment_name": "drift", "current": DATA, "reference": DATA, **MODEL},
    GetHistoricalFeaturesOperator: {
        "experiment_name": "features",
        "feature_repo": "/feast",
        "features": ["stats:amount"],
        "entities": DATA,
        "output_uri": "/versions",
        **MODEL,
    },
    FeatureSkewCheckOperator: {
        "experiment_name": "features",
        "feature_repo": "/feast",
        "features": ["stats:amount"],
        "entities": DATA,
        **MODEL,
    },
    CheckQualityOperator: {
        "experiment_name": "quality",
        "requests": "/log",
        "labels": "/labels.csv",
        "model_type": "classifier",
        "policy": {"limits": [{"metric": "accuracy", "minimum": 0.8}]},
        **MODEL,
    },
    RetrainTriggerOperator: {"trigger_dag_id": "nightly", "experiment_name": "fraud", "dataset": DATA, **MODEL},
    RetrainOutcomeOperator: {"run_id": "r1", **MODEL},
    RunStepOperator: {"experiment_name": "fraud", "command": ["pytest", "-q"], "folder": "/code", **MODEL},
    ReplayModelOperator: {
        "run_id": "r1",
        "model_uri": "models:/m-1",
        "requests": "/log/*.parquet",
        "model_type": "classifier",
        **MODEL,
    },
    TransitionModelStageOperator: {"version": "2", "stage": "Production", **MODEL},
    CopyModelVersionOperator: {
        "version": "2",
        "experiment_name": "copies",
        "target_model_name": "fraud_production",
        **MODEL,
    },
    PublishModelOperator: {"source": f"uploads:/{'0' * 32}", "max_bytes": 1 << 20, **MODEL},
    RecordApprovalOperator: {"run_id": "r1", "report_hash": "sha256:00", "answer": {}, **MODEL},
    RequestReleaseOperator: {"version": "2", "seats": 3, **MODEL},
    ApprovalSeatOperator: {"version": "2", "seat": 1, "seats": 3, **MODEL},
    SweepPodsOperator: {"experiments": ["fraud"]},
    CheckpointAuditOperator: {"anchors": ["file:///anchors"]},
    ReconcileAuditOperator: {},
    DeployModelServerOperator: {"image": "server:1", "namespace": "ml", **MODEL},
    RollbackModelServerOperator: {"deployment": "fraud", "namespace": "ml"},
}
every_operator = pytest.mark.parametrize("operator", ARGUMENTS, ids=lambda operator: operator.__name__)


def run(operator: type[ModelControlOperator], **changes: Any) -> TaskOutcome:
    """Run a task that may not get as far as MLflow."""
    arguments = {"task_id": "task", "retries": 3, **ARGUMENTS[operator], **changes}
    connection = {"host": NOWHERE, "extra": {"retries": 0, "timeout": 1}}
    return run_task(operator(**arguments), connections={"mlflow_default": connection})


def test_every_operator_of_the_package_is_covered_by_these_tests() -> None:
    found: set[type] = set()
    for module in pkgutil.iter_modules(airflow_mcp.operators.__path__, "airflow_mcp.operators."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, ModelControlOperator) and value.__module__ == module.name:
                found.add(value)
    bases = {base for operator in found for base in operator.__mro__[1:]} - {LoadCheckOperator}
    assert found - bases == ARGUMENTS.keys()


@every_operator
def test_every_template_field_is_an_attribute_and_an_argument(operator: type[ModelControlOperator]) -> None:
    made = operator(task_id="task", **ARGUMENTS[operator])
    fields = list(made.template_fields)
    assert fields
    assert len(fields) == len(set(fields))
    for name in fields:
        given = ARGUMENTS[operator].get(name)
        assert hasattr(made, name)
        assert given is None or getattr(made, name) == given


@every_operator
def test_every_operator_survives_serialisation_in_a_dag(operator: type[ModelControlOperator]) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("a_dag", schedule=None) as dag:
        operator(task_id="task", **ARGUMENTS[operator])
    document = DagSerialization.to_dict(dag)
    restored = DagSerialization.from_dict(document).get_task("task")
    assert restored.task_type == operator.__name__
    assert set(restored.template_fields) == set(operator.template_fields)
    assert DagSerialization.to_dict(dag) == document


@every_operator
def test_every_template_field_is_rendered(operator: type[ModelControlOperator]) -> None:
    from jinja2 import Environment

    made = operator(task_id="task", **ARGUMENTS[operator])
    for name in made.template_fields:
        setattr(made, name, "{{ word }} and more")
    made.render_template_fields({"word": "rendered"}, Environment())  # type: ignore[arg-type]
    assert {getattr(made, name) for name in made.template_fields} == {"rendered and more"}


@every_operator
def test_an_unknown_argument_is_refused_when_the_dag_is_parsed(operator: type[ModelControlOperator]) -> None:
    with pytest.raises(TypeError, match="surprise"):
        operator(task_id="task", surprise=1, **ARGUMENTS[operator])


NEEDED = [
    (PinDatasetOperator, "version"),
    (TrainModelOperator, "experiment_name"),
    (EvaluateModelOperator, "run_id"),
    (EvaluationGateOperator, "run_id"),
    (RegisterModelOperator, "model_name"),
    (RegisterModelOperator, "model_uri"),
    (LoadCheckOperator, "model_name"),
    (PromoteModelOperator, "model_name"),
    (PromoteModelOperator, "version"),
    (RollbackModelOperator, "model_name"),
    (RolloutModelOperator, "experiment_name"),
    (DriftCheckOperator, "experiment_name"),
    (CheckQualityOperator, "experiment_name"),
    (GetHistoricalFeaturesOperator, "output_uri"),
    (FeatureSkewCheckOperator, "feature_repo"),
    (RetrainTriggerOperator, "model_name"),
]


@pytest.mark.parametrize("value", [None, "", "  ", "None"])
@pytest.mark.parametrize(("operator", "name"), NEEDED, ids=lambda item: getattr(item, "__name__", item))
def test_what_another_task_did_not_push_is_refused_by_name(
    operator: type[ModelControlOperator], name: str, value: str | None, tmp_path: Any
) -> None:
    others = {"root": str(tmp_path)} if name == "version" and operator is PinDatasetOperator else {}
    outcome = run(operator, **others, **{name: value})
    assert outcome.state == "failed"
    assert f"{name} must be " in str(outcome.error)
    assert f"; got {value!r}" in str(outcome.error)
    assert "that task pushed no XCom" in str(outcome.error)


DATASETS = [
    (TrainModelOperator, "dataset", {}),
    (RetrainTriggerOperator, "dataset", {}),
    (DriftCheckOperator, "current", {}),
    (DriftCheckOperator, "reference", {}),
]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "must be a mapping with uri and version or hash; got ''"),
        ("/data/train.csv", "must be a mapping with uri and version or hash; got '/data/train.csv'"),
        ({}, "must be a mapping with uri and version or hash; got {}"),
        ({"uri": "/data/train.csv"}, "'/data/train.csv' is not pinned. Set its version, its hash"),
        ({**DATA, "sha": "x"}, "must have only the keys uri, version, hash"),
    ],
)
@pytest.mark.parametrize(("operator", "name", "more"), DATASETS)
def test_data_that_is_not_pinned_is_refused(
    operator: type[ModelControlOperator], name: str, more: dict[str, Any], value: Any, message: str
) -> None:
    outcome = run(operator, **more, **{name: value})
    assert outcome.state == "failed"
    assert f"{name} {message}" in str(outcome.error)


@pytest.mark.parametrize("missing", [None, "None", "", "latest"])
def test_a_champion_that_was_not_pushed_does_not_mean_that_there_is_none(missing: str | None) -> None:
    outcome = run(PromoteModelOperator, expected_champion=missing)
    assert outcome.state == "failed"
    assert f"expected_champion must be a version number or 'none'; got {missing!r}" in str(outcome.error)


class Raises(ModelControlOperator):
    """Ends with a given error."""

    def __init__(self, *, error: Exception | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def act(self, context: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"answer": 42}


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RefusedError("no"), "failed"),
        (InvalidArgumentError("no"), "failed"),
        (FailedError("broken"), "up_for_retry"),
        (OSError("broken"), "up_for_retry"),
        (MlflowError("a wrong tag", 400, "INVALID_PARAMETER_VALUE"), "failed"),
        (MlflowError("too large", 413), "failed"),
        (MlflowError("busy", 503, "TEMPORARILY_UNAVAILABLE"), "up_for_retry"),
    ],
)
def test_a_refusal_is_final_and_a_failure_is_retried(error: Exception, state: str) -> None:
    outcome = run_task(Raises(task_id="task", retries=3, error=error))
    assert outcome.state == state
    assert str(error) in str(outcome.error)


def test_the_reason_of_a_skip_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Mock()
    monkeypatch.setattr(Raises, "log", log)
    outcome = run_task(Raises(task_id="task", error=AirflowSkipException("the same inputs were rejected")))
    assert outcome.state == "skipped"
    assert "Skipped: the same inputs were rejected" in [call.args[0] % call.args[1:] for call in log.info.mock_calls]


def test_a_failure_without_retries_left_is_final() -> None:
    outcome = run_task(Raises(task_id="task", retries=3, error=FailedError("broken")), try_number=4)
    assert outcome.state == "failed"


def test_every_part_of_a_result_is_an_xcom_of_its_own() -> None:
    outcome = run_task(Raises(task_id="task"))
    assert outcome.result == {"answer": 42}
    assert outcome.xcom["answer"] == 42


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), ("true", True), (" False ", False), ("TRUE", True)]
)
def test_flags_are_read_from_templates(value: Any, expected: bool) -> None:
    assert flag("dry_run", value) is expected


@pytest.mark.parametrize("value", [None, "", "yes", 1, 0, "1", "None"])
def test_anything_else_is_no_flag(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="dry_run must be true or false; got "):
        flag("dry_run", value)


def test_choices_name_what_is_allowed() -> None:
    assert choice("on_failed", "skip", ("fail", "skip")) == "skip"
    with pytest.raises(InvalidArgumentError, match="on_failed must be one of fail, skip; got 'stop'"):
        choice("on_failed", "stop", ("fail", "skip"))


def test_a_text_is_given_back_as_it_is() -> None:
    assert required_text("model_name", " fraud ") == " fraud "


def test_operators_import_none_of_the_heavy_libraries() -> None:
    heavy = {"mlflow", "evidently", "dvc", "pandas", "numpy", "sklearn", "kubernetes"}
    modules = sorted({operator.__module__ for operator in ARGUMENTS})
    code = f"import sys, {', '.join(modules)}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("value", "expected"), [(7, 7), ("7", 7), (" 10000 ", 10_000), ("-3", -3)])
def test_a_whole_number_may_come_from_a_template(value: Any, expected: int) -> None:
    assert whole_number("last", value) == expected


@pytest.mark.parametrize("value", [7.0, "7.5", "", "None", None, True, "seven"])
def test_anything_else_is_no_whole_number(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a whole number; got"):
        whole_number("last", value)


class TestMappedLedgers:
    """A mapped task knows its ledgers when the Dag is parsed, or says what to pass."""

    GIVEN: ClassVar[dict[str, Any]] = {"task_id": "task", "trigger_dag_id": "nightly", "experiment_name": "fraud"}

    @pytest.mark.parametrize(
        "given", [{"ledger": Asset("retrain/a")}, {"model_name": "a"}, {"inlets": [Asset("retrain/a")]}]
    )
    def test_the_ledger_is_an_inlet_of_the_mapped_task(self, given: dict[str, Any]) -> None:
        with DAG("dag", schedule=None):
            mapped = RetrainTriggerOperator.partial(**self.GIVEN, **given).expand_kwargs([{"dataset": DATA}])
        assert mapped.inlets == [Asset("retrain/a")]
        if "model_name" in given:
            task = mapped.unmap({"dataset": DATA})
            assert (task.inlets, vars(task)["ledger"]) == ([Asset("retrain/a")], Asset("retrain/a"))

    def test_without_it_the_dag_is_refused_when_it_is_parsed(self) -> None:
        with DAG("dag", schedule=None), pytest.raises(InvalidArgumentError, match=r"pass inlets=\[Asset\('retrain/"):
            RetrainTriggerOperator.partial(**self.GIVEN)


class Acts(ModelControlOperator):
    """Returns who it acts as."""

    def act(self, context: Any) -> dict[str, Any]:
        actor = self.actor(context)
        return {"by": str(actor), "requested_by": actor.requested_by, "run_type": actor.run_type}


@pytest.mark.parametrize(
    ("dag_run", "requested_by", "run_type"),
    [
        ({"run_type": DagRunType.MANUAL, "triggering_user_name": "lena"}, "lena", "manual"),
        ({"run_type": DagRunType.SCHEDULED, "triggering_user_name": None}, "", "scheduled"),
        ({"run_type": DagRunType.ASSET_TRIGGERED}, "", "asset_triggered"),
    ],
)
def test_an_actor_names_who_triggered_the_dag_run(dag_run: dict[str, Any], requested_by: str, run_type: str) -> None:
    result = run_task(Acts(task_id="task"), dag_run=dag_run).result
    assert (result["requested_by"], result["run_type"]) == (requested_by, run_type)
    assert result["by"].endswith(".task run-1")
