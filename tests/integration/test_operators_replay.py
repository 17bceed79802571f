"""ReplayModelOperator and the gate's rule on a real MLflow server, with real models, next to plain pandas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from airflow_mcp.core.evaluation.replay import ReplayEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.replay import ReplayModelOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.logged_models import tracking
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


class Logged(NamedTuple):
    """A model that was logged once for all tests, and itself."""

    run_id: str
    model_id: str
    model: Any
    columns: list[str]

    @property
    def uri(self) -> str:
        return f"models:/{self.model_id}"


class Rivals(NamedTuple):
    candidate: Logged
    champion: Logged
    frame: pd.DataFrame


def _rivals(url: str, frame: pd.DataFrame, columns: list[str], estimator: Any) -> Rivals:
    """Log a model of all columns and one of the first column only."""
    logged = []
    for names in (columns, columns[:1]):
        model = make_pipeline(StandardScaler(), estimator()).fit(frame[names], frame["target"])
        with tracking(url), mlflow.start_run() as run:
            info = mlflow.sklearn.log_model(
                model,
                name="model",
                signature=infer_signature(frame[names], model.predict(frame[names])),
                pip_requirements=[],
                serialization_format="cloudpickle",
            )
        logged.append(Logged(run.info.run_id, info.model_id, model, names))
    return Rivals(*logged, frame)


@pytest.fixture(scope="session")
def tumours(mlflow_server: MlflowServer) -> Rivals:
    frame = load_breast_cancer(as_frame=True).frame
    return _rivals(mlflow_server.url, frame, ["mean radius", "mean texture"], LogisticRegression)


@pytest.fixture(scope="session")
def flowers(mlflow_server: MlflowServer) -> Rivals:
    frame = load_iris(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    return _rivals(mlflow_server.url, frame, frame.columns[:2].tolist(), LogisticRegression)


@pytest.fixture(scope="session")
def patients(mlflow_server: MlflowServer) -> Rivals:
    return _rivals(mlflow_server.url, load_diabetes(as_frame=True).frame, ["bmi", "bp"], LinearRegression)


def crown(world: World, champion: Logged) -> str:
    world.hook.create_registered_model(world.model_name)
    version = world.hook.create_model_version(
        world.model_name, champion.uri, run_id=champion.run_id, model_id=champion.model_id
    )
    world.hook.set_alias(world.model_name, "champion", version.version)
    return version.version


def requests_of(rivals: Rivals) -> pd.DataFrame:
    """Requests as production would log them: inputs, a name, a time, what was answered, a segment and a value."""
    frame = rivals.frame
    return frame[rivals.candidate.columns].assign(
        request_id=[f"r{number}" for number in range(len(frame))],
        at=pd.date_range("2026-11-01", periods=len(frame), freq="min", tz="UTC"),
        answered=rivals.champion.model.predict(frame[rivals.champion.columns]),
        size=np.where(frame[rivals.candidate.columns[0]] > frame[rivals.candidate.columns[0]].median(), "big", "small"),
        amount=np.arange(len(frame)) * 1.5,
    )


def replay(world: World, run: Run, rivals: Rivals, source: str | Path, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "run_id": run.run_id,
        "model_uri": rivals.candidate.uri,
        "model_name": world.model_name,
        "requests": str(source),
        "model_type": "classifier",
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(ReplayModelOperator, **given)


def stored(world: World, run: Run) -> ReplayEvidence:
    return parse_document(ReplayEvidence, world.artifact(run, contract.ARTIFACT_REPLAY), "the replay")


def table(world: World, run: Run) -> pd.DataFrame:
    path = world.folder / "answers.parquet"
    path.write_bytes(world.artifact(run, contract.ARTIFACT_REPLAY_REQUESTS))
    return pd.read_parquet(path)


def test_flips_of_a_classifier_are_those_of_plain_pandas_and_a_retry_asks_nobody(
    world: World, tumours: Rivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, run, log = crown(world, tumours.champion), world.new_run(), requests_of(tumours)
    folder = world.folder / "log"
    folder.mkdir()
    log.iloc[::2].to_parquet(folder / "a.parquet", index=False)
    log.iloc[1::2].to_json(folder / "b.jsonl", orient="records", lines=True, date_format="iso")
    options: dict[str, Any] = {
        "last": 400,
        "timestamp_column": "at",
        "request_id_column": "request_id",
        "prediction_column": "answered",
        "value_column": "amount",
        "segments": ["size"],
        "examples": 3,
    }
    outcome = replay(world, run, tumours, folder, **options)
    assert outcome.state == "success", outcome.error

    newest = log.sort_values("at").tail(400)
    ours = tumours.candidate.model.predict(newest[tumours.candidate.columns])
    theirs = tumours.champion.model.predict(newest[tumours.champion.columns])
    flips = pd.Series(ours != theirs, index=newest.index)
    deltas = pd.Series(
        tumours.candidate.model.predict_proba(newest[tumours.candidate.columns])[:, 1]
        - tumours.champion.model.predict_proba(newest[tumours.champion.columns])[:, 1],
        index=newest.index,
    )
    found = stored(world, run)
    assert (found.available, found.requests, found.compared, found.flips) == (len(log), 400, 400, int(flips.sum()))
    assert 0 < found.flips < 400
    assert {(item.champion, item.candidate): (item.requests, item.value) for item in found.transitions} == {
        (str(old), str(new)): (int(rows.sum()), pytest.approx(newest["amount"][rows].sum()))
        for old, new in ((0, 1), (1, 0))
        if (rows := flips & (theirs == old) & (ours == new)).any()
    }
    assert found.deltas is not None
    assert (found.deltas.of, found.deltas.mean) == ("probability", pytest.approx(deltas.mean()))
    assert found.deltas.p95_absolute == pytest.approx(deltas.abs().quantile(0.95))
    assert list(found.deltas.histogram.counts) == np.histogram(deltas, bins=found.deltas.histogram.edges)[0].tolist()
    by_size = flips.groupby(newest["size"]).agg(["size", "sum"])
    assert {part.value: (part.compared, part.flips) for part in found.segments} == {
        str(value): (int(row["size"]), int(row["sum"])) for value, row in by_size.iterrows()
    }
    assert found.value is not None
    assert found.value.flipped == pytest.approx(newest["amount"][flips].sum())
    assert found.recorded is not None
    assert (found.recorded.requests, found.recorded.different) == (400, 0)
    largest = deltas[flips].abs().sort_values(ascending=False).head(3)
    assert [item.delta for item in found.examples] == pytest.approx(deltas[largest.index].tolist())
    assert {item.request for item in found.examples} <= set(newest["request_id"])
    assert set(outcome.result) >= {"identity", "compared", "flips", "changed_share"}
    assert outcome.result["champion_version"] == found.champion.version == version

    answers = table(world, run).set_index("request")
    assert answers["flip"].sum() == found.flips
    assert answers.loc[newest["request_id"], "candidate_prediction"].tolist() == [str(value) for value in ours]
    assert world.hook.get_run(run.run_id).metrics["replay/flips"] == found.flips

    monkeypatch.setattr(LocalBackend, "run", lambda *_, **__: pytest.fail("a workload was started"))
    again = replay(world, run, tumours, folder, **options, try_number=2)
    assert (again.state, again.result) == ("success", outcome.result)


def test_a_number_flips_when_it_changes_by_more_than_the_tolerance(world: World, patients: Rivals) -> None:
    crown(world, patients.champion)
    run, log = world.new_run(), requests_of(patients)
    log.to_parquet(world.folder / "log.parquet", index=False)
    outcome = replay(
        world, run, patients, world.folder / "log.parquet", model_type="regressor", tolerance=5, relative_tolerance=0.1
    )
    assert outcome.state == "success", outcome.error
    theirs = patients.champion.model.predict(log[patients.champion.columns])
    deltas = patients.candidate.model.predict(log[patients.candidate.columns]) - theirs
    found = stored(world, run)
    assert found.flips == int((np.abs(deltas) > np.maximum(5, 0.1 * np.abs(theirs))).sum())
    assert 0 < found.flips < found.compared == len(log)
    assert found.deltas is not None
    assert found.deltas.total == pytest.approx(deltas.sum())
    assert found.transitions == ()
    assert table(world, run)["delta"].tolist() == pytest.approx(deltas.tolist())


def test_of_three_classes_the_probability_of_the_champions_class_is_compared(world: World, flowers: Rivals) -> None:
    crown(world, flowers.champion)
    run, log = world.new_run(), requests_of(flowers)
    log.to_parquet(world.folder / "log.parquet", index=False)
    assert replay(world, run, flowers, world.folder / "log.parquet").state == "success"
    theirs = flowers.champion.model.predict(log[flowers.champion.columns])
    place = [list(flowers.champion.model.classes_).index(label) for label in theirs]
    rows = np.arange(len(log))
    deltas = (
        flowers.candidate.model.predict_proba(log[flowers.candidate.columns])[rows, place]
        - flowers.champion.model.predict_proba(log[flowers.champion.columns])[rows, place]
    )
    found = stored(world, run)
    assert found.deltas is not None
    assert (found.deltas.mean, found.deltas.mean_absolute) == pytest.approx((deltas.mean(), np.abs(deltas).mean()))
    assert sum(item.requests for item in found.transitions) == found.flips > 0


def test_requests_that_one_model_cannot_take_are_counted_and_never_dropped(world: World, tumours: Rivals) -> None:
    crown(world, tumours.champion)
    run, log = world.new_run(), requests_of(tumours).head(100)
    lines = [json.loads(line) for line in log.drop(columns="at").to_json(orient="records", lines=True).splitlines()]
    lines[3]["mean texture"] = "rough"  # the candidate's own column
    lines[4]["mean radius"] = "wide"  # both models' column
    text = "\n".join([*map(json.dumps, lines[:50]), "{broken", *map(json.dumps, lines[50:])])
    (world.folder / "log.jsonl").write_text(text)
    outcome = replay(world, run, tumours, world.folder / "log.jsonl", segments=["size"])
    assert outcome.state == "success", outcome.error
    found = stored(world, run)
    assert (found.requests, found.unreadable, found.compared) == (101, 1, 98)
    assert (found.candidate_only_missing, found.left_out) == (1, 2)
    assert (found.candidate_troubles.unfit, found.champion_troubles.unfit) == (2, 1)
    states = table(world, run)["candidate_state"].value_counts().to_dict()
    assert states == {"answered": 98, "unfit": 2, "unreadable": 1}
    assert sum(part.candidate_only_missing for part in found.segments) == 1


def test_without_a_champion_nothing_is_replayed(world: World, tumours: Rivals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBackend, "run", lambda *_, **__: pytest.fail("a workload was started"))
    outcome = replay(world, world.new_run(), tumours, "/nowhere")
    assert outcome.state == "success", outcome.error
    assert (outcome.result["champion_version"], outcome.result["requests"]) == ("none", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": ["region"]}, "the logged requests lack 'region' (segments)"),
        ({"timestamp_column": "when"}, "no column 'when', needed as timestamp_column"),
        ({"positive_label": "yes"}, "positive_label must be one of the models' classes 0, 1; got 'yes'"),
        ({"requests": "/nowhere"}, "/nowhere must be a file, folder or glob of .parquet"),
    ],
    ids=["segment", "time", "label", "nothing-there"],
)
def test_what_cannot_be_replayed_is_refused_and_leaves_nothing(
    world: World, tumours: Rivals, options: dict[str, Any], message: str
) -> None:
    crown(world, tumours.champion)
    run = world.new_run()
    requests_of(tumours).head(20).to_parquet(world.folder / "log.parquet", index=False)
    outcome = replay(world, run, tumours, options.pop("requests", world.folder / "log.parquet"), **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    assert world.hook.list_artifacts(run.run_id, "replay") == []
    assert world.processes() == []


def judge(world: World, run: Run, rivals: Rivals, replay_identity: str | None = None, **rule: Any) -> TaskOutcome:
    champion = ModelUnderTest(model_uri=f"models:/{world.model_name}/1", version="1")
    candidate = {"model_uri": rivals.candidate.uri, "run_id": run.run_id, "metrics": {"accuracy": 0.9}}
    world.store_evidence(run, {}, champion, {"accuracy": 0.9}, candidate=candidate)
    return world.run(
        EvaluationGateOperator,
        run_id=run.run_id,
        model_name=world.model_name,
        replay=rule,
        replay_identity=replay_identity,
    )


@pytest.mark.cold
def test_the_gate_judges_the_replay_and_shows_it(world: World, tumours: Rivals) -> None:
    crown(world, tumours.champion)
    run = world.new_run()
    before = judge(world, run, tumours, max_flip_rate=0.9, min_requests=100)
    assert "no requests were replayed" in str(before.error)
    requests_of(tumours).to_parquet(world.folder / "log.parquet", index=False)
    replay(world, run, tumours, world.folder / "log.parquet", segments=["size"])
    good = judge(world, run, tumours, max_flip_rate=0.9, min_requests=100, segments=["size"])
    assert good.state == "success", good.error
    assert [rule["slice"] for rule in good.result["rules"]] == ["", "size=big", "size=small"]
    html = world.artifact(run, contract.ARTIFACT_GATE_REPORT_HTML).decode()
    assert "Replay of logged requests" in html
    assert f"{stored(world, run).flips} flip" in html
    bad = judge(world, run, tumours, max_flip_rate=0.001, min_requests=100)
    assert (bad.state, bad.xcom["verdict"]) == ("failed", "failed")
    few = judge(world, run, tumours, max_flip_rate=0.9)
    assert few.xcom["verdict"] == "inconclusive"
    expected = judge(world, run, tumours, stored(world, run).identity, max_flip_rate=0.9, min_requests=100)
    assert expected.state == "success", expected.error
    another = judge(world, run, tumours, "made-since", max_flip_rate=0.9, min_requests=100)
    assert (another.xcom["verdict"], "not from made-since" in another.xcom["reason"]) == ("error", True)
    skipped = judge(world, run, tumours, "", max_flip_rate=0.9, min_requests=100)
    assert skipped.xcom["verdict"] == "inconclusive"
