"""What each constructor, and each task before it does anything, refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.summary import DriftSide
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.drift import DriftCheckOperator, drift_side
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.model_server import DeployModelServerOperator, RollbackModelServerOperator
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mcp.operators.replay import ReplayModelOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.workloads.kubernetes import KubernetesBackend
from tests.support.task_harness import TaskOutcome, run_task

DATA = {"uri": "/data/v1/train.csv", "version": "v1", "hash": "sha256:00"}
TRAIN = {"experiment_name": "fraud", "command": ["train"]}
EVALUATE = {
    "run_id": "r1",
    "model_uri": "models:/m-1",
    "model_name": "fraud",
    "dataset": DATA,
    "target": "y",
    "model_type": "classifier",
}
GATE = {"run_id": "r1", "model_name": "fraud", "thresholds": ["accuracy >= 0.9"]}
DRIFT = {"experiment_name": "drift", "model_name": "fraud", "current": DATA, "reference": DATA}

REPLAY = {
    "run_id": "r1",
    "model_uri": "models:/m-1",
    "model_name": "fraud",
    "requests": "/log",
    "model_type": "classifier",
}

SERVER = {"model_name": "m", "image": "registry/m:1"}
WRONG: list[tuple[type[ModelControlOperator], dict[str, Any], str]] = [
    (TrainModelOperator, {"experiment_name": "fraud"}, "exactly one of script and command must be given"),
    (TrainModelOperator, {**TRAIN, "script": "train.py"}, "exactly one of script and command must be given"),
    (TrainModelOperator, {**TRAIN, "arguments": ["--fast"]}, "arguments must be empty with command"),
    (TrainModelOperator, {**TRAIN, "workload_timeout": timedelta(0)}, "workload_timeout must be longer than zero; got"),
    (
        TrainModelOperator,
        {**TRAIN, "workload_resources": {"ram": "1Gi"}},
        "must have only the keys cpu, memory and gpu",
    ),
    (TrainModelOperator, {**TRAIN, "workload_resources": {"gpu": -1}}, "gpu must be a whole number, 0 or more; got -1"),
    (
        TrainModelOperator,
        {**TRAIN, "workload_resources": {"gpu": 0.5}},
        "gpu must be a whole number, 0 or more; got 0.5",
    ),
    (EvaluateModelOperator, {**EVALUATE, "target": ""}, "target must be text that is not empty; got ''"),
    (
        EvaluateModelOperator,
        {**EVALUATE, "model_type": "ranking"},
        "model_type must be one of classifier, regressor; got 'ranking'",
    ),
    (EvaluateModelOperator, {**EVALUATE, "latency_calls": 0}, "latency_calls must be at least 1; got 0"),
    (
        EvaluateModelOperator,
        {**EVALUATE, "importance_rows": True},
        "importance_rows must be a whole number from 0 to 1000000; got True",
    ),
    (EvaluateModelOperator, {**EVALUATE, "dataset": None}, "target, model_type, .* have no effect without a dataset"),
    (
        EvaluateModelOperator,
        {**EVALUATE, "comparisons": ["rmse"]},
        "comparisons must name metrics of a classifier.* got rmse",
    ),
    (EvaluateModelOperator, {**EVALUATE, "comparisons": "f1"}, "comparisons must be a list of metrics or mappings"),
    (EvaluateModelOperator, {**EVALUATE, "comparisons": [{"metric": "f1", "method": "mcnemar"}]}, "compares accuracy"),
    (
        ReplayModelOperator,
        {**REPLAY, "model_type": "ranking"},
        "model_type must be one of classifier, regressor; got 'ranking'",
    ),
    (ReplayModelOperator, {**REPLAY, "model_type": "regressor"}, "a regressor needs tolerance or relative_tolerance"),
    (ReplayModelOperator, {**REPLAY, "tolerance": 0.1}, "a classifier takes neither"),
    (ReplayModelOperator, {**REPLAY, "examples": 101}, "examples must be at most 100; got 101"),
    (EvaluationGateOperator, {**GATE, "on_failed": "stop"}, "on_failed must be one of fail, skip; got 'stop'"),
    (
        EvaluationGateOperator,
        {**GATE, "on_inconclusive": "ask"},
        "on_inconclusive must be one of fail, skip, continue; got 'ask'",
    ),
    (EvaluationGateOperator, {**GATE, "on_inconclusive": "continue"}, "Use mode='warn' to accept such candidates"),
    (
        DriftCheckOperator,
        {**DRIFT, "on_inconclusive": "ask"},
        "on_inconclusive must be one of fail, skip, continue; got 'ask'",
    ),
    (
        DriftCheckOperator,
        {**DRIFT, "policy": {"numerical_method": "magic"}},
        "numerical_method must be one of auto, wasserstein",
    ),
    (DriftCheckOperator, {**DRIFT, "drift_share": 0}, "drift_share must be more than 0; got 0"),
    (DriftCheckOperator, {**DRIFT, "precision": "fast"}, "precision must be one of profile, exact; got 'fast'"),
    (DriftCheckOperator, {**DRIFT, "policy": {"colums": "a"}}, "colums is not a known name. Did you mean 'columns'?"),
    (
        DriftCheckOperator,
        {**DRIFT, "min_rows": 4, "policy": {"min_rows": 3}},
        "min_rows is given as an argument and in",
    ),
    (DriftCheckOperator, {**DRIFT, "min_rows": 4, "policy": ComparisonPolicy()}, "Set these fields in the policy"),
    (DriftCheckOperator, {**DRIFT, "policy": "strict"}, "policy must be a ComparisonPolicy or a mapping of its fields"),
    (
        DriftCheckOperator,
        {**DRIFT, "evidently_rows": -1},
        "evidently_rows must be a whole number from 0 to 1000000; got -1",
    ),
    (
        DriftCheckOperator,
        {**DRIFT, "policy": {"numerical_method": "auto", "numerical_threshold": 0.2}},
        "numerical_method must name a method when a threshold is given",
    ),
    (DriftCheckOperator, {**DRIFT, "min_rows": 0}, "min_rows must be at least 1; got 0"),
    (DeployModelServerOperator, {**SERVER, "on_failure": "hope"}, "on_failure must be one of undo, keep; got 'hope'"),
    (DeployModelServerOperator, {**SERVER, "server": {"replica": 1}}, "server.replica is not a known name"),
    (DeployModelServerOperator, {**SERVER, "server": {"image": "a:1"}}, "image must be given as an argument"),
    (DeployModelServerOperator, {**SERVER, "timeout": timedelta(0)}, "timeout must be longer than zero; got"),
    (DeployModelServerOperator, {**SERVER, "poll_interval": 0}, "poll_seconds must be a number of seconds, at least 1"),
    (RollbackModelServerOperator, {"deployment": "m", "to_revision": -1}, "to_revision must be at least 0; got -1"),
]


@pytest.mark.parametrize(("operator", "arguments", "message"), WRONG)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(
    operator: type[ModelControlOperator], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        operator(task_id="task", **arguments)


def run(operator: type[ModelControlOperator], **arguments: Any) -> TaskOutcome:
    """Run a task that may not get as far as MLflow: nothing listens where it would ask."""
    connection = {"host": "http://127.0.0.1:9", "extra": {"retries": 0, "timeout": 1}}
    return run_task(operator(task_id="task", retries=3, **arguments), connections={"mlflow_default": connection})


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        (TrainModelOperator, {**TRAIN, "on_unchanged": "skip"}, "on_unchanged must be one of train, reuse; got 'skip'"),
        (
            TrainModelOperator,
            {**TRAIN, "on_unchanged": "{{ none }}"},
            "on_unchanged must be one of train, reuse; got 'None'",
        ),
        (
            TrainModelOperator,
            {**TRAIN, "config": "settings.toml"},
            "config must be a mapping or a file .yaml, .yml, .json",
        ),
        (TrainModelOperator, {**TRAIN, "config": "/no/such.yaml"}, "config file /no/such.yaml cannot be read"),
        (
            TrainModelOperator,
            {**TRAIN, "config": {"depth": float("nan")}},
            "config must contain only text, finite numbers",
        ),
        (EvaluationGateOperator, {**GATE, "thresholds": []}, "thresholds must have at least one rule"),
        (EvaluationGateOperator, {**GATE, "thresholds": "f1 > 0"}, "thresholds must be a list of rules; got 'f1 > 0'"),
        (
            EvaluationGateOperator,
            {**GATE, "thresholds": ["f1 = 1", "x"]},
            "threshold must be a rule such as 'accuracy >= 0.92'; got 'x'",
        ),
        (
            EvaluationGateOperator,
            {**GATE, "significance": [{"metric": "f1", "x": 1}]},
            "significance[0].x is not a known name",
        ),
        (EvaluationGateOperator, {**GATE, "slices": {}}, "slices: floors and max_gap are both empty"),
        (
            DriftCheckOperator,
            {**DRIFT, "evidently_rows": "{{ 'many' }}"},
            "evidently_rows must be a whole number; got 'many'",
        ),
        (
            RegisterModelOperator,
            {"model_name": "fraud", "model_uri": "/tmp/model"},
            "got '/tmp/model'. Paths and other addresses are refused",
        ),
    ],
)
def test_a_wrong_templated_argument_is_refused_before_mlflow_is_asked(
    operator: type[ModelControlOperator], arguments: dict[str, Any], message: str
) -> None:
    outcome = run(operator, **arguments)
    assert outcome.state == "failed"
    assert message in str(outcome.error)


@pytest.mark.parametrize("rows", [250, "250"])
def test_a_template_may_say_how_many_rows_a_report_shows(rows: Any) -> None:
    check = DriftCheckOperator(task_id="task", **{**DRIFT, "evidently_rows": "{{ params.rows }}"})
    assert "evidently_rows" in check.template_fields
    check.evidently_rows = rows  # as rendered
    assert check.asked({}).evidently_rows == 250


def test_a_runtime_that_does_not_exist_is_refused() -> None:
    operator = TrainModelOperator(task_id="task", runtime="docker", **TRAIN)
    with pytest.raises(
        InvalidArgumentError, match=r"runtime must be one of local, kubernetes; got 'docker'. Nothing was started"
    ):
        _ = operator.backend


def test_a_pod_option_that_does_not_exist_is_refused_with_those_that_do() -> None:
    operator = TrainModelOperator(task_id="task", runtime="kubernetes", kubernetes={"imag": "x"}, **TRAIN)
    with pytest.raises(
        InvalidArgumentError, match=r"kubernetes\.imag is not a known name\. Did you mean 'image'\? Known names: "
    ):
        _ = operator.backend


def test_the_options_of_an_operator_go_before_the_defaults_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text("namespace: ml\nimage: team/image:1\n")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__KUBERNETES_DEFAULTS", str(file))
    operator = TrainModelOperator(task_id="task", runtime="kubernetes", kubernetes={"image": "mine:2"}, **TRAIN)
    assert isinstance(operator.backend, KubernetesBackend)
    assert (operator.backend._options.namespace, operator.backend._options.image) == ("ml", "mine:2")


def test_a_promotion_names_the_version_that_is_no_version() -> None:
    outcome = run(PromoteModelOperator, model_name="fraud", version="latest", expected_champion="none")
    assert outcome.state == "failed"
    assert "version must be a version number; got 'latest'" in str(outcome.error)


# --- PinDatasetOperator --------------------------------------------------------------------------------------------
@pytest.fixture
def root(tmp_path: Path) -> Path:
    for version in ("v2", "v9", "v10"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "train.csv").write_text(f"x\n{version}\n")
    return tmp_path


def pin(folder: Path, **options: Any) -> TaskOutcome:
    return run(PinDatasetOperator, **{"root": str(folder), "files": {"train": "train.csv"}, **options})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"root": "/data"},
        {"root": "/data", "uris": {"train": "/a.csv"}},
        {"uris": {"train": "/a.csv"}, "files": {"train": "a.csv"}},
        {"root": "/data", "dvc": {"repo_url": "https://example.com/data"}, "files": {"train": "a.csv"}},
    ],
)
def test_exactly_one_place_of_data_is_allowed(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be root with files, dvc with files, lfs with files, or uris"):
        PinDatasetOperator(task_id="pin", **given)


def test_files_by_path_are_pinned_by_hash_and_get_a_version_of_their_content(root: Path) -> None:
    uris = {"train": str(root / "v2/train.csv"), "evaluation": f"file://{root}/v9/train.csv"}
    outcome = run(PinDatasetOperator, uris=uris)
    assert outcome.state == "success", outcome.error
    assert outcome.xcom["train"]["hash"] == content_hash(b"x\nv2\n")
    assert outcome.xcom["evaluation"]["uri"] == uris["evaluation"]
    assert outcome.result["version"].startswith("content-")
    (root / "v2/train.csv").write_text("x\nother\n")
    changed = run(PinDatasetOperator, uris=uris)
    assert changed.result["version"] != outcome.result["version"]
    assert changed.xcom["evaluation"]["hash"] == outcome.xcom["evaluation"]["hash"]


def test_an_object_that_only_the_work_plane_reads_needs_a_version() -> None:
    uris = {"train": "s3://bucket/train.csv"}
    refused = run(PinDatasetOperator, uris=uris)
    assert refused.state == "failed"
    assert "Set version to a label" in str(refused.error)
    outcome = run(PinDatasetOperator, uris=uris, version="2026-11")
    assert outcome.xcom["train"] == {"uri": "s3://bucket/train.csv", "version": "2026-11", "hash": ""}
    assert outcome.result["version"] == "2026-11"


def test_a_path_that_only_the_work_plane_sees_needs_a_version(root: Path) -> None:
    uris = {"train": str(root / "elsewhere.csv")}
    refused = run(PinDatasetOperator, uris=uris)
    assert "elsewhere.csv cannot be read" in str(refused.error)
    assert run(PinDatasetOperator, uris=uris, version="v1").xcom["train"]["hash"] == ""


class _Etags(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        name = self.path.strip("/")
        self.send_response(int(name) if name.isdigit() else 200)
        if name in ("one", "two"):
            self.send_header("ETag", f'W/"{name}"')
        self.send_header("Content-Length", "0" if name == "empty" else "5")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Etags) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Store(MemoryFileSystem):
    """A store that numbers versions, as far as Airflow's object storage sees it."""

    protocol = "memory"
    store: ClassVar[dict[str, Any]] = {}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().info(path, **kwargs), "ETag": '"e"', "VersionId": "v7"}


