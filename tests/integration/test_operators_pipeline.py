"""BeginPipelineOperator and the pin of the spec, with real Git repositories and a real MLflow server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_mcp.cli.__main__ import main
from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.operators.pipeline import BeginPipelineOperator, require_pinned_spec
from tests.support.git_server import Repository
from tests.support.mlflow_world import NOW, World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

pytestmark = pytest.mark.integration

STAGES = ["build", "train", "evaluate", "gate", "register", "promote"]


class Bench:
    """A repository, and the first task of a pipeline that uses it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.started = NOW
        self.repository = Repository(folder / "repository")
        self.first = self.repository.commit("print(1)")
        self.supervisor = FakeSupervisor(connections={"mlflow_default": {"host": world.url}})

    def begin(
        self, *, spec_hash: str = "spec-1", run_id: str = "run-1", try_number: int = 1, **more: Any
    ) -> TaskOutcome:
        """Begin a run; ``dag_run`` and ``events`` say what triggered it."""
        asked = {name: more.pop(name) for name in ("dag_run", "events") if name in more}
        given = {
            "model_name": self.world.model_name,
            "experiment_name": self.world.experiment,
            "stages": STAGES,
            **more,
        }
        given.setdefault("code", {"repo_url": self.repository.url, "path": "code"})
        with DAG(self.world.dag_id, schedule=None):
            operator = BeginPipelineOperator(task_id="begin", spec_hash=spec_hash, retries=3, **given)
        if try_number == 1:
            self.supervisor.task_state.clear()
        return run_task(operator, supervisor=self.supervisor, run_id=run_id, try_number=try_number, **asked)

    def commit_event(self, commit: str) -> tuple[str, dict[str, Any]]:
        said = {"kind": "commit", "repo_url": self.repository.url, "ref": "refs/heads/main", "commit": commit}
        return f"{self.world.dag_id}.commit", said

    def trained(self, **tags: str) -> Run:
        """A finished training of this pipeline's model."""
        given = {
            contract.TAG_KIND: contract.KIND_TRAINING,
            contract.TAG_MODEL_NAME: self.world.model_name,
            **{f"{contract.TAG_PREFIX}{name}": value for name, value in tags.items()},
        }
        self.started += 1000
        hook = self.world.hook
        run = hook.create_run(self.world.experiment_id, "a training", given, self.started)
        hook.update_run(run.run_id, "FINISHED", self.started + 5)
        self.world.logged_model(run)
        return run


@pytest.fixture
def bench(world: World, tmp_path: Path) -> Bench:
    return Bench(world, tmp_path)


def test_a_branch_becomes_one_commit_and_everything_is_plain_json(bench: Bench) -> None:
    outcome = bench.begin(dag_run={"run_type": "manual", "triggering_user_name": "alice"}, reason="new labels")
    assert outcome.state == "success", outcome.error
    assert outcome.result == {
        "spec_hash": "spec-1",
        "code": {"repo_url": bench.repository.url, "revision": bench.first, "path": "code", "ref": "refs/heads/main"},
        "commit": bench.first,
        "ref": "refs/heads/main",
        "data_version": "latest",
        "start_at": "build",
        "reuse": dict.fromkeys(STAGES),
        "reason": "new labels (started by alice)",
    }
    assert outcome.xcom["commit"] == bench.first


def test_code_in_a_folder_has_no_commit(bench: Bench) -> None:
    outcome = bench.begin(code=None, data_version="v3")
    assert (outcome.result["code"], outcome.result["commit"], outcome.result["data_version"]) == (None, "", "v3")
    assert bench.supervisor.asset_state == {}


def test_a_retry_gives_what_the_first_try_settled_whatever_happened_since(bench: Bench) -> None:
    first = bench.begin()
    bench.repository.commit("print(2)")
    retry = bench.begin(try_number=2)
    assert (retry.state, retry.result) == ("success", first.result)


def test_a_retry_after_the_file_changed_is_refused(bench: Bench) -> None:
    bench.begin()
    retry = bench.begin(try_number=2, spec_hash="spec-2")
    assert retry.state == "failed"
    assert "the pipeline file changed since this run began (spec hash spec-1 then, spec-2 now)" in str(retry.error)


