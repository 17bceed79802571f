"""Two real models, evaluated on one dataset and judged by significance and slices, with a real MLflow server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.contract import ALIAS_CHAMPION
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.operators.evaluation import EvaluateModelOperator
from airflow_mcp.operators.gate import EvaluationGateOperator
from tests.support.logged_models import tracking
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

COMPARISONS = ["accuracy", "roc_auc", {"metric": "f1", "resamples": 500, "seed": 4}]


class Logged(NamedTuple):
    """A model that was trained and logged once."""

    run_id: str
    uri: str


def table(rows: int, seed: int) -> Any:
    """Make rows whose label depends on two columns; the second one says less in the south."""
    import pandas as pd

    random = np.random.default_rng(seed)
    x1, x2 = random.normal(size=(2, rows))
    south = random.random(rows) < 0.3
    noise = np.where(south, 1.5, 0.4) * random.normal(size=rows)
    return pd.DataFrame(
        {"x1": x1, "x2": x2, "region": np.where(south, "south", "north"), "y": (x1 + x2 + noise > 0).astype("int64")}
    )


def train(url: str, columns: list[str]) -> Logged:
    import mlflow
    from sklearn.linear_model import LogisticRegression

    frame = table(500, seed=1)
    model = LogisticRegression().fit(frame[columns], frame["y"])
    with tracking(url), mlflow.start_run() as run:
        signature = mlflow.models.infer_signature(frame[columns], frame["y"])
        info = mlflow.sklearn.log_model(
            model, name="model", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
        )
    return Logged(run.info.run_id, f"models:/{info.model_id}")


@pytest.fixture(scope="session")
def good(mlflow_server: MlflowServer) -> Logged:
    return train(mlflow_server.url, ["x1", "x2"])


@pytest.fixture(scope="session")
def poor(mlflow_server: MlflowServer) -> Logged:
    return train(mlflow_server.url, ["x1"])


class Contest:
    """Evaluates one model against another and lets a gate judge."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.run: Run = world.new_run()

    def evaluate(self, candidate: Logged, champion: Logged | None, *, rows: int, **options: Any) -> EvaluationEvidence:
        hook = self.world.hook
        if champion is not None:
            hook.create_registered_model(self.world.model_name)
            version = hook.create_model_version(self.world.model_name, champion.uri, run_id=champion.run_id)
            hook.set_alias(self.world.model_name, ALIAS_CHAMPION, version.version)
        path = self.folder / "evaluation.csv"
        table(rows, seed=2).to_csv(path, index=False)
        given = {
            "run_id": self.run.run_id,
            "model_uri": candidate.uri,
            "model_name": self.world.model_name,
            "dataset": {"uri": str(path), "version": "v1"},
            "target": "y",
            "model_type": "classifier",
            "slices": ["region"],
            "comparisons": COMPARISONS,
            "latency_calls": 20,
            **options,
        }
        outcome = self.world.run(EvaluateModelOperator, **given)
        assert outcome.state == "success", outcome.error
        return parse_document(
            EvaluationEvidence, self.world.artifact(self.run, contract.ARTIFACT_EVIDENCE), "the evidence"
        )

    def judge(self, **rules: Any) -> tuple[TaskOutcome, dict[str, Any]]:
        outcome = self.world.run(
            EvaluationGateOperator, run_id=self.run.run_id, model_name=self.world.model_name, **rules
        )
        report: dict[str, Any] = json.loads(self.world.artifact(self.run, contract.ARTIFACT_GATE_REPORT_JSON))
        return outcome, report


@pytest.fixture
def contest(world: World, tmp_path: Path) -> Contest:
    return Contest(world, tmp_path)


