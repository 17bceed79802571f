"""DriftCheckOperator against a real MLflow server, with the step in a real process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk._shared.observability.metrics import stats
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger

from airflow_mcp.core import contract
from airflow_mcp.core.drift.summary import DriftSummary, read_drift_summary
from airflow_mcp.core.identity import content_hash
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.mlflow_world import World
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def write(world: World, name: str, *, rows: int = 120, shift: float = 0.0) -> dict[str, str]:
    """Write a data file of two columns, the first of them shifted, and pin it."""
    lines = "".join(f"{n % 17 + shift},{n % 13},{n % 2}\n" for n in range(rows))
    text = f"x1,x2,y\n{lines}".encode()
    path = world.folder / name
    path.write_bytes(text)
    return {"uri": str(path), "version": "v1", "hash": content_hash(text)}


def crown(world: World, tags: dict[str, str]) -> None:
    """Make a version the champion that has these tags."""
    world.hook.create_registered_model(world.model_name)
    run, model_id = world.judged_model()
    version = world.hook.create_model_version(
        world.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=tags
    )
    world.hook.set_alias(world.model_name, "champion", version.version)


def check(world: World, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "ignored_columns": ["y"],
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(DriftCheckOperator, **given)


def summary_of(world: World, run: Any) -> DriftSummary:
    return read_drift_summary(world.artifact(run, contract.ARTIFACT_DRIFT_SUMMARY), "summary")


def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when a workload is started."""

    def refuse(self: LocalBackend, workload: Any, **_: Any) -> None:
        raise AssertionError(f"workload {workload.name} was started")

    monkeypatch.setattr(LocalBackend, "run", refuse)


def test_drift_from_what_the_champion_was_trained_on_is_found_and_a_retry_compares_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, current = write(world, "train.csv"), write(world, "recent.csv", shift=9)
    crown(world, {contract.TAG_DATA_URI: reference["uri"], contract.TAG_DATA_HASH: reference["hash"]})
    outcome = check(world, current=current)
    assert outcome.state == "success", outcome.error
    (run,) = world.hook.search_runs(
        [world.experiment_id], f"tags.`{contract.TAG_KIND}` = '{contract.KIND_DRIFT_CHECK}'"
    )
    assert outcome.result == {
        "verdict": "drifted",
        "reason": outcome.result["reason"],
        "drift_share": 0.5,
        "drifted_columns": ["x1"],
        "findings": outcome.result["findings"],
        "run_id": run.run_id,
        "report": contract.ARTIFACT_DRIFT_REPORT_HTML,
    }
    assert run.status == "FINISHED"
    assert run.tags[contract.TAG_DRIFT_VERDICT] == "drifted"
    assert (run.tags[contract.TAG_DATA_HASH], run.tags[contract.TAG_MODEL_NAME]) == (current["hash"], world.model_name)
    assert b"<html" in world.artifact(run, contract.ARTIFACT_DRIFT_REPORT_HTML)[:5000].lower()
    result = summary_of(world, run).result
    assert [pin.uri for pin in result.reference] == [reference["uri"]]
    assert not result.reference_is_profile

    no_process(monkeypatch)
    again = check(world, current=current, try_number=2)
    assert (again.state, again.result) == ("success", outcome.result)
    other = check(world, current=current, try_number=2, drift_share=0.9)
    assert other.state != "success"
    assert "was started" in str(other.error)


def test_data_that_is_as_it_was_has_not_drifted(world: World) -> None:
    outcome = check(world, current=write(world, "recent.csv", rows=150), reference=write(world, "train.csv"))
    assert outcome.state == "success", outcome.error
    assert (outcome.result["verdict"], outcome.result["drifted_columns"]) == ("not_drifted", [])
    assert world.processes() == []


@pytest.mark.parametrize("place", ["evaluation/importance.json", "feature_importance_gain.json"])
def test_columns_weigh_as_much_as_they_matter_to_the_champion(world: World, place: str) -> None:
    pins = {"reference": write(world, "train.csv"), "current": write(world, "recent.csv", shift=9)}
    weigh = {"policy": {"weights": "champion"}}
    alone = check(world, **pins, **weigh)
    assert f"weights is 'champion', but {world.model_name!r} has no champion" in str(alone.error)
    crown(world, {})
    (version,) = world.all_versions()
    unknown = check(world, **pins, **weigh)
    assert unknown.state == "failed"
    assert "has no feature importance logged. Evaluate with importance_rows" in str(unknown.error)
    assert not world.hook.search_runs([world.experiment_id], f"tags.`{contract.TAG_KIND}` = 'drift_check'")

    importance = {"x1": 0.1, "x2": 0.9, "y": 0.0}
    world.hook.upload_artifact(version.run_id, place, json.dumps(importance).encode())
    assert check(world, **pins).result["verdict"] == "drifted", "one of two columns has drifted"
    weighed = check(world, **pins, **weigh)
    assert weighed.state == "success", weighed.error
    assert (weighed.result["verdict"], weighed.result["drift_share"]) == ("not_drifted", pytest.approx(0.1))
    result = summary_of(world, weighed.result["run_id"]).result
    assert result.policy.weights == {"x1": 0.1, "x2": 0.9}
    only = check(world, **pins, **weigh, columns=["x1"])
    assert (only.result["verdict"], only.result["drift_share"]) == ("drifted", 1.0)
    ignored = check(world, **pins, **weigh, ignored_columns=["y", "x1", "x2"])
    assert "no compared column is important to version 1" in str(ignored.error)


