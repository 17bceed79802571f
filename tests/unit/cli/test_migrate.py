"""Pipeline files of earlier versions: every renamed name, and nothing else, changes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.pipeline.file.migration import MIGRATIONS, migrate
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.exceptions import PipelineSpecError

OLD = """\
# The pipeline of the churn model.
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {name: churn}   # as the Dag

spec:
  sourceCode:
    url:   https://github.com/team/churn  # read only
    "ref": main
    connection: git_reader
  trainingScript: train.py
  model: {name: churn, experiment: churn-nightly}
  data:
    dvc: {path: a.csv, evaluationPath: b.csv, repo: "https://github.com/team/data", rev: main, connection: git_reader}
    target: label
    problem: 'classification'
  triggers:
  - onDrift: {experiment: churn-drift}
  stages:
  - name: test
    command: [pytest]
    reports: [coverage.xml]
    env: {connection: kept, mode: dryRun}
  - name: gate
    thresholds: [accuracy >= 0.9]
    onInconclusive: ask
    benchmarks: [{url: "https://bench.example.com", path: regression, expect: 'false', connection: bench}]
    coverage:
    - report: {uri: s3://reports/c.xml, connection: reports}
      minLineRate: 0.8
  environments:
    prod:
      sourceCode: {ref: v1.2.0}
      data: {dvc: {rev: v1}}
"""
NEW = (
    OLD.replace("    url:   https", "    repoUrl:   https")
    .replace('"ref": main', "revision: main")
    .replace("    connection: git_reader", "    gitConnId: git_reader")
    .replace("experiment: churn-nightly", "experimentName: churn-nightly")
    .replace("repo: ", "repoUrl: ")
    .replace("rev: main, connection: git_reader", "revision: main, gitConnId: git_reader")
    .replace("problem: 'classification'", "modelType: classifier")
    .replace("experiment: churn-drift", "experimentName: churn-drift")
    .replace("onInconclusive: ask", "escalation: ask")
    .replace("connection: bench", "connId: bench")
    .replace("connection: reports", "connId: reports")
    .replace("sourceCode: {ref: ", "sourceCode: {revision: ")
    .replace("{rev: v1}", "{revision: v1}")
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "churn.yaml"
    path.write_bytes(OLD.encode())
    path.chmod(0o640)
    return path


def test_check_shows_the_difference_and_writes_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(file), "--check"]) == 1
    out = capsys.readouterr().out
    assert '-    "ref": main\n' in out
    assert "+    revision: main\n" in out
    assert out.endswith("1 file, 1 to migrate\n")
    assert file.read_text() == OLD


def test_only_names_change_and_a_second_time_nothing_does(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(file)]) == 0
    assert file.read_text() == NEW
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert f"{file}:8: spec.sourceCode.url is repoUrl\n" in capsys.readouterr().out
    assert main(["migrate", str(file), "--check"]) == 0
    assert [path.name for path in file.parent.iterdir()] == ["churn.yaml"]


def test_says_in_json_what_changes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(file), "--check", "--json"]) == 1
    planned = json.loads(capsys.readouterr().out)
    assert file.read_text() == OLD
    assert main(["migrate", str(file), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (planned["written"], done["written"], planned["changed"]) == (False, True, done["changed"])
    (changed,) = done["changed"]
    assert (changed["file"], done["files"]) == (str(file), 1)
    assert any("spec.sourceCode.url is repoUrl" in change for change in changed["changes"])


def test_what_was_migrated_is_valid_in_every_environment(file: Path) -> None:
    with pytest.raises(PipelineSpecError):
        load_pipeline_file(file)
    main(["migrate", str(file)])
    for environment in ("dev", "prod"):
        spec = load_pipeline_file(file, environment, variables={}).pipeline.spec
        assert spec.model.experiment_name == "churn-nightly"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mode: dryRun", "dryRun: true"),
        ("mode: warn", "mode: warn"),
        ("onInconclusive: fail", "onInconclusive: fail"),
        ("findings: [{report: {uri: a, connection: c}}]", "findings: [{report: {uri: a, connId: c}}]"),
    ],
)
def test_a_word_of_the_gate_moves_only_with_the_meaning_it_had(old: str, new: str) -> None:
    found = migrate(OLD.replace("onInconclusive: ask", old).encode(), "churn.yaml")
    assert found.text == NEW.replace("escalation: ask", new)


def test_every_rename_is_made_somewhere_in_the_tests() -> None:
    said = " ".join(migrate(OLD.replace("onInconclusive: ask", "mode: dryRun").encode(), "f").changes)
    said += " ".join(migrate(OLD.replace("dvc: {", "lfs: {").encode(), "f").changes)
    for renames in MIGRATIONS.values():
        for rename in renames:
            if rename.where[-1] not in ("baseline", "changedLines") and "findings" not in rename.where:
                assert f".{rename.old} is {rename.new}" in said, rename


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_byte_order_marks_stay(ending: str, mark: str) -> None:
    given = mark + OLD.replace("\n", ending)
    assert migrate(given.encode(), "churn.yaml").text == mark + NEW.replace("\n", ending)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "mcp.example.com/v1",
            "mcp.example.com/v9",
            "churn.yaml:2:13: apiVersion: must be one of mcp.example.com/v1",
        ),
        (
            "apiVersion: mcp.example.com/v1\n",
            "",
            "churn.yaml:2:1: apiVersion: must be one of mcp.example.com/v1",
        ),
        ('"ref": main', "ref: main\n    revision: main", "churn.yaml:9:5: spec.sourceCode: has both 'ref' and its new"),
        ("kind: ModelPipeline", "kind: [", "churn.yaml:6:1: kind[1]: this is not YAML"),
    ],
)
def test_what_cannot_be_migrated_is_refused_at_its_place(file: Path, old: str, new: str, problem: str) -> None:
    text = OLD.replace(old, new, 1)
    with pytest.raises(PipelineSpecError) as refused:
        migrate(text.encode(), "churn.yaml")
    assert str(refused.value).startswith(problem)


def test_in_a_folder_nothing_is_written_when_one_file_cannot_be_migrated(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = file.with_name("other.yaml")
    other.write_text(OLD.replace("/v1", "/v9"))
    file.with_name("config.yaml").write_text("url: kept\n")
    assert main(["migrate", str(file.parent)]) == 1
    assert "other.yaml:2:13: apiVersion" in capsys.readouterr().err
    assert file.read_text() == OLD
    other.unlink()
    file.with_name("defaults.yaml").write_text("spec: {sourceCode: {connection: git_reader}}\n")
    assert main(["migrate", str(file.parent)]) == 0
    assert capsys.readouterr().out.endswith("2 files, 2 migrated\n")
    assert file.with_name("defaults.yaml").read_text() == "spec: {sourceCode: {gitConnId: git_reader}}\n"
    assert file.with_name("config.yaml").read_text() == "url: kept\n"


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(tmp_path / "no.yaml")]) == 2
    assert "does not exist. Nothing was changed" in capsys.readouterr().err