def test_the_newest_commit_runs_when_more_came_than_the_event_says(bench: Bench) -> None:
    """Airflow drops events that come while a run is active (apache/airflow#56050); their commits must not be lost."""
    event = bench.commit_event(bench.first)
    told = f"commit {bench.first[:10]} on main of {bench.repository.url}"
    assert bench.begin(events=[event]).result["reason"] == told
    bench.repository.commit("print(2)")
    dropped = bench.repository.commit("print(3)")
    outcome = bench.begin(run_id="run-2", events=[event])
    assert outcome.result["commit"] == dropped
    assert outcome.result["reason"] == f"{told}; runs the newest commit {dropped[:10]}"
    late = bench.begin(run_id="run-3", events=[bench.commit_event(dropped)])
    assert late.state == "skipped", "the event was not lost after all, and its commit has run"


def test_the_newest_data_are_pinned_when_more_came_than_the_event_says(bench: Bench) -> None:
    event = ("data", {"kind": "data", "root": "/data", "version": "v7"})
    assert bench.begin(events=[event]).result["data_version"] == "latest"
    assert bench.begin(events=[event], data_version="v3").result["data_version"] == "v3"


def test_a_commit_that_has_run_already_is_skipped_when_only_it_triggers(bench: Bench) -> None:
    event = bench.commit_event(bench.first)
    assert bench.begin(run_id="nightly", dag_run={"run_type": "scheduled"}).state == "success"
    again = bench.begin(run_id="by-event", events=[event])
    assert again.state == "skipped"
    assert bench.begin(run_id="by-event", events=[event], try_number=2).state == "skipped"
    data = ("data", {"kind": "data", "root": "/data", "version": "v7"})
    both = bench.begin(run_id="by-both", events=[event, data])
    assert (both.state, both.result["data_version"]) == ("success", "latest")
    assert bench.begin(run_id="by-hand", revision=bench.first).state == "success"


def test_a_run_may_claim_its_own_commit_again(bench: Bench) -> None:
    event = bench.commit_event(bench.first)
    first = bench.begin(events=[event])
    assert first.state == "success"
    assert bench.begin(events=[event], try_number=2).result == first.result
    assert bench.begin(events=[event]).state == "success"  # its state was lost, the ledger was not


def test_a_person_may_name_another_commit_or_tag(bench: Bench) -> None:
    bench.repository.git("tag", "v1.0")
    bench.repository.commit("print(2)")
    assert bench.begin(revision="v1.0").result["commit"] == bench.first
    unknown = bench.begin(revision="nowhere")
    assert unknown.state == "failed"
    assert "'nowhere'" in str(unknown.error)


def test_where_releases_are_required_nothing_else_runs(bench: Bench) -> None:
    bench.repository.git("tag", "v1.0")
    head = bench.repository.commit("print(2)")
    code = {"repo_url": bench.repository.url, "tags": "v*"}
    released = bench.begin(code=code, require_release_tag="v*")
    assert (released.result["commit"], released.result["code"]["ref"]) == (bench.first, "refs/tags/v1.0")
    by_event = bench.begin(code=code, require_release_tag="v*", events=[bench.commit_event(head)])
    assert by_event.result["commit"] == bench.first, "a commit that is not a release never runs"
    for asked in ({"revision": head}, {"revision": "main"}):
        refused = bench.begin(code=code, require_release_tag="v*", **asked)
        assert refused.state == "failed"
        assert "is not a release" in str(refused.error)
    assert bench.begin(code=code, require_release_tag="v*", revision=bench.first).state == "success"


def test_a_later_stage_starts_from_the_newest_training_its_commit_and_its_data(bench: Bench) -> None:
    bench.trained()
    run = bench.trained(data_version="v5", code_commit=bench.first)
    bench.repository.commit("print(2)")
    outcome = bench.begin(start_at="evaluate")
    assert outcome.state == "success", outcome.error
    reused = {"run_id": run.run_id}
    assert outcome.result["reuse"] == {**dict.fromkeys(STAGES), "build": reused, "train": reused}
    assert (outcome.result["data_version"], outcome.result["commit"]) == ("v5", bench.first)


