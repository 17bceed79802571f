"""Step ``evaluate`` against a real MLflow server and real models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.exceptions import DatasetError, FailedError, InvalidArgumentError, MlflowError, RefusedError
from airflow_mcp.work.measures import significance
from airflow_mcp.work.reading import dataset_rows
from airflow_mcp.work.steps.evaluate import evaluate
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


class Bench:
    """Logs models into finished runs and asks for evaluations of them."""

    def __init__(self, server: MlflowServer, folder: Path) -> None:
        self.client, self.folder, self.url = MlflowClient(server.url), folder, server.url

    def log(self, model: Any, signature: Any, **options: Any) -> tuple[str, str]:
        """Log a scikit-learn model; give the run's id and the model's address."""
        with mlflow.start_run(experiment_id="0") as run:
            info = mlflow.sklearn.log_model(
                model,
                name="model",
                signature=signature,
                serialization_format="cloudpickle",
                pip_requirements=[],
                **options,
            )
        return run.info.run_id, f"models:/{info.model_id}"

    def environ(self, logged: tuple[str, str], frame: pd.DataFrame, label: str, **changes: Any) -> dict[str, str]:
        frame.to_csv(self.folder / "data.csv", index=False)
        request = {
            "identity": "i",
            "run_id": logged[0],
            "candidate": {"model_uri": logged[1], "run_id": logged[0]},
            "champion": None,
            "dataset": {"uri": str(self.folder / "data.csv"), "version": "v1"},
            "target": label,
            "model_type": "classifier",
            "latency_calls": 20,
            "latency_warmup": 1,
        }
        path = self.folder / "request.json"
        path.write_text(json.dumps(request | changes))
        return {"MLFLOW_TRACKING_URI": self.url, "AIRFLOW_MCP_REQUEST_PATH": str(path)}

    def stored(self, run_id: str) -> EvaluationEvidence:
        uri = self.client.get_run(run_id).info.artifact_uri
        return parse_document(
            EvaluationEvidence, mlflow.artifacts.load_text(f"{uri}/{contract.ARTIFACT_EVIDENCE}"), "evidence"
        )

    def predictions(self, run_id: str) -> pd.DataFrame:
        return pd.read_parquet(self.client.download_artifacts(run_id, contract.ARTIFACT_PREDICTIONS, str(self.folder)))

    def artifacts(self, run_id: str) -> set[str]:
        return {item.path for item in self.client.list_artifacts(run_id, "evaluation")}


@pytest.fixture
def bench(mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return Bench(mlflow_server, tmp_path)


@pytest.fixture(scope="module")
def cancer() -> pd.DataFrame:
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return frame.assign(size=np.where(frame["mean radius"] > 14, "big", "small"))


def fit(frame: pd.DataFrame, columns: list[str], target: str = "target", model: Any = None) -> tuple[Any, Any]:
    estimator = model or make_pipeline(StandardScaler(), LogisticRegression())
    estimator.fit(frame[columns], frame[target])
    return estimator, infer_signature(frame[columns], estimator.predict(frame[columns]))


def test_candidate_and_champion_on_the_same_rows_by_the_command_line(bench: Bench, cancer: pd.DataFrame) -> None:
    columns = ["mean radius", "mean texture", "worst area"]
    candidate, signature = fit(cancer, columns)
    champion = fit(cancer, columns[:1])
    logged = bench.log(candidate, signature)
    champion_uri = bench.log(*champion)[1]
    environ = bench.environ(
        logged, cancer, "target", champion={"model_uri": champion_uri, "version": "3"}, slices=["size"]
    )
    code = "import sys, runpy; sys.modules['airflow'] = None; sys.argv = ['runtime', 'evaluate']; "
    done = subprocess.run(
        [sys.executable, "-c", code + "runpy.run_module('airflow_mcp.work', run_name='__main__')"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    evidence, run = bench.stored(logged[0]), bench.client.get_run(logged[0])
    predicted, scores = candidate.predict(cancer[columns]), candidate.predict_proba(cancer[columns])[:, 1]
    expected = {
        "accuracy": sk.accuracy_score(cancer["target"], predicted),
        "precision": sk.precision_score(cancer["target"], predicted),
        "recall": sk.recall_score(cancer["target"], predicted),
        "f1": sk.f1_score(cancer["target"], predicted),
        "roc_auc": sk.roc_auc_score(cancer["target"], scores),
        "log_loss": sk.log_loss(cancer["target"], scores),
        "brier": sk.brier_score_loss(cancer["target"], scores),
    }
    assert {name: evidence.candidate.metrics[name] for name in expected} == pytest.approx(expected)
    assert {name: run.data.metrics[f"evaluation/{name}"] for name in expected} == pytest.approx(expected)
    assert evidence.champion is not None
    assert evidence.champion.version == "3"
    assert evidence.champion.metrics["accuracy"] == run.data.metrics["champion/accuracy"] != expected["accuracy"]
    assert evidence.candidate.metrics["latency_ms"] == evidence.candidate.metrics["latency_ms_p95"] > 0
    assert np.array_equal(evidence.candidate.confusion.counts, sk.confusion_matrix(cancer["target"], predicted))
    assert evidence.candidate.intervals.keys() == expected.keys() - {"brier"}
    for name, interval in evidence.candidate.intervals.items():
        assert interval.low < expected[name] < interval.high, name
    for model in (evidence.candidate, evidence.champion):
        assert sum(part.rows for part in model.calibration.bins) == 569
        assert model.latency.calls == 20
        assert sum(model.latency.histogram.counts) + model.latency.histogram.above == 20
    assert (evidence.rows, evidence.dataset.version) == (569, "v1")
    assert run.info.status == "FINISHED"
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == [evidence.dataset.hash[7:39]]
    assert {(part.value, part.rows) for part in evidence.slices} == {("big", 232), ("small", 337)}
    table = bench.predictions(logged[0])
    assert table["row"].tolist() == list(range(569))
    assert table["candidate_prediction"].tolist() == predicted.tolist()
    assert table["candidate_score"].tolist() == pytest.approx(scores.tolist())
    assert {"label", "champion_prediction", "champion_score"} <= set(table.columns)
    assert bench.artifacts(logged[0]) == {
        contract.ARTIFACT_EVIDENCE,
        contract.ARTIFACT_PREDICTIONS,
        contract.ARTIFACT_SLICES,
    }


def test_slices_weighted_by_rows_give_the_whole(bench: Bench, cancer: pd.DataFrame) -> None:
    logged = bench.log(*fit(cancer, ["mean radius"]))
    evidence = evaluate(bench.environ(logged, cancer, "target", slices=["size"]))
    parts = sum(part.rows * part.candidate["accuracy"] for part in evidence.slices)
    assert parts / evidence.rows == pytest.approx(evidence.candidate.metrics["accuracy"])


def test_three_classes_of_text_are_macro_averaged(bench: Bench) -> None:
    frame = load_iris(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    columns = frame.columns[:2].tolist()
    model, signature = fit(frame, columns)
    logged = bench.log(model, signature)
    evidence = evaluate(bench.environ(logged, frame, "target"))
    predicted, scores = model.predict(frame[columns]), model.predict_proba(frame[columns])
    assert evidence.candidate.metrics["f1"] == pytest.approx(sk.f1_score(frame["target"], predicted, average="macro"))
    assert evidence.candidate.metrics["roc_auc"] == pytest.approx(
        sk.roc_auc_score(frame["target"], scores, multi_class="ovr")
    )
    table = bench.predictions(logged[0])
    assert table["candidate_score"].tolist() == pytest.approx(scores.max(axis=1).tolist())


def test_a_regression_has_its_own_metrics(bench: Bench) -> None:
    frame = load_diabetes(as_frame=True).frame
    model, signature = fit(frame, ["bmi", "bp"], model=LinearRegression())
    evidence = evaluate(bench.environ(bench.log(model, signature), frame, "target", model_type="regressor"))
    predicted = model.predict(frame[["bmi", "bp"]])
    assert evidence.candidate.metrics["r2"] == pytest.approx(sk.r2_score(frame["target"], predicted))
    assert evidence.candidate.metrics["mae"] == pytest.approx(sk.mean_absolute_error(frame["target"], predicted))
    assert "accuracy" not in evidence.candidate.metrics
    found, residuals = evidence.candidate.residuals, frame["target"] - predicted
    assert found is not None
    assert list(found.counts) == np.histogram(residuals, bins=found.edges)[0].tolist()
    assert (found.minimum, found.maximum) == pytest.approx((residuals.min(), residuals.max()))
    assert evidence.candidate.confusion is None


def test_without_probabilities_the_metrics_that_need_them_are_undefined(bench: Bench, cancer: pd.DataFrame) -> None:
    logged = bench.log(*fit(cancer, ["mean radius"], model=LinearSVC()))
    evidence = evaluate(bench.environ(logged, cancer, "target"))
    assert set(evidence.candidate.undefined) == {"roc_auc", "log_loss", "brier", "ece", "latency_ms_p99"}
    assert evidence.candidate.calibration is None
    assert "predict_proba" in evidence.candidate.undefined["roc_auc"]
    assert "evaluation/roc_auc" not in bench.client.get_run(logged[0]).data.metrics
    assert "candidate_score" not in bench.predictions(logged[0]).columns


def test_a_model_logged_with_arrays_and_one_that_returns_probabilities(bench: Bench) -> None:
    frame = load_iris(as_frame=True).frame
    inputs, y = frame.drop(columns="target").to_numpy(), frame["target"].to_numpy()
    model = LogisticRegression(max_iter=500).fit(inputs, y)
    plain = bench.log(model, infer_signature(inputs, model.predict(inputs)))
    proba = bench.log(model, infer_signature(inputs, model.predict_proba(inputs)), pyfunc_predict_fn="predict_proba")
    evidence = evaluate(bench.environ(plain, frame, "target", champion={"model_uri": proba[1]}))
    assert evidence.champion is not None
    expected = {"accuracy": model.score(inputs, y), "log_loss": sk.log_loss(y, model.predict_proba(inputs))}
    for measured in (evidence.candidate, evidence.champion):
        assert {name: measured.metrics[name] for name in expected} == pytest.approx(expected)
    with pytest.raises(DatasetError, match="array of 4 unnamed columns, but the dataset has 5"):
        evaluate(bench.environ(plain, frame.assign(extra=1), "target"))


def test_a_text_column_of_one_model_only_keeps_its_zeros(bench: Bench) -> None:
    frame = pd.DataFrame({"code": ["007", "010"] * 20, "n": [1.0, 2.0] * 20, "y": [0, 1] * 20})
    encoder = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression())
    candidate = bench.log(*fit(frame, ["code"], "y", encoder))
    champion = bench.log(*fit(frame, ["n"], "y", LogisticRegression()))
    evidence = evaluate(bench.environ(candidate, frame, "y", champion={"model_uri": champion[1]}))
    assert evidence.candidate.metrics["accuracy"] == 1.0


def test_whole_numbers_in_the_file_fit_a_model_of_fractions(bench: Bench, cancer: pd.DataFrame) -> None:
    logged = bench.log(*fit(cancer, ["mean radius"]))
    rounded = cancer.assign(**{"mean radius": cancer["mean radius"].round().astype(int)})
    assert evaluate(bench.environ(logged, rounded, "target")).rows == len(cancer)


@pytest.mark.parametrize(
    ("change", "request_change", "error", "message"),
    [
        (lambda f: f.drop(columns="mean radius"), {}, DatasetError, "'mean radius' is missing"),
        (
            lambda f: f.assign(**{"mean radius": "x"}),
            {},
            DatasetError,
            "'mean radius' is object and cannot be converted to",
        ),
        (lambda f: f, {"target": "y"}, DatasetError, "no column 'y', needed as the label"),
        (lambda f: f, {"slices": ["region"]}, DatasetError, "no column 'region', needed as slices"),
        (lambda f: f, {"slices": ["mean area"]}, InvalidArgumentError, "at most 50 values; got 'mean area' with 539"),
        (lambda f: f, {"positive_label": "yes"}, InvalidArgumentError, "positive_label must be one of the classes"),
        (lambda f: f.assign(target=f["target"].where(f.index > 1)), {}, DatasetError, "no value in 2 of 569 rows"),
        (lambda f: f.assign(target=f["target"] + 0.5), {}, DatasetError, "has fractions, which cannot be classes"),
        (lambda f: f.assign(target="a"), {}, RefusedError, "no class in common"),
        (lambda f: f, {"target": "size", "model_type": "regressor"}, DatasetError, "needs finite numbers"),
        (lambda f: f.head(0), {}, DatasetError, "got 0 rows"),
        (lambda f: f, {"candidate": {"model_uri": "models:/nobody/1"}}, MlflowError, "could not load model"),
        (lambda f: f, {"run_id": "f" * 32}, MlflowError, "not found"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_leaves_no_evidence(
    bench: Bench,
    cancer: pd.DataFrame,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    request_change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    logged = bench.log(*fit(cancer, ["mean radius"]))
    with pytest.raises(error, match=message):
        evaluate(bench.environ(logged, change(cancer), "target", **request_change))
    assert bench.artifacts(logged[0]) == set()


def test_a_model_without_signature_is_refused_with_the_remedy(bench: Bench, cancer: pd.DataFrame) -> None:
    logged = bench.log(fit(cancer, ["mean radius"])[0], None)
    with pytest.raises(RefusedError, match=r"has no signature.*infer_signature"):
        evaluate(bench.environ(logged, cancer, "target"))


def custom_model(behaviour: str) -> Any:
    """A model whose answers, or whose side effect, a test chooses. MLflow warns when such a class is defined."""

    class Custom(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame) -> Any:
            if behaviour == "rank":
                return np.arange(len(model_input)) % 2
            if behaviour == "late":
                return np.where(model_input["run"] == "late", np.nan, 1)
            if behaviour == "delete":
                mlflow.MlflowClient().delete_run(model_input["run"].iloc[0])
            if behaviour == "raise":
                raise KeyError("inside the model")
            if behaviour == "short":
                return np.zeros(1, int)
            if behaviour == "probabilities":
                return np.linspace(0, 1, len(model_input))
            if behaviour == "mappings":
                return [{"label": 1}] * len(model_input)
            if behaviour == "ragged":
                return [[0], [0, 1]] * (len(model_input) // 2)
            return np.full(len(model_input), np.nan if behaviour == "nan" else 1)

    return Custom()


def log_custom(bench: Bench, behaviour: str) -> tuple[tuple[str, str], pd.DataFrame]:
    with mlflow.start_run(experiment_id="0") as run:
        frame = pd.DataFrame({"run": [run.info.run_id] * 4, "y": [0, 1, 0, 1]})
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=custom_model(behaviour),
            signature=infer_signature(frame[["run"]], np.zeros(4)),
            pip_requirements=[],
        )
    return (run.info.run_id, f"models:/{info.model_id}"), frame


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("nan", "predicted no finite value for 4 of 4 rows"),
        ("short", r"output of shape \(1,\) for 4 rows"),
        ("probabilities", "model models:/m-.* answers with fractions, which cannot be classes"),
        ("mappings", "model models:/m-.* answers with values of type dict, which cannot be classes"),
        ("ragged", "must return one value per row; got a list that is not an array"),
        ("raise", "failed to predict 4 rows: KeyError: 'inside the model'"),
        ("delete", "is deleted: nothing can be recorded"),
    ],
)
def test_a_misbehaving_model_or_a_deleted_run_leaves_no_evidence(bench: Bench, behaviour: str, message: str) -> None:
    logged, frame = log_custom(bench, behaviour)
    with pytest.raises(RefusedError, match=message):
        evaluate(bench.environ(logged, frame, "y"))
    assert bench.artifacts(logged[0]) == set()


def test_a_model_that_needs_an_absent_module_says_which(bench: Bench, cancer: pd.DataFrame) -> None:
    logged = bench.log(*fit(cancer, ["mean radius"]))
    source = bench.client.get_logged_model(logged[1].removeprefix("models:/")).artifact_location
    local = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(bench.folder)))
    description = (local / "MLmodel").read_text().replace("mlflow.sklearn", "no_such_library.flavor")
    (local / "MLmodel").write_text(description)
    with pytest.raises(RefusedError, match="needs the module 'no_such_library'"):
        evaluate(bench.environ(logged, cancer, "target", candidate={"model_uri": str(local)}))
    (local / "MLmodel").write_text("not: [a model")
    with pytest.raises(FailedError, match=r"cannot be loaded|could not load"):
        evaluate(bench.environ(logged, cancer, "target", candidate={"model_uri": str(local)}))


# --- data larger than a batch ----------------------------------------------------------------------------------------

BATCH = 100


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(dataset_rows, "batch_rows", lambda columns: BATCH)


def large(kind: str) -> tuple[pd.DataFrame, Any, Any]:
    """Rows of several batches with text, gaps and whole numbers; and two trees, one of them on text too."""
    random, rows = np.random.default_rng(5), 730
    frame = pd.DataFrame({"a": random.normal(size=rows), "b": random.integers(0, 9, rows)})
    frame["code"] = random.choice(["007", "010", "x"], rows)
    frame["region"] = np.where(np.arange(rows) < 650, "north", "south")
    frame["shop"] = pd.array(np.where(np.arange(rows) < 500, 3, random.integers(1, 3, rows)), dtype="Int64")
    frame.loc[600:610, "shop"] = pd.NA
    score = frame["a"] + frame["b"] / 5 + random.normal(size=rows)
    labels = {"classes": np.array(["hi", "lo", "mid"])[random.integers(0, 3, rows)], "two": (score > 1).astype(int)}
    frame["y"] = labels.get(kind, score)
    tree = DecisionTreeRegressor if kind == "numbers" else DecisionTreeClassifier
    first = make_pipeline(OneHotEncoder(handle_unknown="ignore"), tree(max_depth=9, random_state=0))
    return frame, fit(frame, ["code", "b"], "y", first), fit(frame, ["a", "b"], "y", tree(max_depth=4, random_state=0))


def comparable(bench: Bench, evidence: EvaluationEvidence) -> dict[str, Any]:
    """Return what two evaluations of the same models must have in common: everything but time."""
    found = evidence.model_dump(exclude={"created_at": True, "candidate": {"latency"}, "champion": {"latency"}})
    for name in ("candidate", "champion"):
        for values in (found[name]["metrics"], found[name]["undefined"]):
            for metric in [metric for metric in values if metric.startswith("latency")]:
                del values[metric]
    run = bench.client.get_run(evidence.run_id)
    (recorded,) = {
        item.dataset.schema + item.dataset.profile + item.dataset.digest for item in run.inputs.dataset_inputs
    }
    artifacts = {
        name: mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{name}")
        for name in (contract.ARTIFACT_SLICES, contract.ARTIFACT_IMPORTANCE)
    }
    return {**found, **artifacts, "input": recorded, "table": bench.predictions(evidence.run_id).to_dict("list")}


@pytest.mark.parametrize(("kind", "ending"), [("two", "csv"), ("classes", "jsonl"), ("numbers", "parquet")])
def test_batches_give_the_same_evidence_as_the_whole(
    bench: Bench, in_batches: Callable[[], None], monkeypatch: pytest.MonkeyPatch, kind: str, ending: str
) -> None:
    monkeypatch.setattr(significance, "SLICE_RESAMPLES", 100)  # a tenth: cheaper, and compared all the same
    frame, candidate, champion = large(kind)
    logged, other = bench.log(*candidate), bench.log(*champion)
    path = bench.folder / f"large.{ending}"
    if ending == "parquet":
        frame.to_parquet(path, row_group_size=90)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    metrics = {"two": ["accuracy", "roc_auc", "f1"], "classes": ["log_loss"], "numbers": ["mae", "r2"]}[kind]
    environ = bench.environ(
        logged,
        frame,
        "y",
        dataset={"uri": str(path), "version": "v1"},
        champion={"model_uri": other[1], "version": "3"},
        model_type="regressor" if kind == "numbers" else "classifier",
        slices=["region", "shop"],
        comparisons=[{"metric": metric, "resamples": 200} for metric in metrics],
        importance_rows=50,
    )
    whole = comparable(bench, evaluate(environ))
    in_batches()
    assert whole == comparable(bench, evaluate(environ))
    assert {(part["column"], part["value"]) for part in whole["slices"]} >= {("region", "south"), ("shop", "<missing>")}
    assert all(part["standard_error"] is not None for part in whole["comparisons"])


def test_an_error_in_a_late_batch_names_the_row(bench: Bench, cancer: pd.DataFrame, in_batches: Any) -> None:
    in_batches()
    logged = bench.log(*fit(cancer, ["mean radius"]))
    broken = cancer.astype({"mean radius": object})
    broken.loc[[432, 500], "mean radius"] = "wide"
    path = bench.folder / "late.jsonl"
    broken.to_json(path, orient="records", lines=True)
    environ = bench.environ(logged, cancer, "target", dataset={"uri": str(path)})
    with pytest.raises(DatasetError, match=r"^row 432 of the dataset \(counted from 0\): .*'mean radius' is object"):
        evaluate(environ)
    custom, frame = log_custom(bench, "late")
    rows = pd.concat([frame] * 100, ignore_index=True)
    rows.loc[[287, 290, 399], "run"] = "late"
    with pytest.raises(
        RefusedError, match=r"^row 287 of the dataset .*: model .* predicted no finite value for 1 of 1"
    ):
        evaluate(bench.environ(custom, rows, "y"))
    assert bench.artifacts(logged[0]) == bench.artifacts(custom[0]) == set()


def test_a_model_whose_answers_depend_on_the_other_rows_is_refused_in_batches_only(
    bench: Bench, in_batches: Callable[[], None]
) -> None:
    logged, frame = log_custom(bench, "rank")
    rows = pd.concat([frame] * 50, ignore_index=True)
    assert evaluate(bench.environ(logged, rows, "y")).candidate.metrics["accuracy"] == 1.0
    in_batches()
    odd = bench.environ(logged, rows, "y")
    with pytest.raises(RefusedError, match=r"differently when it is asked about these rows only.*at most 100 rows"):
        evaluate(odd)
