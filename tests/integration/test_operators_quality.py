"""CheckQualityOperator against a real MLflow server, with the step in a real process and a log as servers write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.diagnostics import Calibration
from airflow_mcp.core.evaluation.evidence import ModelEvidence
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.quality.summary import QualitySummary
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.quality import CheckQualityOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.mlflow_world import World
from tests.support.prediction_log import Logged, write_log
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration
DAY = datetime(2026, 11, 20, tzinfo=UTC)
POLICY = {"limits": [{"metric": "accuracy", "largest_loss": 0.05}], "windows": 2, "label_delay": "PT2H"}


def write(folder: Path, right: float, *, labelled: float = 1.0) -> dict[str, str]:
    """Write a log of two days and its labels; return both arguments."""
    wrong, count = round(300 * (1 - right)), 300
    logged, labels = [], []
    for day in (0, 1):
        for number in range(count):
            true = number % 2
            name = f"d{day}-{number}"
            given = 1 - true if day and number < wrong else true
            moment = (DAY + timedelta(days=day, seconds=number)).timestamp()
            logged.append(Logged(name, moment, {"prediction": given, "probability": 0.9 if given else 0.1}))
            if number >= count * (1 - labelled):
                labels.append({"request_id": name, "label": true})
    path = folder / "labels.parquet"
    pd.DataFrame(labels).to_parquet(path)
    return {"requests": write_log(folder, logged), "labels": str(path)}


def crown(world: World) -> None:
    """Make a version the champion whose evaluation measured accuracy and calibration."""
    (version,) = world.versions(1)
    calibration = Calibration(event="positive_class", bins=(), ece=0.02, brier=0.1)
    run = world.hook.get_run(version.run_id)
    candidate = ModelEvidence(
        model_uri=version.uri, run_id=run.run_id, metrics={"accuracy": 0.9}, calibration=calibration
    )
    world.store_evidence(run, {"accuracy": 0.9}, candidate=candidate)
    world.hook.set_alias(world.model_name, "champion", version.version)


def checks(world: World) -> list[Run]:
    return world.hook.search_runs(
        [world.experiment_id], f"tags.`{contract.TAG_KIND}` = '{contract.KIND_QUALITY_CHECK}'"
    )


def check(world: World, **options: Any) -> TaskOutcome:
    given: dict[str, Any] = {
        "experiment_name": world.experiment,
        "model_name": world.model_name,
        "model_type": "classifier",
        "policy": POLICY,
        "probability": "positive",
        "as_of": (DAY + timedelta(days=2, hours=3)).isoformat(),
        "env": {"MARKER": world.marker},
        **options,
    }
    return world.run(CheckQualityOperator, **given)


def judged_by_command(world: World, data: dict[str, str], printed: pytest.CaptureFixture[str]) -> QualitySummary:
    """Judge the same files by ``airflow-mcp quality``, without Airflow and without a run in MLflow."""
    policy = world.folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    options = ["--model-type", "classifier", "--policy", str(policy), "--probability", "positive"]
    options += ["--as-of", (DAY + timedelta(days=2, hours=3)).isoformat()]
    options += ["--model-name", world.model_name, "--tracking-uri", world.hook.settings.base_url]
    printed.readouterr()
    assert main(["quality", data["requests"], data["labels"], *options, "--json", "--exit-code"]) == 3
    return parse_document(QualitySummary, printed.readouterr().out, "the command's answer")


def test_a_degraded_model_is_found_and_a_retry_judges_nothing_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crown(world)
    data = write(world.folder, 0.7)
    outcome = check(world, **data)
    assert outcome.state == "success", outcome.error
    result = outcome.result
    assert (result["verdict"], result["labelled_share"]) == ("degraded", 1.0)
    assert result["metrics"]["accuracy"] == pytest.approx(0.7)
    assert result["estimated_metrics"]["accuracy"] == pytest.approx(0.9)
    assert [(each["verdict"], each["end"]) for each in result["windows"]] == [
        ("not_degraded", "2026-11-21T00:00:00Z"),
        ("degraded", "2026-11-22T00:00:00Z"),
    ]
    (run,) = checks(world)
    assert (run.run_id, run.status) == (result["run_id"], "FINISHED")
    assert run.tags[contract.TAG_QUALITY_VERDICT] == "degraded"
    text = world.artifact(run, contract.ARTIFACT_QUALITY_SUMMARY)
    summary = parse_document(QualitySummary, text, "summary")
    assert summary.baseline is not None
    assert (summary.baseline.metrics["accuracy"], summary.baseline.calibration_error) == (0.9, 0.02)
    command = judged_by_command(world, data, capsys)
    of_the_run = {"identity": "", "run_id": "", "created_at": ""}
    assert command.model_copy(update=of_the_run) == summary.model_copy(update=of_the_run)
    assert len(checks(world)) == 1
    assert b"estimated, not measured" in world.artifact(run, contract.ARTIFACT_QUALITY_REPORT_HTML)

    def refuse(self: LocalBackend, workload: Any, **_: Any) -> None:
        raise AssertionError(f"workload {workload.name} was started")

    monkeypatch.setattr(LocalBackend, "run", refuse)
    again = check(world, **data, try_number=2)
    assert (again.state, again.result) == ("success", result)


def test_too_few_labels_fail_skip_or_go_on_with_the_report_kept(world: World) -> None:
    crown(world)
    data = write(world.folder, 0.9, labelled=0.5)
    failed = check(world, **data)
    assert failed.state == "failed"
    assert "is inconclusive: window 2026-11-21 00:00: 50.0% of 300 predictions are labelled" in str(failed.error)
    assert "Nothing was concluded about the model" in str(failed.error)
    (run,) = checks(world)
    assert world.artifact(run, contract.ARTIFACT_QUALITY_REPORT_HTML)
    for on_inconclusive, state in (("skip", "skipped"), ("continue", "success")):
        outcome = check(world, **data, on_inconclusive=on_inconclusive)
        assert (outcome.state, len(checks(world))) == (state, 1)


def test_wrong_arguments_start_nothing(world: World) -> None:
    data = write(world.folder, 0.9)
    with pytest.raises(InvalidArgumentError, match="limits must name metrics of accuracy, precision"):
        check(world, **data, policy={**POLICY, "limits": [{"metric": "mae", "maximum": 1}]})
    missing = check(world, requests=str(world.folder / "nowhere"), labels=data["labels"])
    assert missing.state == "failed"
    assert "nowhere" in str(missing.error)
