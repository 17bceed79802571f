"""What a pipeline file becomes: tasks, edges, arguments, and what is filled in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp.core.pipeline.plan.entities import PipelinePlan, Reference, Template
from airflow_mcp.core.pipeline.plan.picture import direct_needs
from airflow_mcp.core.pipeline.plan.rules import FILL_IN_RULES
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.exceptions import PipelineSpecError
from tests.support.paths import PIPELINES

Plan = Callable[..., PipelinePlan]

SMALL = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {name: small}
spec:
  sourceCode: https://example.com/team/small
  trainingScript: train.py
"""
GATE = "  stages: [{name: gate, thresholds: [accuracy >= 0.9]}]\n"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plan a pipeline from its text."""

    def of(text: str, environment: str = "dev") -> PipelinePlan:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return plan_pipeline(load_pipeline_file(path, environment))

    return of


def of_file(name: str, environment: str = "dev") -> PipelinePlan:
    return plan_pipeline(load_pipeline_file(PIPELINES / name, environment))


def test_stages_that_the_issue_s_file_leaves_out_are_filled_in_with_the_rule_as_their_origin() -> None:
    found = of_file("fraud_detection.yaml")
    assert {task.task_id: task.origin for task in found.tasks} == {
        "begin": f"filled in: {FILL_IN_RULES['begin']}",
        "build": "fraud_detection.yaml:12",
        "train": f"filled in: {FILL_IN_RULES['train']}",
        "evaluate": "fraud_detection.yaml:14",
        "gate": f"filled in: {FILL_IN_RULES['gate']}",
        "register": f"filled in: {FILL_IN_RULES['register']}",
        "load_check": f"filled in: {FILL_IN_RULES['load_check']}",
        "promote": f"filled in: {FILL_IN_RULES['promote']}",
        "outcome": f"filled in: {FILL_IN_RULES['outcome']}",
    }
    assert found.task("gate").arguments["thresholds"] == ["accuracy >= 0.92", "latency_ms <= 150"]
    assert found.task("train").arguments["image"] == "tensorflow:2.12"
    assert "image" not in found.task("evaluate").arguments
    assert [source.kind for source in found.schedule.events] == ["commit"]
    assert found.schedule.crons == (("0 2 * * *", "UTC"),)
    assert found.schedule.catchup is False


def test_every_rule_is_used_and_none_is_missing() -> None:
    plans = [of_file("fraud_detection.yaml"), of_file("churn.yaml")]
    origins = {task.origin for found in plans for task in found.tasks if task.is_filled_in}
    assert {f"filled in: {rule}" for rule in FILL_IN_RULES.values()} >= origins
    assert len(origins) >= 6


def test_every_task_comes_after_what_it_needs_and_needs_those_whose_results_it_takes() -> None:
    for found in (of_file("fraud_detection.yaml"), of_file("churn.yaml", "prod")):
        seen: set[str] = set()
        for task in found.tasks:
            assert set(task.needs) <= seen
            assert bool(task.needs) == (task.task_id != "begin")
            seen.add(task.task_id)


def test_candidates_are_trained_and_evaluated_side_by_side_and_the_picked_one_goes_on() -> None:
    found = of_file("churn.yaml")
    needs = direct_needs(found)
    assert needs["select"] == ("evaluate_small", "evaluate_deep")
    assert needs["evaluate_deep"] == ("train_deep",)
    assert needs["gate"] == ("select",)
    assert found.task("train_deep").arguments["config"] == {"training": {"lr": 0.001, "depth": 12}, "seed": 7}
    assert found.task("train_small").arguments["config"]["training"]["depth"] == 6
    assert found.task("train_small").arguments["on_unchanged"] == "train"
    assert found.task("gate").arguments["run_id"] == Reference("select", "run_id")
    assert found.task("gate").arguments["evidence_identity"] == Reference("select", "evidence_identity")
    assert found.task("register").arguments["model_uri"] == Reference("select", "model_uri")
    assert found.task("select").arguments["direction"] == "maximize"


def test_a_step_waits_for_what_it_needs_and_the_stages_that_need_it_wait_for_the_step() -> None:
    found = of_file("churn.yaml")
    assert direct_needs(found)["lint"] == ("build",)
    assert "lint" in found.task("train_small").needs
    assert found.stages == ("build", "lint", "train", "evaluate", "gate", "register", "promote")


def test_a_step_that_needs_nothing_follows_begin(plan: Plan) -> None:
    found = plan(SMALL + "  stages:\n    - {name: gate, thresholds: [a >= 1]}\n    - {name: tell, command: [x]}\n")
    assert found.task("tell").needs == ("begin",)
    assert found.stages[-1] == "tell"


def test_a_step_behind_candidates_waits_for_all_of_them(plan: Plan) -> None:
    text = (
        f"{SMALL}  candidates: [{{name: a}}, {{name: b}}]\n  select: {{metric: accuracy}}\n  stages:\n"
        "    - {name: gate, thresholds: [accuracy >= 0.9]}\n"
        "    - {name: tell, command: [x], needs: [train, evaluate]}\n"
    )
    assert set(plan(text).task("tell").needs) == {"train_a", "train_b", "select", "begin"}


@pytest.mark.parametrize(
    ("last", "tasks"),
    [
        ("train", ["begin", "train"]),
        ("evaluate", ["begin", "train", "evaluate"]),
        ("gate", ["begin", "train", "evaluate", "gate", "outcome"]),
        ("register", ["begin", "train", "evaluate", "gate", "register", "load_check", "outcome"]),
    ],
)
def test_a_pipeline_ends_where_it_is_told_to(plan: Plan, last: str, tasks: list[str]) -> None:
    gate = GATE if last in ("gate", "register") else ""
    found = plan(f"{SMALL}  stopAfter: {last}\n{gate}")
    assert [task.task_id for task in found.tasks] == tasks
    assert next(param.enum for param in found.params if param.name == "start_at") == found.stages


def test_without_data_the_evaluation_is_self_reported_and_nothing_is_pinned(plan: Plan) -> None:
    found = plan(SMALL + GATE)
    assert "pin_data" not in [task.task_id for task in found.tasks]
    assert not {"dataset", "target", "model_type"} & found.task("evaluate").arguments.keys()
    assert "dataset" not in found.task("train").arguments


def test_data_is_pinned_once_and_both_training_and_evaluation_take_the_pin() -> None:
    found = of_file("churn.yaml")
    assert found.task("pin_data").arguments == {
        "version": Reference("begin", "data_version"),
        "root": "/data/churn",
        "files": {"train": "train.csv", "evaluation": "evaluation.csv"},
    }
    assert found.task("train_deep").arguments["dataset"] == Reference("pin_data", "train")
    assert found.task("evaluate_deep").arguments["dataset"] == Reference("pin_data", "evaluation")
    assert found.task("evaluate_deep").arguments["positive_label"] == "yes"


@pytest.mark.parametrize(
    ("data", "pinned", "watched"),
    [
        (
            "{uri: s3://b/a.csv, evaluationUri: s3://b/b.csv, version: '3', target: y}",
            {"uris": {"train": "s3://b/a.csv", "evaluation": "s3://b/b.csv"}},
            {"uri": "s3://b/a.csv"},
        ),
        (
            "{dvc: {path: a.csv, revision: main, remote: store}, target: y}",
            {
                "dvc": {"repo_url": "https://example.com/team/small", "revision": "main", "remote": "store"},
                "files": {"train": "a.csv"},
            },
            {"dvc": {"repo_url": "https://example.com/team/small", "path": "a.csv", "revision": "main"}},
        ),
        (
            "{dvc: {path: a.csv, evaluationPath: b.csv, repoUrl: https://example.com/data, gitConnId: c}, target: y}",
            {
                "dvc": {"repo_url": "https://example.com/data", "git_conn_id": "c"},
                "files": {"train": "a.csv", "evaluation": "b.csv"},
            },
            {"dvc": {"repo_url": "https://example.com/data", "path": "a.csv", "git_conn_id": "c"}},
        ),
        (
            "{lfs: {path: a.csv, evaluationPath: b.csv, revision: v1, verify: false}, target: y}",
            {
                "lfs": {"repo_url": "https://example.com/team/small", "revision": "v1", "verify": False},
                "files": {"train": "a.csv", "evaluation": "b.csv"},
            },
            {"lfs": {"repo_url": "https://example.com/team/small", "path": "a.csv", "revision": "v1"}},
        ),
    ],
)
def test_data_is_pinned_and_watched_where_it_is(
    plan: Plan, data: str, pinned: dict[str, object], watched: dict[str, object]
) -> None:
    found = plan(f"{SMALL}{GATE}  data: {data}\n  triggers: [{{onDataChange: true}}]\n")
    assert found.task("pin_data").arguments == {"version": Reference("begin", "data_version"), **pinned}
    assert found.schedule.events[0].arguments == {**watched, "poll_seconds": 60}


def test_code_in_git_is_taken_at_the_commit_that_the_run_has_pinned() -> None:
    found = of_file("churn.yaml", "prod")
    assert found.task("begin").arguments["code"] == {
        "repo_url": "https://github.com/team/churn",
        "tags": "v*",
        "path": "training",
        "git_conn_id": "git_reader",
    }
    assert found.task("begin").arguments["require_release_tag"] == "v*"
    assert "require_release_tag" not in of_file("churn.yaml").task("begin").arguments
    for name in ("build", "lint", "train_small"):
        assert found.task(name).arguments["code"]["revision"] == Reference("begin", "commit")
    assert found.task("train_small").arguments["script"] == "train.py"


def test_code_in_a_folder_is_an_absolute_path_and_has_no_commit(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("")
    stages = GATE.replace("[{", "[{name: build}, {name: own, command: [make]}, {", 1)
    found = plan(SMALL.replace("https://example.com/team/small", "code") + stages)
    assert found.task("own").arguments["command"] == ["make"]
    for name in ("own", "build"):
        assert found.task(name).arguments["folder"] == str(tmp_path / "code")
    assert found.task("train").arguments["script"] == str(tmp_path / "code/train.py")
    assert "code" not in found.task("train").arguments
    assert found.task("begin").arguments["code"] is None


def test_secrets_go_to_the_steps_that_they_are_named_for(plan: Plan) -> None:
    own = "{name: own, command: [make], secretEnv: {KEY: lake.extra.key, USER: lake.login}}"
    everywhere = "  secretEnv: {USER: warehouse.login}\n"
    found = plan(SMALL + everywhere + GATE.replace("[{", f"[{{name: train, secretEnv: {{A: a.uri}}}}, {own}, {{", 1))
    given = {
        task.task_id: task.arguments["connection_env"] for task in found.tasks if "connection_env" in task.arguments
    }
    assert given == {
        "train": {"USER": "warehouse.login", "A": "a.uri"},
        "evaluate": {"USER": "warehouse.login"},
        "load_check": {"USER": "warehouse.login"},
        "own": {"USER": "lake.login", "KEY": "lake.extra.key"},
    }


def test_fields_of_the_form_replace_values_of_the_config() -> None:
    found = of_file("churn.yaml", "prod")
    rate = next(param for param in found.params if param.name == "lr")
    assert (rate.types, rate.default, rate.minimum, rate.sets) == (("number",), 0.001, 0, "training.lr")
    overrides = found.task("train_small").arguments["config_overrides"]
    assert overrides == {"training.lr": Template("{{ params['lr'] | tojson }}")}


def test_limits_resources_and_variables_reach_the_tasks() -> None:
    found = of_file("churn.yaml", "prod")
    train = found.task("train_small")
    assert train.timeout == 4 * 3600
    assert train.arguments["workload_resources"] == {"cpu": "2", "memory": "4Gi"}
    assert found.task("train_deep").arguments["workload_resources"] == {"memory": "8Gi"}
    assert train.arguments["env"] == {"OMP_NUM_THREADS": "2"}
    assert train.arguments["kubernetes"] == {"namespace": "ml-prod", "priority_class": "batch"}
    assert (found.run_timeout, found.retries.attempts, found.retries.max_delay) == (86400, 3, 300)


def test_every_trigger_becomes_an_event_source_with_a_name_of_its_own() -> None:
    events = {source.name: source.arguments for source in of_file("churn.yaml", "prod").schedule.events}
    assert events == {
        "churn.commit": {
            "repo_url": "https://github.com/team/churn",
            "tags": "v*",
            "git_conn_id": "git_reader",
            "path": "training",
            "poll_seconds": 120,
        },
        "churn.data": {"root": "/data/churn", "poll_seconds": 60},
        "churn.drift": {"model_name": "churn", "experiment_name": "churn-drift", "poll_seconds": 60},
        "churn.model": {
            "models": ["features"],
            "events": ["alias_moved"],
            "aliases": ["champion"],
            "poll_seconds": 60,
        },
    }


def test_two_triggers_of_a_kind_are_told_apart(plan: Plan) -> None:
    triggers = "  triggers: [{onModelChange: {model: a}}, {onModelChange: {model: b}}]\n"
    names = [source.name for source in plan(SMALL + GATE + triggers).schedule.events]
    assert names == ["small.model", "small.model-2"]


def test_only_what_a_run_does_changes_the_hash(plan: Plan) -> None:
    before = plan(SMALL + GATE).spec_hash
    same = [
        "# a comment\n" + SMALL + GATE,
        SMALL.replace("{name: small}", "{name: small, description: words, owner: me, tags: [a]}") + GATE,
        SMALL + GATE + '  triggers: [{cron: "0 3 * * *"}]\n',
        SMALL + GATE + "  retries: {attempts: 5}\n  timeouts: {train: 1h}\n",
        SMALL + GATE + "  environments: {prod: {env: {A: b}}}\n",
    ]
    assert [plan(text).spec_hash == before for text in same] == [True] * len(same)
    other = [
        SMALL.replace("train.py", "other.py") + GATE,
        SMALL + GATE.replace("0.9", "0.8"),
        SMALL + GATE + "  config: {lr: 1}\n",
        SMALL + GATE + "  env: {A: b}\n",
        SMALL + GATE + "  triggers: [{manual: {params: {lr: {type: number, default: 1, sets: lr}}}}]\n"
        "  config: {lr: 1}\n",
    ]
    assert len({before, *(plan(text).spec_hash for text in other)}) == len(other) + 1
    assert plan(SMALL + GATE, "test").spec_hash != before


def test_the_config_counts_by_what_it_holds_wherever_it_is(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# words\nlr: 0.1\n")
    in_file = plan(SMALL + GATE + "  config: config.yaml\n")
    inline = plan(SMALL + GATE + "  config: {lr: 0.1}\n")
    assert in_file.spec_hash == inline.spec_hash
    assert in_file.task("train").arguments["config"] == {"lr": 0.1}
    (tmp_path / "config.yaml").write_text("lr: 0.2\n")
    assert plan(SMALL + GATE + "  config: config.yaml\n").spec_hash != in_file.spec_hash


def test_the_same_file_gives_the_same_plan() -> None:
    assert of_file("churn.yaml", "prod") == of_file("churn.yaml", "prod")


REPLAY = """\
  data: {root: /data, train: train.csv, evaluation: evaluation.csv, target: y}
  replay: {requests: /logs/*.parquet, maxFlipRate: 0.02, segments: [region], timestampColumn: at, last: 500}
"""


def test_logged_requests_are_replayed_between_the_evaluation_and_the_gate_that_judges_them(plan: Plan) -> None:
    found = plan(SMALL + REPLAY + GATE)
    replay, gate = found.task("replay"), found.task("gate")
    assert (replay.needs, "replay" in gate.needs) == (("evaluate", "train"), True)
    assert dict(replay.arguments) == {
        "run_id": Reference("train", "run_id"),
        "model_uri": Reference("train", "model_uri"),
        "model_name": "small",
        "model_type": "classifier",
        "requests": "/logs/*.parquet",
        "last": 500,
        "timestamp_column": "at",
        "segments": ["region"],
    }
    assert gate.arguments["replay"] == {
        "max_flip_rate": 0.02,
        "min_requests": 1000,
        "min_segment_requests": 100,
        "confidence": 0.95,
        "segments": ["region"],
    }
    assert replay.origin == "small.yaml:8"


def test_of_several_candidates_the_chosen_one_is_replayed(plan: Plan) -> None:
    several = "  candidates: [{name: a}, {name: b}]\n  select: {metric: f1}\n"
    replay = plan(SMALL + REPLAY + several + GATE).task("replay")
    assert replay.arguments["model_uri"] == Reference("select", "model_uri")
    assert replay.needs == ("select",)


def test_a_pipeline_without_a_replay_has_no_such_task_and_rule(plan: Plan) -> None:
    found = plan(SMALL + GATE)
    assert "replay" not in {task.task_id for task in found.tasks}
    assert "replay" not in found.task("gate").arguments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REPLAY.replace("segments:", "tolerance: 0.1, segments:"), "another class is always a flip"),
        (REPLAY.replace("target: y", "target: y, modelType: regressor"), "tolerance or relativeTolerance"),
        (REPLAY.partition("\n")[2], "a replay needs evaluation data"),
        (REPLAY.replace("0.02", "0"), "maxFlipRate"),
        (REPLAY + "  stopAfter: evaluate\n", "ends before the gate, which would judge it"),
    ],
    ids=["tolerance", "no-tolerance", "no-data", "zero", "no-gate"],
)
def test_a_replay_that_makes_no_sense_is_refused_at_its_place(plan: Plan, text: str, message: str) -> None:
    stages = "" if "stopAfter" in text else GATE
    with pytest.raises(PipelineSpecError, match=message):
        plan(SMALL + text + stages)


def test_the_importance_of_features_is_measured_on_evaluation_data_only(plan: Plan) -> None:
    stages = "  stages: [{name: evaluate, importanceRows: 500}, {name: gate, thresholds: [accuracy >= 0.9]}]\n"
    data = "  data: {uri: a.csv, evaluationUri: b.csv, target: y}\n"
    assert plan(SMALL + stages + data).task("evaluate").arguments["importance_rows"] == 500
    assert "importance_rows" not in plan(SMALL + GATE + data).task("evaluate").arguments
    with pytest.raises(PipelineSpecError) as caught:
        plan(SMALL + stages)
    assert "spec.stages[0].importanceRows: feature importance requires evaluation data" in str(caught.value)
