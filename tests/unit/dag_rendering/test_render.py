"""Plans as Dags: what Airflow gets, and what it never gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

from airflow_mcp.core.pipeline.plan.entities import PipelinePlan, Reference, Template
from airflow_mcp.core.pipeline.plan.picture import direct_needs
from airflow_mcp.dag_rendering.loader import load_pipeline_file, load_pipeline_folder
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import OPERATORS, documentation, render, would_change
from airflow_mcp.dag_rendering.stubs import write_stubs
from airflow_mcp.exceptions import PipelineSpecError
from airflow_mcp.operators.replay import ReplayModelOperator
from tests.support.paths import ROOT

PIPELINES = ROOT / "tests/pipelines"
FILES = ("fraud_detection.yaml", "churn.yaml", "payments.yaml")
SMALL = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {name: small}
spec:
  sourceCode: https://example.com/team/small
  trainingScript: train.py
  stages: [{name: gate, thresholds: [accuracy >= 0.9]}]
"""


def plan_of(name: str, environment: str = "prod") -> PipelinePlan:
    return plan_pipeline(load_pipeline_file(PIPELINES / name, environment))


def rendered(text: str, folder: Path) -> DAG:
    path = folder / "small.yaml"
    path.write_text(text)
    return render(plan_pipeline(load_pipeline_file(path)))


def stored(dag: DAG) -> dict[str, Any]:
    dag.fileloc = dag.relative_fileloc = "dag.py"
    data = DagSerialization.to_dict(dag)
    DagSerialization.from_dict(data)
    return dict(data["dag"])


# --- the Dag that Airflow gets ---------------------------------------------------------------------------------------