def test_an_object_of_a_store_that_the_worker_can_read_is_pinned_by_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow.sdk.io.store._STORE_CACHE", {})  # what other tests attached stays for the process
    attach("memory", fs=Store())
    Store().pipe_file("/bucket/a.csv", b"a,b\n")
    pinned = run(PinDatasetOperator, uris={"train": "memory://bucket/a.csv"})
    assert pinned.state == "success", pinned.error
    assert pinned.xcom["train"] == {
        "uri": "memory://bucket/a.csv",
        "version": "version-v7",
        "hash": "",
        "size": 4,
    }
    gone = run(PinDatasetOperator, uris={"train": "memory://bucket/gone.csv"})
    assert "does not exist. Nothing was pinned" in str(gone.error)


def test_an_object_of_a_web_server_is_pinned_by_its_etag(web: str) -> None:
    one, two = (run(PinDatasetOperator, uris={"train": f"{web}/{name}"}) for name in ("one", "two"))
    assert one.xcom["train"] == {"uri": f"{web}/one", "version": "etag-one", "hash": "", "size": 5}
    assert one.result["version"] != two.result["version"]


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("none", "failed", "the server sends no ETag. Set version"),
        ("empty", "failed", "is empty"),
        ("404", "failed", "does not exist. Nothing was pinned"),
        ("503", "up_for_retry", "the server answered 503"),
    ],
)
def test_an_object_that_cannot_be_pinned_says_why(web: str, name: str, state: str, message: str) -> None:
    outcome = run(PinDatasetOperator, uris={"train": f"{web}/{name}"})
    assert message in str(outcome.error)
    assert outcome.state == state


