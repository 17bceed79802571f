"""``airflow-mcp drift`` on real files, and next to the functions that the drift check calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.page import render_drift_report
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.profile import read_profile
from airflow_mcp.core.drift.result import DriftResult
from airflow_mcp.core.drift.summary import DriftSummary
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from airflow_mcp.work.drift.profiles import merge_profiles, profile_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a reference and two windows; in the second one ``amount`` has moved."""
    for name, seed, shift in (("reference", 1, 0.0), ("calm", 2, 0.0), ("moved", 3, 2.0)):
        random = np.random.default_rng(seed)
        columns = {"amount": random.normal(shift, 1, 1500), "kind": random.choice(["a", "b"], 1500)}
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_a_profile_is_written_and_compared_with_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drift", "profile", f"{data}/reference.parquet", "-o", f"{data}/r.json"]) == 0
    written = (data / "r.json").read_bytes()
    assert f"1500 rows, 2 columns, {len(written)} bytes" in capsys.readouterr().out
    assert read_profile(written, "r.json").rows == 1500
    assert main(["drift", "compare", f"{data}/r.json", f"{data}/moved.parquet"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("drifted: the features drifted; 1 of 2 compared features drifted")
    assert shown[1] == f"reference: profile of {data}/reference.parquet, 1500 rows"
    assert [line.split()[:2] for line in shown[4:6]] == [["drifted", "amount"], ["stable", "kind"]]


def test_columns_that_other_options_name_are_profiled_beside_the_chosen(data: Path) -> None:
    chosen = ["--column", "amount", "--categorical", "kind"]
    assert main(["drift", "profile", f"{data}/reference.parquet", "-o", f"{data}/r.json", *chosen]) == 0
    columns = read_profile((data / "r.json").read_bytes(), "r.json").columns
    assert [column.name for column in columns] == ["amount", "kind"]


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "taken").mkdir()
    for output in (data / "nowhere" / "p.json", data / "taken"):
        assert main(["drift", "profile", str(data / "reference.parquet"), "-o", str(output)]) == 2
        assert f"--output must be a file that can be written; got {str(output)!r}: " in capsys.readouterr().err
    assert not list(data.rglob("*.json"))


def test_the_numbers_are_those_of_the_functions(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [[DatasetPin(uri=f"{data}/{name}.parquet")] for name in ("reference", "moved")]
    for precision in ("exact", "profile"):
        expected = compare_datasets(*sides, ComparisonPolicy(precision=precision, numerical_method="ks")).result  # type: ignore[arg-type]
        command = ["drift", "compare", f"{data}/reference.parquet", f"{data}/moved.parquet"]
        assert main([*command, "--precision", precision, "--numerical-method", "ks", "--format", "json"]) == 0
        found = parse_document(DriftResult, capsys.readouterr().out, "output")
        assert found.columns == expected.columns
        assert (found.verdict, found.reason, found.policy) == (expected.verdict, expected.reason, expected.policy)


def test_the_report_for_people_is_that_of_a_check_without_a_run(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["drift", "compare", f"{data}/reference.parquet", f"{data}/moved.parquet"]
    assert main([*command, "--html", f"{data}/report.html", "-o", f"{data}/result.json"]) == 0
    page = (data / "report.html").read_text()
    result = parse_document(DriftResult, (data / "result.json").read_text(), "result.json")
    assert page == render_drift_report(DriftSummary(identity="", run_id="", result=result))
    assert "<h1>Drift check</h1>" in page
    assert page.count("<svg") >= 2
    assert "MLflow run" not in page
    assert main([*command, "--html", str(data)]) == 2
    assert f"--html must be a file that can be written; got {str(data)!r}: " in capsys.readouterr().err


def test_profiles_of_parts_are_merged(data: Path) -> None:
    parts = [profile_dataset([DatasetPin(uri=f"{data}/{name}.parquet")]) for name in ("calm", "moved")]
    for name in ("calm", "moved"):
        assert main(["drift", "profile", f"{data}/{name}.parquet", "-o", f"{data}/{name}.json"]) == 0
    assert main(["drift", "merge", f"{data}/calm.json", f"{data}/moved.json", "-o", f"{data}/both.json"]) == 0
    merged = read_profile((data / "both.json").read_bytes(), "both.json")
    assert merged.columns == merge_profiles(parts).columns


@pytest.mark.parametrize(
    ("current", "options", "code"),
    [("moved", [], 3), ("calm", [], 0), ("calm", ["--min-rows", "9999"], 4), ("moved", ["--drift-share", "0.9"], 0)],
)
def test_with_exit_code_the_verdict_is_the_exit_code(data: Path, current: str, options: list[str], code: int) -> None:
    command = ["drift", "compare", f"{data}/reference.parquet", f"{data}/{current}.parquet", *options]
    assert main(command) == 0
    assert main([*command, "--exit-code"]) == code


def test_a_policy_comes_from_a_file_and_options_go_before_it(data: Path) -> None:
    (data / "p.yaml").write_text("drift_share: 0.9\nweights: {amount: 3, kind: 1}\nignored_columns: []\n")
    command = ["drift", "compare", f"{data}/reference.parquet", f"{data}/moved.parquet", "--policy", f"{data}/p.yaml"]
    assert main([*command, "--drift-share", "0.7", "-o", f"{data}/result.json"]) == 0
    found = json.loads((data / "result.json").read_text())
    assert (found["verdict"], found["drift_share"]) == ("drifted", 0.75)
    assert (found["policy"]["drift_share"], found["policy"]["weights"]) == (0.7, {"amount": 3.0, "kind": 1.0})


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compare", "none.parquet", "reference.parquet"], 1, "does not exist"),
        (
            ["compare", "none.json", "reference.parquet"],
            1,
            "dataset none.json cannot be read: No such file or directory",
        ),
        (["compare", "p.json", "reference.parquet"], 1, "p.json is not a valid DataProfile"),
        (["compare", "reference.parquet", "calm.parquet", "--policy", "none.yaml"], 2, "none.yaml cannot be read"),
        (
            ["compare", "reference.parquet", "calm.parquet", "--policy", "list.yaml"],
            2,
            "--policy must be a file with a mapping of fields; got list.yaml, a list",
        ),
        (
            ["compare", "reference.parquet", "calm.parquet", "--numerical-threshold", "3"],
            2,
            "numerical_method must name a method when a threshold is given",
        ),
        (
            ["compare", "reference.parquet", "calm.parquet", "--column", "x"],
            1,
            "no column 'x'; it has 'amount', 'kind'",
        ),
        (["profile", "p.json", "-o", "x.json"], 1, "; got '.json'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    data: Path,
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(data)
    (data / "p.json").write_text('{"schema": "airflow_mcp/profile/1"}')
    (data / "list.yaml").write_text("- 1")
    assert main(["drift", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_asking_for_help_reads_no_data_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom airflow_mcp.cli import main\n"
        "try:\n    main(['drift', 'compare', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pyarrow', 'pandas', 'scipy', 'airflow_mcp.work'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
