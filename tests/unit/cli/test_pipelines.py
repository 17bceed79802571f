"""The commands on pipeline files, ``airflow-mcp validate`` to ``init``: on real files, without Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_mcp.cli import main
from airflow_mcp.cli.pipeline_files import plan_of
from airflow_mcp.cli.schema import schema
from airflow_mcp.core.pipeline.file.pipeline import ModelPipeline
from airflow_mcp.dag_rendering.loader import LoadedPipeline, load_pipeline_folder
from airflow_mcp.dag_rendering.plans import plan_pipeline
from tests.support.paths import ROOT

FILES = ROOT / "tests" / "pipelines"
FRAUD = (FILES / "fraud_detection.yaml").read_text(encoding="utf-8")
BROKEN = FRAUD.replace("accuracy: 0.92", "accuracy: high").replace("cron:", "cron: 99 # ")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of our own, so that files are named as a person would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


class TestValidate:
    def test_says_that_all_files_are_valid(self, capsys: Captured) -> None:
        assert main(["validate", str(FILES)]) == 0
        assert capsys.readouterr().out == "5 files, all valid (checked for: dev, test (1 file), prod (3 files))\n"

    def test_checks_the_policies_beside_a_pipeline_too(self, capsys: Captured) -> None:
        write("p/fraud.yaml", FRAUD)
        rollback = (
            "apiVersion: mcp.example.com/v1\nkind: RollbackPolicy\nspec:\n  trigger:\n    metric: http_5xx_rate\n"
        )
        write("p/rollback.yaml", f'{rollback}    threshold: "0.05"\n    duration: 2m\n')
        assert main(["validate", "p"]) == 0
        assert capsys.readouterr().out == "2 files, all valid (checked for: dev)\n"
        assert main(["validate", "p/rollback.yaml"]) == 0
        capsys.readouterr()
        write("p/rollback.yaml", f'{rollback}    threshold: "5"\n    duration: 2m\n')
        assert main(["validate", "p"]) == 1
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith("p/rollback.yaml:6:16: spec.trigger.threshold: must be less than 1 for http_5xx_rate")
        assert last == "2 files, 1 not valid (checked for: dev)"

    def test_names_every_problem_of_every_file_as_seen_from_here(self, capsys: Captured) -> None:
        write("p/a.yaml", BROKEN)
        write("p/q/b.yaml", "kind: ModelPipeline\n")
        write("p/c.yaml", FRAUD)
        assert main(["validate", "p"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(": ")[0] for line in lines[:-1]] == [
            *("p/a.yaml:10:13", "p/a.yaml:16:19"),
            *("p/q/b.yaml:1:1", "p/q/b.yaml:1:1", "p/q/b.yaml:1:1"),
        ]
        assert lines[-1] == "3 files, 2 not valid (checked for: dev)"

    @pytest.mark.parametrize(
        ("text", "kind"),
        [("- a", "a list"), ("[]", "a list"), ("hello", "text"), ("42", "a whole number"), ("true", "a boolean")],
    )
    def test_a_file_that_is_no_mapping_does_not_hide_the_others(self, text: str, kind: str, capsys: Captured) -> None:
        write("a.yaml", f"# a comment\n{text}\n")
        write("b.yaml", BROKEN)
        write("c.yaml", FRAUD)
        assert main(["validate", "a.yaml", "b.yaml", "c.yaml"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"a.yaml:2:1: the file must be a mapping of apiVersion, kind, metadata, spec; got {kind}"
        assert lines[-1].startswith("3 files, 2 not valid")
        for command in ("plan", "graph"):
            assert main([command, "a.yaml"]) == 1
            assert f"a.yaml:2:1: the file must be a mapping of apiVersion, kind, metadata, spec; got {kind}" in (
                capsys.readouterr().err
            )

    def test_a_pipeline_written_as_a_list_is_reported_in_its_folder_too(self, capsys: Captured) -> None:
        write("p/a.yaml", f"- {FRAUD.replace(chr(10), chr(10) + '  ')}\n")
        write("p/requirements.yaml", "- numpy\n")
        assert main(["validate", "p"]) == 1
        assert capsys.readouterr().out.startswith("p/a.yaml:1:1: the file must be a mapping")

    def test_checks_the_environments_that_a_file_speaks_of(self, capsys: Captured) -> None:
        write("a.yaml", FRAUD + "  environments: {prod: {sourceCode: {revision: main}}}\n")
        assert main(["validate", "a.yaml"]) == 1
        assert "must be a release tag in prod" in (told := capsys.readouterr().out)
        assert "[prod]\n" in told
        assert main(["validate", "a.yaml", "--env", "dev"]) == 0

    def test_prints_json(self, capsys: Captured) -> None:
        write("a.yaml", BROKEN)
        assert main(["validate", "a.yaml", "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["files"] == {"a.yaml": False}
        assert told["problems"][1] == {
            "file": "a.yaml",
            "line": 16,
            "column": 19,
            "field": "spec.stages[1].metricsThreshold.accuracy",
            "message": "must be a number, or >=, <=, > or < and a number, for example '>= 0.92'; got 'high'",
            "environments": ["dev"],
        }

    def test_prints_annotations_for_github(self, capsys: Captured) -> None:
        write("a,b.yaml", FRAUD.replace("name: build", 'name: "100%\\n::"'))
        assert main(["validate", "a,b.yaml", "--format", "github"]) == 1
        lines = capsys.readouterr().out.splitlines()
        start = "::error file=a%2Cb.yaml,line=12,col=13,title=spec.stages[0].name::must be lower-case letters"
        assert any(line.startswith(start) for line in lines)

    def test_warns_of_an_image_without_a_tag_and_of_no_other(self, capsys: Captured) -> None:
        write("a.yaml", FRAUD.replace("tensorflow:2.12", "registry.example.com:5000/team/fraud"))
        assert main(["validate", "a.yaml"]) == 0
        warning, summary = capsys.readouterr().out.splitlines()
        assert warning.startswith(
            "a.yaml: warning: image 'registry.example.com:5000/team/fraud' has no tag, which means"
        )
        assert summary.startswith("1 file, all valid")
        assert main(["validate", "a.yaml", "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["warnings"][0]["file"] == "a.yaml"
        assert main(["validate", "a.yaml", "--format", "github"]) == 0
        assert capsys.readouterr().out.startswith("::warning file=a.yaml::image ")
        assert main(["plan", "a.yaml"]) == 0
        assert "  warning      image 'registry.example.com:5000/team/fraud' has no tag" in capsys.readouterr().out
        write("a.yaml", FRAUD.replace("tensorflow:2.12", f"team/fraud@sha256:{'0' * 64}"))
        assert main(["validate", "a.yaml"]) == 0
        assert "warning" not in capsys.readouterr().out

    @pytest.mark.parametrize("path", ["missing", "empty"])
    def test_nothing_to_check_is_a_wrong_call(self, path: str, capsys: Captured) -> None:
        Path("empty").mkdir()
        assert main(["validate", path]) == 2
        assert path in capsys.readouterr().err


class TestPlan:
    def test_shows_tasks_edges_images_schedule_and_thresholds_with_where_they_come_from(self, capsys: Captured) -> None:
        assert main(["plan", str(FILES / "fraud_detection.yaml")]) == 0
        told = capsys.readouterr().out
        for part in (
            "cron 0 2 * * * (UTC, no catch-up); commit (repo_url https://github.com/team/ml-fraud-v3",
            "build after begin\n    from                 fraud_detection.yaml:12",
            "image                tensorflow:2.12",
            'thresholds           ["accuracy >= 0.92","latency_ms <= 150"]',
            "promote after load_check, gate, begin\n    from                 filled in: a version that passed the gate",
        ):
            assert part in told

    def test_shows_what_differs_from_another_file(self, capsys: Captured) -> None:
        write("a.yaml", FRAUD)
        write("b.yaml", "# a comment\n" + FRAUD.replace("tensorflow:2.12", "tensorflow:2.16").replace("0.92", "0.9"))
        assert main(["plan", "b.yaml", "--against", "a.yaml"]) == 0
        told = capsys.readouterr().out
        assert "~ task build: image: tensorflow:2.12 -> tensorflow:2.16" in told
        assert "~ task gate: thresholds: + accuracy >= 0.9" in told
        assert main(["plan", "b.yaml", "--against", "a.yaml", "--format", "json"]) == 0
        differences = json.loads(capsys.readouterr().out)["differences"]
        assert "~ task build: image: tensorflow:2.12 -> tensorflow:2.16" in differences
        assert main(["plan", "b.yaml", "--format", "json"]) == 0
        document = json.loads(capsys.readouterr().out)
        gate = next(task for task in document["tasks"] if task["task_id"] == "gate")
        assert "evaluate" in gate["needs"]
        assert gate["arguments"]["run_id"].startswith("<train.")
        assert main(["plan", "a.yaml", "--against", "a.yaml"]) == 0
        assert capsys.readouterr().out == "no difference: both do the same\n"

    def test_shows_the_objects_of_the_model_server_and_how_they_differ(self, tmp_path: Path, capsys: Captured) -> None:
        path = FILES / "payments.yaml"
        assert main(["plan", str(path), "--manifests"]) == 0
        objects = {each["kind"]: each for each in yaml.safe_load_all(capsys.readouterr().out)}
        assert objects["Deployment"]["spec"]["replicas"] == 3
        edited = tmp_path / "payments.yaml"
        edited.write_text(path.read_text().replace("replicas: 3", "replicas: 4"))
        assert main(["plan", str(edited), "--against", str(path)]) == 0
        assert "~ Deployment payments spec.replicas: 3 -> 4" in capsys.readouterr().out

    def test_shows_what_differs_from_a_git_revision(self, capsys: Captured) -> None:
        local = FRAUD.replace("https://github.com/team/ml-fraud-v3", "../src").replace("    - onCommit: true\n", "")
        write("repo/src/train.py", "")
        write("repo/pipelines/a.yaml", local)
        write("repo/pipelines/defaults.yaml", "spec: {retries: {attempts: 1}}\n")
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        for call in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "one")):
            subprocess.run(["git", "-C", "repo", *call], check=True)
        write("repo/pipelines/defaults.yaml", "spec: {retries: {attempts: 4}}\n")
        assert main(["plan", "repo/pipelines/a.yaml", "--against", "HEAD"]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["~ retries and limits: attempts: 1 -> 4"]
        assert main(["plan", "repo/pipelines/a.yaml", "--against", "v9"]) == 2
        assert "got none of them: there is no such revision" in capsys.readouterr().err

    def test_a_revision_that_is_not_valid_is_named_with_its_problems(self, capsys: Captured) -> None:
        write("repo/a.yaml", BROKEN)
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        for call in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "one")):
            subprocess.run(["git", "-C", "repo", *call], check=True)
        write("repo/a.yaml", FRAUD)
        assert main(["plan", "repo/a.yaml", "--against", "HEAD"]) == 1
        assert "HEAD:a.yaml:16:19: spec.stages[1]" in capsys.readouterr().err

    def test_a_wrong_file_gives_its_problems(self, capsys: Captured) -> None:
        write("p/a.yaml", BROKEN)
        assert main(["plan", "p/a.yaml"]) == 1
        assert "p/a.yaml:16:19: spec.stages[1]" in capsys.readouterr().err


class TestDefaults:
    """``plan``, ``graph`` and ``validate`` of one file use the defaults that its Dag uses."""

    @pytest.fixture(autouse=True)
    def files(self) -> None:
        write("repo/pipelines/defaults.yaml", "spec: {retries: {attempts: 7}}\n")
        write("repo/pipelines/sub/deep/a.yaml", FRAUD)

    def test_are_found_above_the_file_and_named(self, here: Path, capsys: Captured) -> None:
        file = "repo/pipelines/sub/deep/a.yaml"
        assert main(["plan", file]) == 0
        told = capsys.readouterr().out
        assert "  defaults     repo/pipelines/defaults.yaml\n" in told
        (of_dag,) = load_pipeline_folder(here / "repo/pipelines")
        assert isinstance(of_dag, LoadedPipeline)
        assert plan_pipeline(of_dag) == plan_of(file, "dev", None).plan
        assert f"retries      {of_dag.pipeline.spec.retries.attempts}," in told
        assert main(["graph", file]) == 0
        assert capsys.readouterr().err == "note: merged with repo/pipelines/defaults.yaml\n"
        assert main(["validate", file]) == 0
        last = capsys.readouterr().out
        assert last == "1 file, all valid (checked for: dev; with repo/pipelines/defaults.yaml)\n"

    def test_in_a_nearer_folder_win_and_root_ends_the_search(self, capsys: Captured) -> None:
        assert main(["plan", "repo/pipelines/sub/deep/a.yaml", "--root", "repo/pipelines/sub"]) == 0
        assert "retries      2," in capsys.readouterr().out
        write("repo/pipelines/sub/defaults.yaml", "spec: {retries: {attempts: 5}}\n")
        assert main(["plan", "repo/pipelines/sub/deep/a.yaml"]) == 0
        assert "retries      5," in capsys.readouterr().out

    def test_above_the_git_repository_do_not_count(self, capsys: Captured) -> None:
        Path("repo/pipelines/sub/.git").mkdir()
        assert main(["plan", "repo/pipelines/sub/deep/a.yaml"]) == 0
        assert "retries      2," in capsys.readouterr().out

    def test_problems_in_them_have_their_own_place(self, capsys: Captured) -> None:
        write("repo/pipelines/defaults.yaml", "spec: {retries: {attempts: many}}\n")
        for command in ("plan", "validate"):
            assert main([command, "repo/pipelines/sub/deep/a.yaml"]) == 1
            assert "repo/pipelines/defaults.yaml:1:28: spec.retries.attempts" in "".join(capsys.readouterr())

    @pytest.mark.parametrize("call", [["validate"], ["render", "--dags-folder", "dags"]], ids=lambda call: call[0])
    def test_above_a_named_folder_are_not_used_and_a_note_says_so(self, call: list[str], capsys: Captured) -> None:
        assert main([*call, "repo/pipelines/sub"]) == 0
        assert "note: repo/pipelines/defaults.yaml is above" in capsys.readouterr().err
        assert main([*call[:1], "repo/pipelines", *call[1:2], *(["other"] if call[1:] else [])]) == 0
        assert capsys.readouterr().err == ""


class TestGraph:
    @pytest.mark.parametrize(("form", "part"), [("text", "└─ build"), ("mermaid", "flowchart TD"), ("svg", "<svg ")])
    def test_draws_every_task(self, form: str, part: str, capsys: Captured) -> None:
        assert main(["graph", str(FILES / "churn.yaml"), "--format", form]) == 0
        picture = capsys.readouterr().out
        assert part in picture
        assert all(task in picture for task in ("begin", "train_small", "evaluate_deep", "select", "promote"))

    def test_says_in_json_what_each_task_needs(self, capsys: Captured) -> None:
        assert main(["graph", str(FILES / "churn.yaml"), "--json"]) == 0
        needs = {task["task_id"]: task["needs"] for task in json.loads(capsys.readouterr().out)["tasks"]}
        assert needs["begin"] == []
        assert {each for names in needs.values() for each in names} <= set(needs)
        assert "promote" in needs

    def test_writes_a_file(self) -> None:
        assert main(["graph", str(FILES / "churn.yaml"), "--format", "svg", "--output", "churn.svg"]) == 0
        assert xml.dom.minidom.parse("churn.svg").documentElement.tagName == "svg"


class TestRender:
    def test_writes_one_stub_per_pipeline_and_keeps_them_in_step(self, capsys: Captured) -> None:
        write("p/a.yaml", FRAUD)
        assert main(["render", "p", "--dags-folder", "dags", "--check"]) == 1
        assert not Path("dags").exists()
        assert main(["render", "p", "--dags-folder", "dags"]) == 0
        assert main(["render", "p", "--dags-folder", "dags", "--check"]) == 0
        write("p/b.yaml", BROKEN)
        assert main(["render", "p", "--dags-folder", "dags"]) == 1
        assert "p/b.yaml:16:19" in capsys.readouterr().err
        assert [path.name for path in Path("dags").iterdir()] == ["mcp_fraud-detection-pipeline.py"]

    def test_spreads_pipelines_over_as_many_files_as_asked_for(self) -> None:
        for number in range(5):
            write(f"p/{number}.yaml", FRAUD.replace("fraud-detection-pipeline", f"fraud-{number}"))
        assert main(["render", "p", "--dags-folder", "dags", "--groups", "2"]) == 0
        assert main(["render", "p", "--dags-folder", "dags", "--groups", "2", "--check"]) == 0
        assert main(["render", "p", "--dags-folder", "dags", "--check"]) == 1
        assert len(list(Path("dags").iterdir())) == 2

    def test_says_in_json_what_was_written_and_what_is_wrong(self, capsys: Captured) -> None:
        write("p/a.yaml", FRAUD)
        write("p/b.yaml", BROKEN)
        assert main(["render", "p", "--dags-folder", "dags", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert [Path(path).name for path in found["written"]] == ["mcp_fraud-detection-pipeline.py"]
        assert (found["check"], found["removed"], found["up_to_date"]) == (False, [], 0)
        assert {problem["file"] for problem in found["problems"]} == {"p/b.yaml"}

    def test_the_last_deleted_pipeline_loses_its_stub_and_a_wrong_folder_is_refused(self, capsys: Captured) -> None:
        write("p/a.yaml", FRAUD)
        Path("q").mkdir()
        assert main(["render", "p", "--dags-folder", "dags"]) == 0
        assert main(["render", "q", "--dags-folder", "dags"]) == 2
        assert "there is no ModelPipeline in q" in capsys.readouterr().err
        Path("p/a.yaml").unlink()
        assert main(["render", "p", "--dags-folder", "dags"]) == 0
        assert list(Path("dags").iterdir()) == []

    def test_two_projects_of_init_share_a_dags_folder(self) -> None:
        for name in ("a", "b"):
            assert main(["init", name]) == 0
            assert main(["render", name, "--dags-folder", "dags"]) == 0
        assert sorted(path.name for path in Path("dags").iterdir()) == ["mcp_a.py", "mcp_b.py"]

    def test_a_file_that_is_no_pipeline_any_more_is_an_error(self, capsys: Captured) -> None:
        write("p/a.yaml", FRAUD)
        assert main(["render", "p", "--dags-folder", "dags"]) == 0
        write("p/a.yaml", "- a\n")
        assert main(["render", "p", "--dags-folder", "dags"]) == 1
        assert (
            "p/a.yaml:1:1: the file must be a mapping of apiVersion, kind, metadata, spec; got a list"
            in capsys.readouterr().err
        )
        assert len(list(Path("dags").iterdir())) == 1


class TestSchema:
    def test_is_a_json_schema_of_draft_2020_12(self, capsys: Captured) -> None:
        assert main(["schema"]) == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))
        assert main(["schema", "--output", "s.json"]) == 0
        assert json.loads(Path("s.json").read_text(encoding="utf-8")) == schema()

    @pytest.mark.parametrize("file", ["fraud_detection.yaml", "churn.yaml"])
    def test_takes_what_the_models_take(self, file: str) -> None:
        assert list(jsonschema.Draft202012Validator(schema()).iter_errors(self.read(file))) == []

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("trainingScript", "trainingscript"),
            ("onCommit: true", "onCommit: no commit"),
            ("accuracy: 0.92", "accuracy: x"),
            ('"0 2 * * *"', '"0 2 * *"'),
            ('"0 2 * * *"', '"every night"'),
            ('cron: "0 2 * * *"', 'cron: "0 2 * * *"\n      onCommit: true'),
            ("onCommit: true", "onCommit: {poll: 5 minutes}"),
            ("  triggers:", "  runtime: docker\n  triggers:"),
            ("  triggers:", "  resources: {memory: 4 GB}\n  triggers:"),
            ("  triggers:", "  config: {file: conf.yaml}\n  triggers:"),
            ("  triggers:", "  data: {root: /d, train: a.csv, uri: /d/b.csv}\n  triggers:"),
        ],
    )
    def test_refuses_what_the_models_refuse(self, old: str, new: str) -> None:
        assert old in FRAUD
        values = yaml.load(FRAUD.replace(old, new), Loader=yaml.BaseLoader)
        with pytest.raises(ValueError, match="validation error"):
            ModelPipeline.model_validate(values)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values, schema())

    def test_teaches_no_empty_values_and_no_names_made_from_names(self) -> None:
        text = json.dumps(schema())
        assert '"default": null' not in text
        assert '"title": "' not in text
        definitions = schema()["$defs"]
        assert "default" not in definitions["PipelineSpec"]["properties"]["config"]
        assert {"latencyMs", "accuracy"} <= definitions["EvaluateStage"]["properties"]["metricsThreshold"][
            "properties"
        ].keys()
        assert "title" in definitions["ManualParam"]["properties"]

    def read(self, file: str) -> Any:
        from airflow_mcp.core.pipeline.file.document import plain, read_document

        node = read_document((FILES / file).read_bytes(), file, [])
        assert node is not None
        return plain(node)


class TestInit:
    def test_makes_a_project_that_is_valid(self, here: Path, capsys: Captured) -> None:
        assert main(["init", "My Model"]) == 0
        assert main(["validate", "My Model"]) == 0
        assert main(["plan", "My Model/pipeline.yaml"]) == 0
        assert "my-model (dev), from pipeline.yaml" in capsys.readouterr().out

    def test_says_in_json_what_was_written(self, capsys: Captured) -> None:
        assert main(["init", "m", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["name"] == "m"
        assert sorted(map(Path, found["written"])) == sorted(Path("m").absolute().iterdir())

    def test_overwrites_nothing(self, capsys: Captured) -> None:
        write("m/train.py", "mine")
        assert main(["init", "m"]) == 2
        assert "already contains train.py" in capsys.readouterr().err
        assert sorted(path.name for path in Path("m").iterdir()) == ["train.py"]

    def test_makes_a_training_that_its_own_test_is_content_with(self, here: Path) -> None:
        assert main(["init", "m"]) == 0
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "test_train.py"],
            cwd=here / "m",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


WITHOUT_AIRFLOW = """
import importlib.abc, json, socket, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"airflow", "mlflow", "pandas", "numpy", "kubernetes", "dvc", "evidently"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
def refuse(*arguments, **named):
    raise OSError("the network is blocked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from airflow_mcp.cli import main
sys.exit(main(json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize(
    "call",
    [
        ["validate", str(FILES)],
        ["plan", str(FILES / "churn.yaml")],
        ["graph", str(FILES / "churn.yaml")],
        ["render", str(FILES), "--dags-folder", "dags"],
        ["schema"],
        ["init", "m"],
    ],
    ids=lambda call: call[0],
)
def test_no_command_on_files_needs_airflow_or_a_network(call: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AIRFLOW, json.dumps(call)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