def test_a_web_server_that_is_not_there_is_asked_again() -> None:
    outcome = run(PinDatasetOperator, uris={"train": "http://127.0.0.1:1/a.csv"})
    assert outcome.state == "up_for_retry"
    assert "does not answer: ConnectError" in str(outcome.error)


def test_the_latest_version_is_pinned_by_hash(root: Path) -> None:
    outcome = pin(root)
    assert outcome.state == "success"
    assert outcome.result["version"] == "v10"
    assert outcome.xcom["train"] == {
        "uri": str(root / "v10" / "train.csv"),
        "version": "v10",
        "hash": content_hash(b"x\nv10\n"),
        "size": 6,
    }


def test_the_hash_of_a_version_follows_its_content(root: Path) -> None:
    first = pin(root, version="v2").result["hash"]
    assert pin(root, version="v2").result["hash"] == first
    (root / "v2" / "train.csv").write_text("x\nother\n")
    assert pin(root, version="v2").result["hash"] != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v3"}, "has no data version 'v3'. Available: v2, v9, v10"),
        ({"version": "../v2"}, "version must be made of letters, digits and _ . + -, or be 'latest'; got '../v2'"),
        ({"root": "/no/such/folder"}, "root must be a folder that this worker can read; got '/no/such/folder'"),
        ({"files": {}}, "files must be a mapping with at least one name"),
        ({"files": {"hash": "train.csv"}}, "none of version, hash, return_value; got {'hash': "),
        ({"files": {"train": "missing.csv"}}, "missing.csv cannot be read: No such file or directory"),
    ],
)
def test_data_that_cannot_be_pinned_is_refused(root: Path, options: dict[str, Any], message: str) -> None:
    outcome = pin(root, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert outcome.result is None


def test_an_empty_file_is_not_pinned(root: Path) -> None:
    (root / "v10" / "train.csv").write_text("")
    outcome = pin(root)
    assert outcome.state == "failed"
    assert "train.csv is empty. Nothing was pinned" in str(outcome.error)


class TestThePredictionLogOfTheModelServer:
    def test_is_read_by_a_drift_check(self) -> None:
        assert drift_side("current", {"requests": "s3://logs/fraud"}) == DriftSide(requests="s3://logs/fraud")

    @pytest.mark.parametrize("value", [{"requests": ""}, {"requests": None}, {"requests": "/log", "profile": "/p"}])
    def test_must_have_an_address(self, value: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="current"):
            drift_side("current", value)

    def test_is_replayed_without_naming_its_columns(self) -> None:
        operator = ReplayModelOperator(task_id="replay", **{**REPLAY, "log": "serving"})
        assert operator.request_log == "serving"
        with pytest.raises(InvalidArgumentError, match="log must be one of"):
            ReplayModelOperator(task_id="replay", **{**REPLAY, "log": "mine"})
