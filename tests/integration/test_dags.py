"""The Dags in ``dags/``: what they are made of, and one night from data to champion."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import DownstreamTasksSkipped

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import write_profile
from airflow_mcp.core.drift.summary import read_drift_summary
from airflow_mcp.exceptions import MlflowError
from airflow_mcp.registry.claims import CLAIM_LIFETIME
from airflow_mcp.work.drift.profiles import profile_dataset
from tests.support.mlflow_world import World
from tests.support.paths import ROOT
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

FOLDER = ROOT / "dags"
HEAVY = ("mlflow", "evidently", "pandas", "sklearn", "kubernetes")

EXPECTED: dict[str, dict[str, Any]] = {
    "choose_candidate": {
        "schedule": None,
        "tasks": {
            "begin": "BeginPipelineOperator",
            "pin_data": "PinDatasetOperator",
            "train_strong": "TrainModelOperator",
            "train_weak": "TrainModelOperator",
            "evaluate_strong": "EvaluateModelOperator",
            "evaluate_weak": "EvaluateModelOperator",
            "select": "SelectModelOperator",
            "gate": "EvaluationGateOperator",
        },
        "edges": {
            "begin": {"pin_data", "train_strong", "train_weak"},
            "pin_data": {"train_strong", "train_weak", "evaluate_strong", "evaluate_weak"},
            "train_strong": {"evaluate_strong", "select"},
            "train_weak": {"evaluate_weak", "select"},
            "evaluate_strong": {"select"},
            "evaluate_weak": {"select"},
            "select": {"gate"},
            "gate": set(),
        },
        "params": {"data_version": "latest", "reason": None},
    },
    "quality_gates": {
        "schedule": None,
        "tasks": {
            "tests": "RunStepOperator",
            "lint": "RunStepOperator",
            "pin_data": "PinDatasetOperator",
            "train": "TrainModelOperator",
            "evaluate": "EvaluateModelOperator",
            "gate": "EvaluationGateOperator",
            "approve": "ApprovalOperator",
            "record_approval": "RecordApprovalOperator",
            "register": "RegisterModelOperator",
        },
        "edges": {
            "tests": {"train", "gate"},
            "lint": {"train", "gate"},
            "pin_data": {"train", "evaluate"},
            "train": {"evaluate", "gate", "register"},
            "evaluate": {"gate"},
            "gate": {"approve", "record_approval", "register"},
            "approve": {"record_approval"},
            "record_approval": {"register"},
            "register": set(),
        },
        "params": {"data_version": "latest", "gate_mode": "enforce"},
    },
    "breast_cancer_pipeline": {
        "schedule": None,
        "tasks": {
            "begin": "BeginPipelineOperator",
            "pin_data": "PinDatasetOperator",
            "train": "TrainModelOperator",
            "evaluate": "EvaluateModelOperator",
            "gate": "EvaluationGateOperator",
            "register": "RegisterModelOperator",
            "load_check": "LoadCheckOperator",
            "promote": "PromoteModelOperator",
            "outcome": "RetrainOutcomeOperator",
        },
        "edges": {
            "begin": {"pin_data", "train", "promote"},
            "pin_data": {"train", "evaluate"},
            "train": {"evaluate", "gate", "register"},
            "evaluate": {"gate"},
            "gate": {"register", "promote"},
            "register": {"load_check"},
            "load_check": {"promote"},
            "promote": {"outcome"},
            "outcome": set(),
        },
        "params": {
            "data_version": "latest",
            "commit": None,
            "start_at": "train",
            "from_run": None,
            "dry_run": False,
            "force": False,
            "reason": None,
            "regularisation": 1.0,
        },
    },
    "train_commit": {
        "schedule": None,
        "tasks": {"build": "RunStepOperator", "train": "TrainModelOperator"},
        "edges": {"build": {"train"}, "train": set()},
        "params": {"repository": "https://git.example.com/team/model", "commit": "0" * 40},
    },
    "drift_watch": {
        "schedule": "0 1 * * *",
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "drift_check": "DriftCheckOperator",
            "retrain": "RetrainTriggerOperator",
        },
        "edges": {"pin_data": {"drift_check", "retrain"}, "drift_check": {"retrain"}, "retrain": set()},
        "params": {"data_version": "latest", "cooldown_hours": 20, "evidently_rows": 1000},
    },
    "profile_folder": {
        "schedule": None,
        "tasks": {
            "profile_commands": "_PythonDecoratedOperator",
            "profile_files": "MappedOperator",
            "stored_profiles": "_PythonDecoratedOperator",
            "drift_check": "DriftCheckOperator",
        },
        "edges": {
            "profile_commands": {"profile_files"},
            "profile_files": {"stored_profiles"},
            "stored_profiles": {"drift_check"},
            "drift_check": set(),
        },
        "params": {
            "folder": "/data/windows/latest",
            "reference": "/data/profiles/reference.json",
            "files_per_pod": 1,
        },
    },
    "feast_training": {
        "schedule": None,
        "tasks": {
            "pin_entities": "PinDatasetOperator",
            "check_skew": "FeatureSkewCheckOperator",
            "get_features": "GetHistoricalFeaturesOperator",
            "train": "TrainModelOperator",
        },
        "edges": {
            "pin_entities": {"check_skew", "get_features"},
            "check_skew": {"train"},
            "get_features": {"train"},
            "train": set(),
        },
        "params": {"data_version": "latest"},
    },
    "quality_watch": {
        "schedule": "0 5 * * *",
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "check_quality": "CheckQualityOperator",
            "retrain": "RetrainTriggerOperator",
        },
        "edges": {"pin_data": {"retrain"}, "check_quality": {"retrain"}, "retrain": set()},
        "params": {"label_delay": "P7D"},
    },
    "nightly_retrain": {
        "schedule": "0 2 * * *",
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "train": "TrainModelOperator",
            "evaluate": "EvaluateModelOperator",
            "gate": "EvaluationGateOperator",
            "register": "RegisterModelOperator",
            "load_check": "LoadCheckOperator",
            "promote": "PromoteModelOperator",
            "outcome": "RetrainOutcomeOperator",
        },
        "edges": {
            "pin_data": {"train", "evaluate"},
            "train": {"evaluate", "gate", "register"},
            "evaluate": {"gate"},
            "gate": {"register", "promote"},
            "register": {"load_check"},
            "load_check": {"promote"},
            "promote": {"outcome"},
            "outcome": set(),
        },
        "params": {"data_version": "latest", "force": False, "dry_run": False, "reason": None},
    },
    "pod_maintenance": {
        "schedule": "17 * * * *",
        "tasks": {"sweep": "SweepPodsOperator"},
        "edges": {"sweep": set()},
        "params": {"dry_run": True},
    },
    "audit_keeper": {
        "schedule": "5 * * * *",
        "tasks": {"reconcile": "ReconcileAuditOperator", "checkpoint": "CheckpointAuditOperator"},
        "edges": {"reconcile": {"checkpoint"}, "checkpoint": set()},
        "params": {},
    },
    "copy_to_production": {
        "schedule": None,
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "copy": "CopyModelVersionOperator",
            "evaluate": "EvaluateModelOperator",
            "gate": "EvaluationGateOperator",
            "load_check": "LoadCheckOperator",
            "promote": "PromoteModelOperator",
        },
        "edges": {
            "pin_data": {"evaluate"},
            "copy": {"evaluate", "gate", "load_check"},
            "evaluate": {"gate"},
            "gate": {"load_check", "promote"},
            "load_check": {"promote"},
            "promote": set(),
        },
        "params": {"model_name": "breast_cancer", "version": "1", "data_version": "latest", "reason": None},
    },
    "set_model_stage": {
        "schedule": None,
        "tasks": {"set_stage": "TransitionModelStageOperator"},
        "edges": {"set_stage": set()},
        "params": {
            "model_name": "breast_cancer",
            "version": "1",
            "stage": "Staging",
            "archive_existing": False,
            "expected_champion": None,
            "reason": None,
        },
    },
    "replay_requests": {
        "schedule": None,
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "evaluate": "EvaluateModelOperator",
            "replay": "ReplayModelOperator",
            "gate": "EvaluationGateOperator",
        },
        "edges": {"pin_data": {"evaluate"}, "evaluate": {"replay", "gate"}, "replay": {"gate"}, "gate": set()},
        "params": {
            "run_id": "0" * 32,
            "model_uri": "models:/m-0",
            "requests": "/data/breast_cancer/requests",
            "last": 10_000,
        },
    },
    "rollback_model": {
        "schedule": None,
        "tasks": {"load_check": "LoadCheckOperator", "rollback": "RollbackModelOperator"},
        "edges": {"load_check": {"rollback"}, "rollback": set()},
        "params": {"model_name": "breast_cancer", "to_version": None, "check_first": True, "reason": None},
    },
    "promote_model": {
        "schedule": None,
        "tasks": {"load_check": "LoadCheckOperator", "promote": "PromoteModelOperator"},
        "edges": {"load_check": {"promote"}, "promote": set()},
        "params": {"model_name": "breast_cancer", "version": "1", "expected_champion": "none", "reason": None},
    },
    "canary_rollout": {
        "schedule": None,
        "tasks": {
            "load_check": "LoadCheckOperator",
            "rollout": "RolloutModelOperator",
            "served": "ModelServedSensor",
        },
        "edges": {"load_check": {"rollout"}, "rollout": {"served"}, "served": set()},
        "params": {"model_name": "breast_cancer", "version": "1", "expected_champion": "none", "reason": None},
    },
    "deploy_model_server": {
        "schedule": None,
        "tasks": {"deploy": "DeployModelServerOperator"},
        "edges": {"deploy": set()},
        "params": {
            "model_name": "breast_cancer",
            "image": "airflow-mcp/serving:dev",
            "namespace": "ml",
            "replicas": 2,
            "dry_run": False,
        },
    },
    "rollback_model_server": {
        "schedule": None,
        "tasks": {"rollback": "RollbackModelServerOperator"},
        "edges": {"rollback": set()},
        "params": {"deployment": "breast-cancer", "namespace": "ml", "to_revision": 0},
    },
    "publish_model": {
        "schedule": None,
        "tasks": {
            "publish": "PublishModelOperator",
            "register": "RegisterModelOperator",
            "load_check": "LoadCheckOperator",
        },
        "edges": {"publish": {"register"}, "register": {"load_check"}, "load_check": set()},
        "params": {
            "model_name": "breast_cancer",
            "source": f"uploads:/{'0' * 32}",
            "description": "",
            "input_example": None,
            "provenance": None,
            "reason": None,
            "request_id": "",
        },
    },
    "issue_passport": {
        "schedule": None,
        "tasks": {"issue_passport": "IssuePassportOperator"},
        "edges": {"issue_passport": set()},
        "params": {"model_name": "breast_cancer", "version": "1"},
    },
    "train_and_roll_out": {
        "schedule": None,
        "tasks": {
            "pin_data": "PinDatasetOperator",
            "train": "TrainModelOperator",
            "evaluate": "EvaluateModelOperator",
            "gate": "EvaluationGateOperator",
            "register": "RegisterModelOperator",
            "load_check": "LoadCheckOperator",
            "rollout": "RolloutModelOperator",
        },
        "edges": {
            "pin_data": {"train", "evaluate"},
            "train": {"evaluate", "gate", "register"},
            "evaluate": {"gate"},
            "gate": {"register", "rollout"},
            "register": {"load_check"},
            "load_check": {"rollout"},
            "rollout": set(),
        },
        "params": {"data_version": "latest", "scaling": "standard", "regularisation": 1.0, "reason": None},
    },
    "release_model": {
        "schedule": None,
        "tasks": {
            "request": "RequestReleaseOperator",
            **{f"seat_{number}": "ApprovalSeatOperator" for number in range(1, 6)},
            "promote": "PromoteModelOperator",
        },
        "edges": {
            "request": {"seat_1"},
            **{f"seat_{number}": {f"seat_{number + 1}"} for number in range(1, 5)},
            "seat_5": {"promote"},
            "promote": set(),
        },
        "params": {"model_name": "breast_cancer", "version": "1", "expected_champion": "none"},
        "retries": 5,  # a retry finds an answer that Airflow has lost
        "max_active_runs": 16,  # a release that waits for people holds up no other one
    },
    "rollback_with_approval": {
        "schedule": None,
        "tasks": {
            "request": "RequestReleaseOperator",
            "seat_1": "ApprovalSeatOperator",
            "seat_2": "ApprovalSeatOperator",
            "load_check": "LoadCheckOperator",
            "rollback": "RollbackModelOperator",
        },
        "edges": {
            "request": {"seat_1"},
            "seat_1": {"seat_2"},
            "seat_2": {"load_check"},
            "load_check": {"rollback"},
            "rollback": set(),
        },
        "params": {"model_name": "breast_cancer", "to_version": "1", "check_first": True, "reason": None},
        "retries": 5,  # a retry finds an answer that Airflow has lost
        "max_active_runs": 16,
    },
    "steer_rollout": {
        "schedule": None,
        "tasks": {"steer": "SteerRolloutOperator"},
        "edges": {"steer": set()},
        "params": {
            "model_name": "breast_cancer",
            "action": "pause",
            "reason": "by hand",
            "rollout": "",
            "generation": "",
        },
    },
    "rehearse_rollback": {
        "schedule": "0 5 * * 0",
        "tasks": {
            "rehearse_previous_champion": "RehearseRollbackOperator",
            "rehearse_stable": "RehearseRollbackOperator",
        },
        "edges": {"rehearse_previous_champion": set(), "rehearse_stable": set()},
        "params": {"model_name": "breast_cancer"},
    },
    "recheck_champions": {
        "schedule": "0 6 * * *",
        "tasks": {"check_champion": "LoadCheckOperator", "check_previous_champion": "LoadCheckOperator"},
        "edges": {"check_champion": set(), "check_previous_champion": set()},
        "params": {"model_name": "breast_cancer"},
    },
}


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(FOLDER))


@pytest.fixture(params=EXPECTED)
def dag_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_folder_holds_these_dags_and_no_import_error(bag: Any) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == set(EXPECTED)


def test_tasks_edges_and_params_are_as_agreed(bag: Any, dag_id: str) -> None:
    dag, expected = bag.dags[dag_id], EXPECTED[dag_id]
    assert {task.task_id: type(task).__name__ for task in dag.tasks} == expected["tasks"]
    assert {task.task_id: set(task.downstream_task_ids) for task in dag.tasks} == expected["edges"]
    assert dict(dag.params.dump()) == expected["params"]
    assert dag.max_active_runs == expected.get("max_active_runs", 1)
    assert dag.catchup is False
    assert all(task.retries == expected.get("retries", 2) for task in dag.tasks)


@pytest.mark.parametrize(("dag_id", "hour"), [("drift_watch", 1), ("nightly_retrain", 2), ("recheck_champions", 6)])
def test_the_next_run_is_at_its_hour_of_the_next_night(bag: Any, dag_id: str, hour: int) -> None:
    from airflow.sdk import timezone
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    assert bag.dags[dag_id].schedule == EXPECTED[dag_id]["schedule"]
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags[dag_id])).timetable
    noon = TimeRestriction(earliest=timezone.datetime(2026, 6, 1, 12), latest=None, catchup=True)
    info = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=noon)
    assert info.run_after == datetime(2026, 6, 2, hour, tzinfo=UTC)


def test_a_rollback_happens_by_hand_only(bag: Any) -> None:
    assert bag.dags["rollback_model"].schedule is None


def test_the_retries_of_a_killed_promotion_outlive_its_claim(bag: Any, dag_id: str) -> None:
    for task in bag.dags[dag_id].tasks:
        assert task.retries * task.retry_delay >= CLAIM_LIFETIME
        assert task.retry_delay >= timedelta(seconds=30)


def test_a_dag_is_the_same_however_often_it_is_parsed(bag: Any, dag_id: str) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    again = DagBag(dag_folder=str(FOLDER)).dags[dag_id]
    assert DagSerialization.to_dict(again) == DagSerialization.to_dict(bag.dags[dag_id])


def test_parsing_the_dags_imports_no_heavy_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, runpy\n"
        f"for name in {sorted(path.name for path in FOLDER.glob('*.py'))!r}:\n"
        f"    runpy.run_path({str(FOLDER)!r} + '/' + name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("rollback_model", {"to_version": "latest"}),
        ("rollback_model", {"model_name": ""}),
        ("canary_rollout", {"expected_champion": "latest"}),
        ("drift_watch", {"cooldown_hours": -1}),
        ("nightly_retrain", {"force": "yes"}),
    ],
)
def test_a_form_that_is_filled_in_wrongly_is_refused(bag: Any, dag_id: str, conf: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    params = bag.dags[dag_id].params
    filled_in = type(params)(params)
    with pytest.raises(ParamValidationError, match=f"Invalid input for param {next(iter(conf))}"):
        filled_in.update(conf)


# --- one night -------------------------------------------------------------------------------------------------
@pytest.fixture
def night(bag: Any, mlflow_server: MlflowServer, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make Airflow know the Dags, in the database of the test session."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.utils.db import initdb

    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(FOLDER))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
    monkeypatch.setenv("AIRFLOW_VAR_BREAST_CANCER_DATA", str(world.folder / "data"))
    initdb()
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(bag, "dags-folder", None)

    def run(dag_id: str, conf: dict[str, Any], dags: Any = bag) -> tuple[str, dict[str, str]]:
        done = dags.dags[dag_id].test(run_conf=conf)
        assert {instance.try_number for instance in done.get_task_instances()} <= {0, 1}
        states = {instance.task_id: str(instance.state) for instance in done.get_task_instances()}
        return str(done.state), states

    return run


def test_a_night_ends_with_a_champion_and_the_next_one_is_skipped(night: Any, world: World) -> None:
    from demo.data import write_version

    write_version(world.folder / "data", "night-1")
    state, states = night("nightly_retrain", {"reason": "the first night"})
    assert states == dict.fromkeys(EXPECTED["nightly_retrain"]["tasks"], "success")
    assert state == "success"
    model = world.hook.get_registered_model("breast_cancer")
    assert model.aliases == {"champion": "1"}
    version = world.hook.get_model_version("breast_cancer", "1")
    assert version.tags[contract.TAG_GATE_VERDICT] == "passed"
    assert version.tags[contract.TAG_DATA_VERSION] == "night-1"
    assert version.tags[contract.TAG_REASON] == "the first night"
    assert version.tags[contract.TAG_CODE_HASH].startswith("sha256:")

    state, states = night("nightly_retrain", {})
    assert state == "success"
    assert states == {"pin_data": "success", "outcome": "success"} | dict.fromkeys(
        ["train", "evaluate", "gate", "register", "load_check", "promote"], "skipped"
    )
    assert world.hook.get_registered_model("breast_cancer").aliases == {"champion": "1"}


def test_code_and_model_are_judged_together_and_nobody_is_asked_when_the_gate_decides(night: Any, world: World) -> None:
    from demo.data import write_version

    write_version(world.folder / "data", "night-1")
    with contextlib.suppress(MlflowError):  # against a champion of another test the gate might ask a person
        world.hook.delete_alias("breast_cancer", "champion")
    state, states = night("quality_gates", {})
    asked = ("approve", "record_approval")
    assert states == dict.fromkeys(EXPECTED["quality_gates"]["tasks"], "success") | dict.fromkeys(asked, "skipped")
    assert state == "success"
    experiment = world.hook.get_experiment_by_name("breast_cancer_quality")
    assert experiment is not None
    runs = world.hook.search_runs([experiment.experiment_id])
    (judged,) = [run for run in runs if contract.TAG_GATE_VERDICT in run.tags]
    report = json.loads(world.artifact(judged, contract.ARTIFACT_GATE_REPORT_JSON))
    assert {rule["kind"] for rule in report["rules"]} == {"threshold", "significance", "coverage", "findings"}
    assert report["decision"] in ("passed", "warned")  # latency only warns


def test_a_no_to_the_undecided_gate_skips_the_registration(bag: Any) -> None:
    ask = bag.dags["quality_gates"].get_task("approve")
    ti = SimpleNamespace(map_index=-1, xcom_push=lambda key, value: None)
    answer = {"chosen_options": ["Reject"], "params_input": {}, "responded_by_user": {"id": "7"}}
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        ask.execute_complete({"task": ask, "ti": ti}, {**answer, "responded_at": datetime.now(UTC)})
    assert set(skipped.value.tasks) == {"record_approval", "register"}


def test_the_pipeline_file_makes_a_champion_too_with_what_the_form_says(
    night: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from demo.data import write_version

    write_version(world.folder / "data", "night-1")
    monkeypatch.setenv("BREAST_CANCER_DATA", str(world.folder / "data"))
    dags = DagBag(dag_folder=str(FOLDER / "model_pipelines.py"))
    conf = {"reason": "from a file", "regularisation": 0.5}
    state, states = night("breast_cancer_pipeline", conf, dags)
    assert states == dict.fromkeys(EXPECTED["breast_cancer_pipeline"]["tasks"], "success")
    assert state == "success"
    assert world.hook.get_registered_model("breast_cancer_pipeline").aliases == {"champion": "1"}
    version = world.hook.get_model_version("breast_cancer_pipeline", "1")
    assert "from a file" in version.tags[contract.TAG_REASON]


def log_tumour_model(folder: Path, columns: int) -> tuple[str, str]:
    """Log a model of some columns in a finished run; give the run's id and the model's."""
    import mlflow
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = pd.read_csv(folder / "train.csv")
    inputs = rows.drop(columns="target").iloc[:, :columns].astype(float)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(inputs, rows["target"])
    with mlflow.start_run(experiment_id="0") as run:
        signature = mlflow.models.infer_signature(inputs, model.predict(inputs))
        info = mlflow.sklearn.log_model(
            model, name="model", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
        )
    return run.info.run_id, info.model_id


def test_the_files_of_a_folder_are_profiled_by_themselves_and_judged_together(night: Any, world: World) -> None:
    folder = world.folder / "window"
    folder.mkdir()

    def write(path: Path, start: int, shift: int) -> None:
        lines = "".join(f"{n % 17 + shift},{n % 13}\n" for n in range(start, start + 120))
        path.write_text(f"x1,x2\n{lines}")

    write(world.folder / "reference.csv", 0, 0)
    for number in range(3):
        write(folder / f"{number}.csv", 120 * number, 9)
    reference = write_profile(profile_dataset([DatasetPin(uri=str(world.folder / "reference.csv"))]))
    (world.folder / "reference.json").write_text(reference)
    conf = {"folder": str(folder), "reference": str(world.folder / "reference.json"), "files_per_pod": 2}
    state, states = night("profile_folder", conf)
    assert (state, states["drift_check"]) == ("success", "success")
    experiment = world.hook.get_experiment_by_name("breast_cancer-drift")
    assert experiment is not None
    run = world.hook.search_runs([experiment.experiment_id])[0]
    result = read_drift_summary(world.artifact(run, contract.ARTIFACT_DRIFT_SUMMARY), "summary").result
    assert result.current_rows == 360
    assert {column.column: column.drifted for column in result.columns} == {"x1": True, "x2": False}
    experiment = world.hook.get_experiment_by_name("breast_cancer-profiles")
    assert experiment is not None
    assert len(world.hook.search_runs([experiment.experiment_id])) == 2  # one pod had two files, the other one


def test_the_gate_after_a_replay_of_logged_requests_judges_every_region(
    night: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from demo.data import write_version

    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
    write_version(world.folder / "data", "night-1")
    folder = world.folder / "data" / "night-1"
    (run_id, model_id), (champion_run, champion_model) = log_tumour_model(folder, 30), log_tumour_model(folder, 25)
    with contextlib.suppress(MlflowError):
        world.hook.create_registered_model("breast_cancer")
    champion = world.hook.create_model_version(
        "breast_cancer", f"models:/{champion_model}", run_id=champion_run, model_id=champion_model
    )
    world.hook.set_alias("breast_cancer", "champion", champion.version)
    rows = pd.read_csv(folder / "evaluation.csv").drop(columns="target")
    log = pd.concat([rows] * 30, ignore_index=True)
    log = log.assign(
        request_id=[f"r{number}" for number in range(len(log))],
        requested_at=pd.date_range("2026-11-01", periods=len(log), freq="min", tz="UTC"),
        prediction=0,
        region=["north", "south"] * (len(log) // 2),
    )
    log.to_parquet(world.folder / "requests.parquet", index=False)
    state, states = night(
        "replay_requests",
        {
            "run_id": run_id,
            "model_uri": f"models:/{model_id}",
            "requests": str(world.folder / "requests.parquet"),
            "last": 3_000,
        },
    )
    assert states["replay"] == "success"
    rules = json.loads(world.artifact(run_id, contract.ARTIFACT_GATE_REPORT_JSON))["rules"]
    verdicts = {(rule["kind"], rule["slice"]): rule["verdict"] for rule in rules}
    assert set(verdicts) == {
        ("threshold", ""),
        ("replay", ""),
        ("replay_segment", "region=north"),
        ("replay_segment", "region=south"),
    }
    assert "of 3000 requests change" in next(rule["reason"] for rule in rules if rule["kind"] == "replay")
    held = set(verdicts.values()) == {"passed"}
    assert (state, states["gate"]) == (("success", "success") if held else ("failed", "failed"))