def test_a_named_run_is_reused_if_it_is_one_of_this_pipeline(bench: Bench) -> None:
    older = bench.trained()
    bench.trained()
    assert bench.begin(start_at="gate", from_run=older.run_id).result["reuse"]["train"] == {"run_id": older.run_id}
    refused = bench.begin(start_at="gate", from_run=bench.world.new_run().run_id)
    assert refused.state == "failed"
    assert "cannot be reused: it is not a training run" in str(refused.error)


def test_each_candidate_hands_on_its_own_training_of_one_dag_run(bench: Bench) -> None:
    tasks = {"small": "train_small", "deep": "train_deep"}
    for dag_run in ("older", "newer"):
        for task_id in tasks.values():
            bench.trained(task_id=task_id, dag_run_id=dag_run, data_version=dag_run)
    alone = bench.trained(task_id="train_deep", dag_run_id="alone")
    begun = bench.begin(start_at="evaluate", candidates=tasks)
    assert begun.state == "success", begun.error
    assert begun.result["data_version"] == "newer"
    reused = begun.result["reuse"]["train"]
    assert begun.result["reuse"] == {**dict.fromkeys(STAGES), "build": reused, "train": reused}
    trained = {name: bench.world.hook.get_run(run_id).tags for name, run_id in reused.items()}
    assert {name: tags[contract.TAG_TASK_ID] for name, tags in trained.items()} == tasks
    assert {tags[contract.TAG_DAG_RUN_ID] for tags in trained.values()} == {"newer"}
    refused = bench.begin(start_at="gate", candidates=tasks, from_run=alone.run_id)
    assert refused.state == "failed"
    assert "has no finished training of candidate 'small'" in str(refused.error)


def test_nothing_to_reuse_or_a_run_that_would_not_be_reused_is_refused(bench: Bench) -> None:
    nothing = bench.begin(start_at="gate")
    assert nothing.state == "failed"
    assert "no finished training run of model" in str(nothing.error)
    useless = bench.begin(from_run="r1")
    assert useless.state == "failed"
    assert "from_run must be empty when the run trains itself" in str(useless.error)
    assert bench.begin(start_at="train").result["reuse"]["build"] == {}


@pytest.mark.parametrize("named", ["9", "v1.7.3", "approved"])
def test_a_stable_version_that_is_not_in_the_registry_ends_the_run_before_anything_is_trained(
    bench: Bench, named: str
) -> None:
    bench.world.versions(1)
    outcome = bench.begin(stable_version=named)
    assert outcome.state == "failed"
    assert f"stableVersion {named!r} of model {bench.world.model_name!r} is not in the registry" in str(outcome.error)
    bench.world.hook.set_model_version_tag(bench.world.model_name, "1", "airflow_mcp.release", "v1.7.3")
    bench.world.hook.set_alias(bench.world.model_name, "approved", "1")
    there = "1" if named == "9" else named
    assert bench.begin(stable_version=there).state == "success"


def test_a_model_server_too_small_for_two_versions_ends_the_run(bench: Bench) -> None:
    world = bench.world
    world.versions(1)
    world.hook.set_alias(world.model_name, "champion", "1")
    check = LoadCheck("passed", "it loads", at="2026-11-30T00:00:00+00:00", memory_bytes=3 * 1024**3)
    for name, value in check.to_tags().items():
        world.hook.set_model_version_tag(world.model_name, "1", name, value)
    outcome = bench.begin(server_resources={"memory": "4Gi"})
    assert outcome.state == "failed"
    assert "has 4 GiB of memory, but holds two versions" in str(outcome.error)
    assert "at least 6 GiB" in str(outcome.error)
    assert bench.begin(server_resources={"memory": "6Gi"}).state == "success"
    assert bench.begin(server_resources={"memory": "4Gi", "memory_limit": "8Gi"}).state == "success"


