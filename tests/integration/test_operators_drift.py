"""DriftCheckOperator against a real MLflow server, with Evidently in a real process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.identity import content_hash
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.mlflow_world import World
from tests.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


def write(world: World, name: str, *, rows: int = 120, shift: float = 0.0) -> dict[str, str]:
    """Write a data file of two columns, the first of them shifted, and pin it."""
    lines = "".join(f"{n % 17 + shift},{n % 13},{n % 2}\n" for n in range(rows))
    text = f"x1,x2,y\n{lines}".encode()
    path = world.folder / name
    path.write_bytes(text)
    return {"uri": str(path), "version": "v1", "hash": content_hash(text)}


def crown(world: World, tags: dict[str, str]) -> None:
    """Make a version the champion that records the data it was trained on."""
    world.hook.create_registered_model(world.model_name)
    run, model_id = world.judged_model()
    version = world.hook.create_model_version(
        world.model_name, f"models:/{model_id}", run_id=run.run_id, model_id=model_id, tags=tags
    )
    world.hook.set_alias(world.model_name, "champion", version.version)


def check(world: World, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "experiment": world.experiment,
        "model_name": world.model_name,
        "ignored_columns": ["y"],
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(DriftCheckOperator, **given)


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
        "run_id": run.run_id,
        "report": contract.ARTIFACT_DRIFT_REPORT_HTML,
    }
    assert run.status == "FINISHED"
    assert run.tags[contract.TAG_DRIFT_VERDICT] == "drifted"
    assert (run.tags[contract.TAG_DATA_HASH], run.tags[contract.TAG_MODEL_NAME]) == (current["hash"], world.model_name)
    assert b"<html" in world.artifact(run, contract.ARTIFACT_DRIFT_REPORT_HTML)[:5000].lower()
    assert json.loads(world.artifact(run, contract.ARTIFACT_DRIFT_SUMMARY))["reference"]["uri"] == reference["uri"]

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
    assert json.loads(world.artifact(run, contract.ARTIFACT_DRIFT_SUMMARY))["verdict"] == "inconclusive"

    no_process(monkeypatch)
    goes_on = check(world, **pins, on_inconclusive="continue", try_number=2)
    assert (goes_on.state, goes_on.result["verdict"]) == ("success", "inconclusive")


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


@pytest.mark.parametrize("tag", [contract.TAG_DATA_URI, contract.TAG_DATA_HASH])
def test_a_champion_of_unknown_data_is_refused(world: World, tag: str) -> None:
    crown(world, {tag: "sha256:00"})
    outcome = check(world, current=write(world, "recent.csv"))
    assert outcome.state == "failed"
    assert f"version 1 of {world.model_name!r} does not record the data it was trained on" in str(outcome.error)
    assert [run.tags.get(contract.TAG_KIND) for run in world.runs()] == [None]