def test_the_file_of_the_issue_becomes_a_dag_that_airflow_loads_from_its_stub(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/fraud.yaml").write_text((PIPELINES / "fraud_detection.yaml").read_text())
    write_stubs(load_pipeline_folder(tmp_path / "pipelines"), tmp_path / "pipelines", tmp_path)
    bag = BundleDagBag(dag_folder=tmp_path, bundle_path=tmp_path, bundle_name="test")
    assert bag.import_errors == {}
    dag = bag.dags["fraud-detection-pipeline"]
    tasks = stored(dag)["tasks"]
    assert [task["__var"]["task_id"] for task in tasks] == [
        *("begin", "build", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome")
    ]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_tasks_and_edges_are_those_of_the_plan(file: str, environment: str) -> None:
    plan = plan_of(file, environment)
    dag = render(plan)
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        task.task_id: set(task.needs) for task in plan.tasks
    }
    assert {task.task_id: type(task) for task in dag.tasks} == {
        task.task_id: OPERATORS[task.kind] for task in plan.tasks
    }
    assert set(direct_needs(plan)) == set(dag.task_ids)
    assert len(stored(dag)["tasks"]) == len(plan.tasks)


def test_a_run_is_alone_has_limits_and_tries_again_later_each_time() -> None:
    dag = render(plan_of("churn.yaml"))
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert dag.dagrun_timeout == timedelta(days=1)
    train: Any = dag.get_task("train_small")
    assert (train.retries, train.retry_delay, train.max_retry_delay) == (3, timedelta(seconds=30), timedelta(minutes=5))
    assert train.retry_exponential_backoff == 2
    assert train.workload_timeout == timedelta(hours=4)
    assert dag.owner == "growth"
    assert dag.tags == {"airflow-mcp", "prod", "growth", "weekly"}


def test_every_task_but_the_first_and_the_last_asks_whether_the_file_is_still_the_one_that_the_run_began_with() -> None:
    dag = render(plan_of("churn.yaml"))
    asks = {task.task_id: getattr(task, "_pre_execute_hook", None) is not None for task in dag.tasks}
    assert asks == {task_id: task_id not in ("begin", "outcome") for task_id in dag.task_ids}


def test_the_form_has_the_fields_of_every_pipeline_and_those_of_the_file() -> None:
    dag = render(plan_of("churn.yaml"))
    fields = {name: dag.params.get_param(name) for name in dag.params}
    assert list(fields) == ["data_version", "commit", "start_at", "from_run", "dry_run", "force", "reason", "lr"]
    assert fields["start_at"].schema["enum"][:3] == ["build", "lint", "train"]
    assert fields["lr"].schema == {"type": "number", "minimum": 0.0, "title": "lr"}
    assert fields["lr"].description == "Replaces training.lr in the config."
    assert fields["lr"].value == 0.001
    assert all(field.schema["title"] and field.description for field in fields.values())
    dag.params.validate()


def test_who_wants_to_hear_of_failures_and_rejections_does() -> None:
    dag = render(plan_of("churn.yaml"))
    (notifier,) = dag.on_failure_callback  # type: ignore[misc]
    assert (notifier.webhook_conn_id, notifier.event, notifier.format) == ("team_chat", "failure", "slack")
    gate: Any = dag.get_task("gate")
    assert [each.event for each in gate.on_failure_callback] == ["gateRejected"]
    assert not dag.on_success_callback
    assert not render(plan_of("fraud_detection.yaml")).on_failure_callback


def test_steps_run_in_the_folder_of_code_that_is_not_in_git(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("")
    text = SMALL.replace("https://example.com/team/small", "code").replace("[{", "[{name: own, command: [pwd]}, {", 1)
    own: Any = rendered(text, tmp_path).get_task("own")
    assert (own.code, own.folder, own.command) == (None, str(tmp_path / "code"), ["pwd"])


# --- when it runs -----------------------------------------------------------------------------------------------------


def test_logged_requests_are_replayed_before_the_gate_that_judges_them(tmp_path: Path) -> None:
    data = "  data: {root: /data, train: train.csv, evaluation: evaluation.csv, target: y, modelType: regressor}\n"
    asked = (
        '  replay: {requests: "/logs/{{ x }}.jsonl", maxFlipRate: 0.02, relativeTolerance: 0.05, segments: [region]}\n'
    )
    dag = rendered(SMALL + data + asked, tmp_path)
    replay, gate = dag.task_dict["replay"], dag.task_dict["gate"]
    assert isinstance(replay, ReplayModelOperator)
    assert (replay.relative_tolerance, replay.segments) == (0.05, ["region"])
    assert "replay" in gate.upstream_task_ids
    assert gate.replay["max_flip_rate"] == 0.02
    stored(dag)


def test_a_no_to_an_undecided_gate_skips_everything_behind_it_but_the_outcome(tmp_path: Path) -> None:
    asking = SMALL.replace("0.9]}", "0.9], escalation: ask}")
    dag = rendered(asking, tmp_path)
    sent: dict[str, Any] = {}
    ti = SimpleNamespace(map_index=-1, xcom_push=lambda key, value: sent.update({key: value}))
    answer = {"chosen_options": ["Reject"], "params_input": {}, "responded_at": datetime.now(UTC)}
    ask = cast("ApprovalOperator", dag.get_task("approve"))
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        ask.execute_complete(cast("Any", {"task": ask, "ti": ti}), {**answer, "responded_by_user": {"id": "7"}})
    assert set(skipped.value.tasks) == {"record_approval", "register", "load_check", "promote"}


def test_a_time_table_waits_for_its_next_time_and_makes_up_for_nothing(tmp_path: Path) -> None:
    dag = rendered(SMALL + '  triggers: [{cron: "0 2 * * *", timezone: Europe/Berlin}]\n', tmp_path)
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert read.start_date is None
    info = read.timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(None, None, catchup=read.catchup)
    )
    assert info is not None
    assert info.run_after > datetime.now(UTC)
    assert info.run_after.in_timezone("Europe/Berlin").hour == 2


def test_several_time_tables_are_one(tmp_path: Path) -> None:
    dag = rendered(SMALL + '  triggers: [{cron: "0 2 * * *"}, {cron: "0 14 * * *"}]\n', tmp_path)
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert read.timetable.summary == "0 2 * * *, 0 14 * * *"


def test_events_start_the_dag_with_and_without_a_time_table(tmp_path: Path) -> None:
    only = stored(rendered(SMALL + "  triggers: [{onCommit: true}]\n", tmp_path))["timetable"]
    both = stored(rendered(SMALL + '  triggers: [{onCommit: true}, {cron: "0 2 * * *"}]\n', tmp_path))["timetable"]
    assert only["__type"].endswith("AssetTriggeredTimetable")
    assert both["__type"].endswith("AssetOrTimeSchedule")
    for timetable in (only, both):
        assert "small.commit" in json.dumps(timetable)
        assert "airflow_mcp.triggers.git.GitCommitTrigger" in json.dumps(timetable)


def test_without_triggers_only_a_person_starts_it(tmp_path: Path) -> None:
    dag = rendered(SMALL, tmp_path)
    assert not dag.timetable.can_be_scheduled


# --- text of the file is data  ---------------------------------------------------------------------------

EVIL = "{{ 1 + 1 }} {% raw %} {{ conn.x.password }} {#"
HOSTILE = f"""\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: hostile, description: "{EVIL}", owner: "{EVIL}", tags: ["{EVIL}"]}}
spec:
  sourceCode: {{repoUrl: https://example.com/team/small, revision: "{EVIL}", path: "{EVIL}", gitConnId: "{EVIL}"}}
  trainingScript: "{EVIL}.py"
  arguments: ["{EVIL}"]
  config: {{a: "{EVIL}", deep: {{list: ["{EVIL}", {{more: "{EVIL}"}}]}}, lines: "x\\r\\ny\\n"}}
  data: {{root: "/{EVIL}", version: "{EVIL}", train: "{EVIL}", evaluation: "{EVIL}", target: "{EVIL}"}}
  model: {{name: "{EVIL}", experimentName: "{EVIL}"}}
  env: {{A: "{EVIL}", B: "text\\n"}}
  kubernetes: {{namespace: "{EVIL}"}}
  triggers:
    - manual: {{params: {{lr: {{type: string, default: "{EVIL}", title: "{EVIL}", description: "{EVIL}", sets: a}}}}}}
  stages:
    - {{name: build, image: "team/own:1", command: ["{EVIL}"]}}
    - {{name: own, image: "team/own:1", command: ["{EVIL}"], env: {{C: "{EVIL}"}}}}
    - {{name: train, checkpoints: "{EVIL}"}}
    - {{name: evaluate, slices: ["{EVIL}"], image: "team/own:1"}}
    - {{name: gate, thresholds: ["accuracy >= 0.9"]}}
"""


class PulledValues:
    """Stands for the task instance: every pulled value is an evil text too."""

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", **_: Any) -> Any:
        if key == "reuse":
            return dict.fromkeys(["build", "own", "train", "evaluate", "gate", "register", "promote"])
        return EVIL


def plain_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from plain_texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from plain_texts(each)


def same(planned: Any, got: Any) -> bool:
    if isinstance(planned, Reference):
        return bool(got == EVIL)
    if isinstance(planned, Template):
        return isinstance(got, str) and "{{" not in got.replace(EVIL, "")
    if isinstance(planned, Mapping):
        return planned.keys() == got.keys() and all(same(planned[name], got[name]) for name in planned)
    if isinstance(planned, list | tuple):
        return len(planned) == len(got) and all(map(same, planned, got))
    return bool(planned == got)


def test_no_text_of_the_file_is_ever_rendered_as_a_template(tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE)
    plan = plan_pipeline(load_pipeline_file(path))
    dag = render(plan)
    stored(dag)
    compared = 0
    for planned in plan.tasks:
        task: Any = dag.get_task(planned.task_id)
        context = {
            "ti": PulledValues(),
            "params": dag.params.dump(),
            "dag": dag,
            "task": task,
            "expanded_ti_count": None,
        }
        task.render_template_fields(context)
        for name, value in planned.arguments.items():
            if name in task.template_fields:
                assert same(value, getattr(task, name)), (planned.task_id, name)
            compared += sum(EVIL in text for text in plain_texts(value))
    assert compared > 40


def test_an_image_can_hold_no_template(tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE.replace("team/own:1", EVIL))
    with pytest.raises(PipelineSpecError) as caught:
        load_pipeline_file(path)
    assert [problem.field for problem in caught.value.problems] == [
        f"spec.stages[{number}].image" for number in (0, 1, 3)
    ]


@pytest.mark.parametrize("text", ["{{ x", "{% raw %}", "{# no", "ends with a line\n", "a\r\nb"])
def test_text_that_a_template_engine_would_change_is_known(text: str) -> None:
    assert would_change(text)


@pytest.mark.parametrize("text", ["", "plain", "a { b } %", "two\nlines", "$" + "{X}"])
def test_text_that_stays_the_same_is_left_alone(text: str) -> None:
    assert not would_change(text)


# --- its page ---------------------------------------------------------------------------------------------------------


def test_the_page_of_the_dag_shows_description_and_source_whatever_the_source_holds(tmp_path: Path) -> None:
    text = SMALL.replace("{name: small}", "{name: small, description: What it is for.}") + "# ``` and ````\n"
    page = rendered(text, tmp_path).doc_md
    assert page is not None
    assert page.startswith("What it is for.\n\nRendered for `dev` from `small.yaml`.")
    fence = "`````"
    assert page.count(fence) == 2
    assert page.split(f"{fence}yaml\n")[1].split(f"\n{fence}")[0] == text.rstrip()


def test_the_page_says_where_the_file_is() -> None:
    assert "from `churn.yaml`" in documentation(plan_of("churn.yaml"))


# --- the same every time ----------------------------------------------------------------------------------------------

_PRINT = """
import json, sys
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from airflow.serialization.serialized_objects import DagSerialization
for path in sys.argv[1:]:
    dag = render(plan_pipeline(load_pipeline_file(path, "prod")))
    dag.fileloc = dag.relative_fileloc = "dag.py"
    print("dag:" + json.dumps(DagSerialization.to_dict(dag), sort_keys=True))
"""


def test_the_same_file_gives_the_same_dag_in_every_process() -> None:
    outputs = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _PRINT, *(str(PIPELINES / name) for name in FILES)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            timeout=300,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        outputs.append([line for line in done.stdout.splitlines() if line.startswith("dag:")])
    assert len(outputs[0]) == len(FILES)
    assert outputs[0] == outputs[1]


def test_the_same_file_gives_the_same_dag_twice() -> None:
    assert stored(render(plan_of("churn.yaml"))) == stored(render(plan_of("churn.yaml")))


def test_a_comment_changes_the_page_and_not_what_a_run_is_pinned_to(tmp_path: Path) -> None:
    before, after = rendered(SMALL, tmp_path), rendered(f"# words\n{SMALL}", tmp_path)
    first, second = before.get_task("begin"), after.get_task("begin")
    assert getattr(first, "spec_hash", None) == getattr(second, "spec_hash", "")
    assert before.doc_md != after.doc_md


def test_a_broken_file_has_no_dag(tmp_path: Path) -> None:
    with pytest.raises(PipelineSpecError, match=r"small.yaml:6:3: spec.trainingScrpt: is not a known name"):
        rendered(SMALL.replace("trainingScript", "trainingScrpt"), tmp_path)