DEPLOYED = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: {name}}}
spec:
  sourceCode: code
  trainingScript: train.py
  timeouts: {{deployServer: 20s}}
  stages:
    - name: gate
      thresholds: [accuracy >= 0.85]
    - name: deploy
      server:
        namespace: ml
        image: server:1
        options:
          resources: {{memory: 4Gi}}
          settings: {{LOAD_TIMEOUT: "30"}}
  rollback:
    trigger: {{metric: http_5xx_rate, threshold: "0.05", duration: 2m}}
    strategy: {{stableVersion: v1.7.3}}
"""


@pytest.fixture
def deployed(bench: Bench, tmp_path: Path) -> Path:
    """A pipeline file with a model server."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(DEPLOYED.format(name=bench.world.model_name))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("")
    return file


def test_the_registry_is_asked_before_a_pipeline_file_is_merged(
    bench: Bench, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = bench.world
    asked = [str(deployed), "--registry", "--tracking-uri", world.url]
    world.versions(1)
    world.hook.set_alias(world.model_name, "champion", "1")
    measured = world.new_run()
    world.hook.log_batch(measured.run_id, {"load_seconds": 45.0}, timestamp_ms=0)
    check = LoadCheck("passed", "it loads", run_id=measured.run_id, memory_bytes=3 * 1024**3)
    for name, value in check.to_tags().items():
        world.hook.set_model_version_tag(world.model_name, "1", name, value)

    assert main(["validate", str(deployed)]) == 0
    capsys.readouterr()
    assert main(["validate", *asked]) == 1
    found = [line.partition("pipeline.yaml:")[2] for line in capsys.readouterr().out.splitlines()[:-1]]
    problems = (
        "7:28: spec.timeouts.deployServer: pods must be ready within 20 s, and version 1 took 45 s to load",
        "16:31: spec.stages[1].server.options.resources.memory: the model server of",
        "17:36: spec.stages[1].server.options.settings.LOAD_TIMEOUT: the model server gives a version 30 s to load",
        "20:31: spec.rollback.strategy.stableVersion: stableVersion 'v1.7.3' of model",
    )
    assert len(found) == len(problems)
    assert all(line.startswith(problem) for line, problem in zip(found, problems, strict=True)), found
    assert main(["plan", *asked]) != 0
    assert "spec.rollback.strategy.stableVersion" in capsys.readouterr().err

    world.hook.set_model_version_tag(world.model_name, "1", "airflow_mcp.release", "v1.7.3")
    text = deployed.read_text().replace("20s", "5m").replace("4Gi", "6Gi").replace('"30"', '"60"')
    deployed.write_text(text)
    assert main(["validate", *asked]) == 0
    assert main(["plan", *asked]) == 0


def test_a_file_is_not_valid_when_the_registry_does_not_answer(
    deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(deployed), "--registry", "--tracking-uri", "http://127.0.0.1:9"]) != 0
    assert "http://127.0.0.1:9" in capsys.readouterr().err


def test_a_remote_that_does_not_answer_is_tried_again(bench: Bench) -> None:
    outcome = bench.begin(code={"repo_url": "http://127.0.0.1:9/team/code"})
    assert outcome.state == "up_for_retry"
    assert bench.supervisor.task_state == {}


class Step(BaseOperator):
    """A task that says that it ran."""

    def execute(self, context: Any) -> str:
        return "ran"


@pytest.mark.parametrize(
    ("pinned", "state", "message"),
    [
        ("spec-1", "success", ""),
        ("spec-0", "failed", "the pipeline file changed since this run began"),
        (None, "failed", "pushed no spec hash"),
    ],
)
def test_every_other_task_refuses_a_file_that_changed(pinned: str | None, state: str, message: str) -> None:
    step = Step(task_id="step", retries=3, pre_execute=require_pinned_spec("spec-1"))
    outcome = run_task(step, supervisor=FakeSupervisor(xcoms={("begin", "spec_hash"): pinned}))
    assert outcome.state == state
    assert message in str(outcome.error or "")
    assert outcome.result == ("ran" if state == "success" else None)