def test_too_few_rows_are_inconclusive_which_fails_but_keeps_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = {"current": write(world, "recent.csv", rows=20), "reference": write(world, "train.csv")}
    outcome = check(world, **pins)
    assert outcome.state == "failed"
    (run,) = world.runs("FINISHED")
    message = str(outcome.error)
    assert f"the drift check of {world.model_name!r} is inconclusive: " in message
    assert f"Its report is in MLflow run {run.run_id}" in message
    assert outcome.xcom["verdict"] == "inconclusive"
    assert outcome.xcom["return_value"]["run_id"] == run.run_id
    assert summary_of(world, run).result.verdict == "inconclusive"
    assert b"inconclusive" in world.artifact(run, contract.ARTIFACT_DRIFT_REPORT_HTML)

    no_process(monkeypatch)
    goes_on = check(world, **pins, on_inconclusive="continue", try_number=2)
    assert (goes_on.state, goes_on.result["verdict"]) == ("success", "inconclusive")
    skipped = check(world, **pins, on_inconclusive="skip", try_number=3)
    assert (skipped.state, skipped.result["verdict"]) == ("skipped", "inconclusive")


@pytest.mark.parametrize(
    ("broken", "message"),
    [("empty", "is empty (0 bytes)"), ("changed", "is not the one that was pinned")],
)
def test_data_that_cannot_be_compared_is_refused_and_the_run_is_closed(world: World, broken: str, message: str) -> None:
    reference, current = write(world, "train.csv"), write(world, "recent.csv")
    path = world.folder / "recent.csv"
    texts = {"empty": "", "changed": "x1,x2,y\n" + "1,2,3\n" * 120}
    path.write_text(texts[broken])
    if broken != "changed":
        current["hash"] = content_hash(path.read_bytes())
    outcome = check(world, current=current, reference=reference)
    assert outcome.state == "failed"
    assert message in str(outcome.error)
    (run,) = world.runs()
    assert run.status == "FAILED"
    assert message in run.tags[contract.TAG_ERROR]
    assert world.processes() == []


def test_columns_that_do_not_match_are_inconclusive_and_named(world: World) -> None:
    reference, path = write(world, "train.csv"), world.folder / "recent.csv"
    path.write_text("x1,z,y\n" + "".join(f"{n % 17}.0,2,0\n" for n in range(120)))
    current = {"uri": str(path), "version": "v1", "hash": content_hash(path.read_bytes())}
    outcome = check(world, current=current, reference=reference)
    assert outcome.state == "failed"
    assert outcome.xcom["verdict"] == "inconclusive"
    assert "x2" in outcome.xcom["reason"]
    (run,) = world.runs("FINISHED")
    assert outcome.xcom["run_id"] == run.run_id


def test_without_a_champion_there_is_nothing_to_compare_with(world: World) -> None:
    outcome = check(world, current=write(world, "recent.csv"))
    assert outcome.state == "failed"
    assert f"reference is 'champion', but {world.model_name!r} has no champion" in str(outcome.error)
    assert world.runs() == []


TRAIN_ON_DATA = """
import os, pandas as pd
frame = pd.read_csv(os.environ["AIRFLOW_MCP_DATA_PATH"])
import mlflow
class Zero(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [0] * len(model_input)
with mlflow.start_run():
    example = frame[["x1", "x2"]].head(2)
    mlflow.pyfunc.log_model(name="model", python_model=Zero(), input_example=example, pip_requirements=[])
"""


def train(world: World, pin: dict[str, str], **options: Any) -> TaskOutcome:
    script = world.folder / "train_model.py"
    script.write_text(TRAIN_ON_DATA)
    given = {"experiment_name": world.experiment, "model_name": world.model_name, "script": str(script), "dataset": pin}
    return world.run(TrainModelOperator, **{**given, **options})


