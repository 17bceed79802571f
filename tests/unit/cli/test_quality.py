"""``airflow-mcp quality`` on real files: what it prints and writes, its defaults, and calls that are wrong."""

from __future__ import annotations

import argparse
import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml

from airflow_mcp.cli import main
from airflow_mcp.cli.quality import add_arguments
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.quality.page import render_quality_report
from airflow_mcp.core.quality.summary import QualitySummary
from airflow_mcp.operators.quality import CheckQualityOperator
from tests.support.prediction_log import Logged, write_log

DAY = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """The arguments of a check of 200 answers, of which 90 % are right."""
    logged = [Logged(f"r{n}", (DAY + timedelta(seconds=n)).timestamp(), n % 2) for n in range(200)]
    rows = [{"request_id": f"r{n}", "label": 1 - n % 2 if n < 20 else n % 2} for n in range(200)]
    pd.DataFrame(rows[:100]).to_parquet(tmp_path / "early.parquet")
    pd.DataFrame(rows[100:]).to_parquet(tmp_path / "late.parquet")
    policy = {"limits": [{"metric": "accuracy", "minimum": 0.8}], "windows": 1}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    labels = [str(tmp_path / "early.parquet"), str(tmp_path / "late.parquet")]
    options = ["--model-type", "classifier", "--policy", str(tmp_path / "policy.yaml")]
    return ["quality", write_log(tmp_path, logged), *labels, *options, "--as-of", "2026-11-21T01:00:00+00:00"]


def test_a_log_is_judged_by_several_tables_of_labels(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["-o", str(tmp_path / "summary.json"), "--html", str(tmp_path / "report.html")]
    assert main([*call, *files, "--exit-code"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("not_degraded: window 2026-11-20 00:00: accuracy is 0.9 (")
    assert shown[1].startswith("  2026-11-20 00:00 not_degraded 200 of 200 labelled: ")
    assert shown[2] == "200 requests, 0 failed; 0 short windows exceed a limit"
    summary = parse_document(QualitySummary, (tmp_path / "summary.json").read_text(), "summary")
    assert summary.windows[0].metrics["accuracy"] == 0.9
    assert (tmp_path / "report.html").read_text() == render_quality_report(summary)


@pytest.mark.parametrize(("minimum", "labels", "code"), [(0.97, 2, 3), (0.8, 1, 4)])
def test_exit_codes_say_degraded_and_inconclusive(
    call: list[str], tmp_path: Path, minimum: float, labels: int, code: int
) -> None:
    policy = {"limits": [{"metric": "accuracy", "minimum": minimum}], "windows": 1}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    given = [*call[: 2 + labels], *call[4:]]
    assert (main(given), main([*given, "--exit-code"])) == (0, code)


def test_names_and_defaults_are_those_of_the_operator() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parsed = vars(parser.parse_args(["log", "labels", "--model-type", "classifier", "--policy", "p"]))
    known = inspect.signature(CheckQualityOperator.__init__).parameters
    shared = {name: parameter.default for name, parameter in known.items() if name in parsed}
    assert set(known) - {"self", "kwargs"} == set(shared)
    optional = {name: default for name, default in shared.items() if default is not inspect.Parameter.empty}
    for name, default in optional.items():
        if name != "roles":
            assert (parsed[name] or None) == (default or None), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--policy", "nowhere.yaml"], "--policy nowhere.yaml cannot be read"),
        (["--model-type", "regressor"], "limits must name metrics of"),
        (["--key", "customer"], "keys need label_time_column"),
        (["--role", "shadow", "--role", "champion"], "shadow must be the only role"),
        (["--as-of", "yesterday"], "as_of"),
        (["--tracking-uri", "http://localhost:1"], "--tracking-uri needs --model-name"),
    ],
)
def test_wrong_calls_judge_nothing(
    call: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*call, *more]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