def test_a_candidate_that_is_certainly_better_passes_and_the_evidence_has_every_number(
    contest: Contest, good: Logged, poor: Logged
) -> None:
    evidence = contest.evaluate(good, poor, rows=600)
    assert [(item.metric, item.method, item.rows) for item in evidence.comparisons] == [
        ("accuracy", "mcnemar", 600),
        ("roc_auc", "delong", 600),
        ("f1", "bootstrap", 600),
    ]
    assert evidence.champion is not None
    for item in evidence.comparisons:
        difference = evidence.candidate.metrics[item.metric] - evidence.champion.metrics[item.metric]
        assert item.difference == pytest.approx(difference)
        assert item.low is not None
        assert 0 < item.low < difference
    outcome, report = contest.judge(
        thresholds=["accuracy >= champion + 5%"],
        significance=["accuracy", "f1", {"metric": "roc_auc", "min_effect": 0.02}],
        slices={"floors": ["accuracy >= 0.6"], "max_gap": {"accuracy": 0.5}},
    )
    assert outcome.state == "success", outcome.error
    assert report["verdict"] == "passed"
    assert [rule["kind"] for rule in report["rules"]] == [
        "threshold",
        *["significance"] * 3,
        *["slice_floor"] * 2,
        "slice_gap",
    ]
    assert {rule["verdict"] for rule in report["rules"]} == {"passed"}


def test_a_candidate_that_is_certainly_worse_fails(contest: Contest, good: Logged, poor: Logged) -> None:
    contest.evaluate(poor, good, rows=600, slices=[])
    outcome, report = contest.judge(significance=["roc_auc", {"metric": "accuracy", "min_effect": -0.01}])
    assert outcome.state == "failed"
    assert report["verdict"] == outcome.xcom["verdict"] == "failed"
    assert [rule["verdict"] for rule in report["rules"]] == ["failed", "failed"]
    assert all(rule["high"] < rule["bound"] for rule in report["rules"])


def test_an_improvement_on_few_rows_is_inconclusive_and_says_how_many_would_decide(
    contest: Contest, good: Logged, poor: Logged
) -> None:
    contest.evaluate(good, poor, rows=40, slices=[])
    outcome, report = contest.judge(significance=[{"metric": "accuracy", "min_effect": 0.15, "min_rows": 30}])
    assert outcome.state == "failed"
    assert report["verdict"] == "inconclusive"
    (rule,) = report["rules"]
    assert rule["low"] < 0.15 <= rule["high"]
    assert rule["rows_needed"] > 40
    assert f"about {rule['rows_needed']} rows would decide it" in str(outcome.error)
    html = contest.world.artifact(contest.run, contract.ARTIFACT_GATE_REPORT_HTML).decode()
    assert f"about {rule['rows_needed']} rows" in html


def test_a_model_that_is_good_on_the_whole_fails_in_the_slice_where_it_is_not(contest: Contest, good: Logged) -> None:
    evidence = contest.evaluate(good, None, rows=1200)
    assert evidence.comparisons == ()
    assert {part.value: set(part.intervals) for part in evidence.slices} == {
        value: {"accuracy", "precision", "recall", "f1", "roc_auc", "log_loss"} for value in ("north", "south")
    }
    outcome, report = contest.judge(
        thresholds=["accuracy >= 0.8"],
        significance=["accuracy"],
        slices={"floors": ["accuracy >= 0.85"], "max_gap": {"recall": 0.02}, "by": ["region"]},
    )
    assert outcome.state == "failed"
    verdicts = {(rule["kind"], rule["slice"]): rule["verdict"] for rule in report["rules"]}
    assert verdicts == {
        ("threshold", ""): "passed",
        ("significance", ""): None,
        ("slice_floor", "region=north"): "passed",
        ("slice_floor", "region=south"): "failed",
        ("slice_gap", "region"): "failed",
    }


def test_a_retry_finds_the_comparisons_and_other_ones_are_measured_again(
    contest: Contest, good: Logged, poor: Logged
) -> None:
    first = contest.evaluate(good, poor, rows=100)
    assert contest.evaluate(good, None, rows=100) == first
    again = contest.evaluate(good, None, rows=100, comparisons=["accuracy"])
    assert again.created_at > first.created_at
    assert [item.metric for item in again.comparisons] == ["accuracy"]