def test_the_champion_is_compared_by_the_profile_that_its_training_stored_also_when_the_data_is_gone(
    world: World,
) -> None:
    reference, current = write(world, "train.csv"), write(world, "recent.csv", shift=9)
    trained = train(world, reference)
    assert trained.state == "success", trained.error
    registered = world.run(
        RegisterModelOperator, model_name=world.model_name, model_uri=trained.result["model_uri"], require_gate=False
    )
    world.hook.set_alias(world.model_name, "champion", registered.result["version"])
    (world.folder / "train.csv").unlink()
    version = world.hook.get_model_version(world.model_name, registered.result["version"])
    assert version.tags[contract.TAG_DATA_PROFILE] == contract.ARTIFACT_PROFILE

    outcome = check(world, current=current)
    assert outcome.state == "success", outcome.error
    assert (outcome.result["verdict"], outcome.result["drifted_columns"]) == ("drifted", ["x1"])
    summary = summary_of(world, outcome.result["run_id"])
    assert summary.reference_profiles == (f"runs:/{trained.result['run_id']}/{contract.ARTIFACT_PROFILE}",)
    assert summary.result.reference_is_profile
    assert [pin.hash for pin in summary.result.reference] == [reference["hash"]]
    exact = check(world, current=current, precision="exact")
    assert exact.state == "failed", "exact scores need the training data, which is gone"
    refused = check(world, current=current, reference={"profile": summary.reference_profiles[0]}, precision="exact")
    assert "need the rows of both datasets, but reference is a profile" in str(refused.error)


def test_a_training_that_opts_out_stores_no_profile(world: World) -> None:
    trained = train(world, write(world, "train.csv"), profile_data=False)
    assert trained.state == "success", trained.error
    (run,) = world.runs("FINISHED")
    assert contract.TAG_DATA_PROFILE not in run.tags


def test_an_hour_and_the_next_are_checked_as_one_window(world: World) -> None:
    hours = [write(world, f"hour-{hour}.csv", rows=60) for hour in range(2)]
    outcome = check(world, current=hours, reference=write(world, "train.csv"), on_inconclusive="continue")
    assert outcome.state == "success", outcome.error
    assert summary_of(world, outcome.result["run_id"]).result.current_rows == 120


@pytest.mark.parametrize(
    "wrong", [[], [{"profile": "a"}, {"uri": "/a.csv", "version": "1"}], {"profile": "a", "version": "1"}, "newest"]
)
def test_what_names_no_data_is_refused(world: World, wrong: Any) -> None:
    outcome = check(world, current=wrong, reference=write(world, "train.csv"))
    assert outcome.state == "failed"
    assert "current must be " in str(outcome.error)
    assert world.runs() == []


class Backend(NoStatsLogger):
    """Where Airflow's metrics end up, in place of StatsD or OpenTelemetry."""

    def __init__(self) -> None:
        self.gauges: list[tuple[str, float, Any]] = []
        self.counts: list[tuple[str, Any]] = []

    def gauge(self, stat: str, value: float, *args: Any, tags: Any = None, **options: Any) -> None:  # type: ignore[override]
        self.gauges.append((stat, value, tags))

    def incr(self, stat: str, *args: Any, tags: Any = None, **options: Any) -> None:  # type: ignore[override]
        self.counts.append((stat, tags))


@pytest.mark.parametrize("tagged", [True, False])
def test_the_numbers_of_a_check_are_metrics_of_airflow_with_tags_or_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch, tagged: bool
) -> None:
    backend = Backend()
    monkeypatch.setattr(stats, "_factory", lambda: backend)
    monkeypatch.setattr(stats, "_backend", backend)
    monkeypatch.setattr(stats, "_export_legacy_names", False)
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", str(tagged))
    pins = {"current": write(world, "recent.csv", shift=9), "reference": write(world, "train.csv")}
    assert check(world, **pins).state == "success"
    assert check(world, **pins, try_number=2).state == "success", "a retry finds the check and counts it no second time"
    ours = [item for item in backend.gauges if item[0].startswith("airflow_mcp.drift.")]
    name, tags = world.model_name, {"model": world.model_name}
    if tagged:
        assert ("airflow_mcp.drift.drift_share", 0.5, tags) in ours
        counted = ("airflow_mcp.drift.checks", {**tags, "verdict": "drifted"})
    else:
        assert (f"airflow_mcp.drift.drifted_columns.{name}", 1.0, None) in ours
        counted = (f"airflow_mcp.drift.checks.{name}.drifted", None)
    assert {name.split(".")[2] for name, _, _ in ours} == {
        "drift_share",
        "drifted_columns",
        "current_rows",
        "findings",
        "drifted",
    }
    counts = [count for count in backend.counts if count[0].startswith("airflow_mcp.")]
    assert [count for count in counts if not count[0].startswith("airflow_mcp.tasks")] == [counted]
    assert len(counts) == 3, "each try of the task is counted"


@pytest.mark.parametrize("tag", [contract.TAG_DATA_URI, contract.TAG_DATA_HASH])
def test_a_champion_of_unknown_data_is_refused(world: World, tag: str) -> None:
    crown(world, {tag: "sha256:00"})
    outcome = check(world, current=write(world, "recent.csv"))
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} does not record the data it was trained on" in str(outcome.error)
    assert [run.tags.get(contract.TAG_KIND) for run in world.runs()] == [None]
