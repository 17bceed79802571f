"""CopyModelVersionOperator between two real MLflow servers, and on one."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.profile import write_profile
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.copies import CopyResult, read_copied_from
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.mlflow_client.api import ARTIFACT_PROXY
from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.work.drift.profiles import profile_dataset
from airflow_mcp.workloads.base import WorkloadBackend
from tests.support.fakes.faulty_server import FaultyServer, Seen, slow
from tests.support.forked import ForkedTask
from tests.support.logged_models import tracking
from tests.support.mlflow_world import KillSwitch, World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # MLflow's own, about types

SECRET = "s0urce-passw0rd"


def log_files(world: World) -> tuple[Run, str]:
    """Log a model with files, signature and input example, and evidence of its gate."""
    import mlflow
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame({"x1": [n % 7 for n in range(70)], "x2": [n % 5 for n in range(70)]}).astype("int64")
    labels = (frame["x1"] > 3).astype("int64")
    with tracking(world.url), mlflow.start_run() as started:
        model = DecisionTreeClassifier(random_state=0).fit(frame, labels)
        info = mlflow.sklearn.log_model(
            model,
            name="tree",
            signature=mlflow.models.infer_signature(frame, labels),
            input_example=frame[:3],
            pip_requirements=[],
            serialization_format="cloudpickle",
        )
    return world.hook.get_run(started.info.run_id), info.model_id


@pytest.fixture(scope="module")
def logged() -> dict[str, tuple[Run, str]]:
    """The model with files, logged once per server."""
    return {}


@pytest.fixture
def source(world: World, logged: dict[str, tuple[Run, str]]) -> ModelVersion:
    """A judged version with files, on the first server."""
    run, model_id = logged.setdefault(world.url, log_files(world) if world.url not in logged else logged[world.url])
    world.hook.upload_artifact(run.run_id, contract.ARTIFACT_GATE_REPORT_JSON, b'{"report": "of dev"}')
    world.hook.set_tag(run.run_id, contract.TAG_GATE_VERDICT, "passed")
    world.hook.create_registered_model(world.model_name)
    return world.hook.create_model_version(
        world.model_name,
        f"models:/{model_id}",
        run_id=run.run_id,
        tags={
            contract.TAG_GATE_VERDICT: "passed",
            contract.TAG_DATA_VERSION: "v7",
            f"{contract.TAG_PREFIX}load_check": "passed",
            contract.TAG_ROLLED_BACK: "bad scores",
            "team": "fraud",
        },
    )


def copy(target: World, source: World, version: str = "1", **options: Any) -> TaskOutcome:
    """Copy from one server to the other, as a task of the target's environment."""
    fields = {"host": options.pop("source_url", source.url), **options.pop("source_fields", {})}
    return target.run(
        CopyModelVersionOperator,
        **{
            "model_name": source.model_name,
            "version": version,
            "target_model_name": target.model_name,
            "experiment_name": target.experiment,
            "source_mlflow_conn_id": "mlflow_dev",
            "connections": {"mlflow_dev": {"extra": {"retries": 0, "ui_url": "https://dev.example.com"}, **fields}},
            "runtime": "local",
            "env": {"MARKER": target.marker},
            **options,
        },
    )


@pytest.mark.cold
def test_a_copy_is_the_same_model_and_tells_where_it_comes_from(
    world: World, second_world: World, source: ModelVersion
) -> None:
    outcome = copy(second_world, world)
    assert outcome.state == "success", outcome.error
    run = second_world.hook.get_run(outcome.result["run_id"])
    version = second_world.hook.get_model_version(second_world.model_name, "1")
    assert outcome.result == {
        "model_name": second_world.model_name,
        "version": "1",
        "model_uri": f"models:/{second_world.model_name}/1",
        "run_id": version.run_id,
        "digest": version.tags[contract.TAG_MODEL_DIGEST],
        "copied": True,
    }
    result = parse_document(CopyResult, second_world.artifact(run, contract.ARTIFACT_COPY), "the result")
    assert {"MLmodel", "model.pkl", "input_example.json"} <= {file.path for file in result.files}
    assert (run.status, run.model_ids, result.digest) == ("FINISHED", (version.model_id,), outcome.result["digest"])
    assert (run.tags[contract.TAG_KIND], run.tags[contract.TAG_MODEL_VERSION]) == (
        "copy",
        f"{second_world.model_name}/1",
    )
    assert version.tags[contract.TAG_DATA_VERSION] == "v7"
    assert version.tags[contract.TAG_COPIED_GATE_VERDICT] == "passed"
    for own in (contract.TAG_GATE_VERDICT, contract.TAG_ROLLED_BACK, f"{contract.TAG_PREFIX}load_check", "team"):
        assert own not in version.tags
    origin = read_copied_from(version.tags)
    assert origin is not None
    assert (origin.server, origin.model_name, origin.version, origin.run_id, origin.digest) == (
        "https://dev.example.com",
        world.model_name,
        "1",
        source.run_id,
        result.digest,
    )
    copied = f"{contract.ARTIFACT_COPIED_DIR}/{contract.ARTIFACT_GATE_REPORT_JSON}"
    assert json.loads(second_world.artifact(run, copied)) == {"report": "of dev"}
    assert (second_world.aliases, second_world.claims, second_world.processes()) == ({}, [], [])
    assert predictions(second_world, version) == predictions(world, source)
    again = copy(second_world, world, dag_run_id="run-2")
    assert (again.state, again.result) == ("success", {**outcome.result, "copied": False})
    assert len(second_world.all_versions()) == 1
    assert len(second_world.runs()) == 1


def predictions(world: World, version: ModelVersion) -> list[int]:
    """Load a version as serving does and let it answer its own input example."""
    import mlflow

    with tracking(world.url):
        model = mlflow.pyfunc.load_model(version.uri)
        assert model.metadata.signature is not None
        return [int(value) for value in model.predict(model.input_example)]


def test_a_copy_that_is_killed_between_any_two_requests_and_tried_again_becomes_one_version(
    world: World, second_world: World, source: ModelVersion
) -> None:
    kills, workloads = 0, []
    for after in range(1, 60):
        switch = KillSwitch(after)

        def arm(operator: Any, switch: KillSwitch = switch) -> None:
            switch.arm(operator)
            _count_workloads(operator, workloads)

        outcome = copy(second_world, world, before=arm, try_number=after)
        second_world.let_claims_run_out()
        if not switch.has_fired:
            assert outcome.state == "success", outcome.error
            break
        kills += 1
        assert outcome.state != "success"
    assert kills >= 5
    assert len(workloads) <= 2  # the one that ended well is taken up, however often its task dies afterwards
    (version,) = second_world.all_versions()
    assert outcome.result["run_id"] == version.tags[contract.TAG_COPY_RUN]
    assert second_world.runs("RUNNING") == []
    assert len(second_world.runs("FINISHED")) == 1


def _count_workloads(operator: Any, started: list[str]) -> None:
    run = operator.backend.run

    def counted(workload: Any, **options: Any) -> None:
        started.append(workload.name)
        run(workload, **options)

    operator.backend.run = counted


@pytest.mark.cold
def test_a_workload_that_is_killed_leaves_no_version_and_its_retry_makes_one(
    world: World, second_world: World, source: ModelVersion
) -> None:
    with FaultyServer(world.url) as server:
        server.fail("mlflow-artifacts/artifacts", slow(20), method="GET")
        killer = threading.Thread(target=_kill_after, args=(second_world, lambda: server.count("mlflow-artifacts")))
        killer.start()
        first = copy(second_world, world, source_url=server.url)
        killer.join(60)
    assert first.state == "up_for_retry"
    assert "SIGKILL" in str(first.error)
    assert second_world.all_versions() == []
    assert second_world.processes() == []
    assert copy(second_world, world, try_number=2).state == "success"
    assert len(second_world.all_versions()) == 1
    assert sorted(run.status for run in second_world.runs()) == ["FAILED", "FINISHED"]


def _kill_after(world: World, requests: Callable[[], int]) -> None:
    """Kill the workload once it has made one of the requests that are counted; the task makes some before it."""
    deadline, found, before = time.monotonic() + 120, set[int](), 0
    while not found or requests() == before:
        assert time.monotonic() < deadline
        if not found:  # a library that renames processes hides their environment later
            commands = {pid: _command_line(pid) for pid in world.processes()}
            found = {pid for pid, line in commands.items() if b"airflow_mcp.work" in line and b"guard.py" not in line}
            before = requests()
        time.sleep(0.05)
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Tampering(FaultyServer):
    """Changes one file on its way to the storage."""

    def handle(self, request: Seen) -> Any:
        if request.method == "PUT" and request.path.endswith("model.pkl"):
            request = replace(request, body=request.body + b"x")
        return super().handle(request)


def test_a_copy_whose_bytes_change_on_the_way_is_refused(
    world: World, second_world: World, source: ModelVersion
) -> None:
    with Tampering(second_world.url) as server:
        outcome = copy(second_world, world, url=server.url)
    assert outcome.state == "failed"
    assert "the copy differs from its source in 1 file(s): model.pkl" in str(outcome.error)
    assert second_world.all_versions() == []
    (run,) = second_world.runs()
    assert run.status == "FAILED"


def test_a_copy_that_was_tampered_with_is_not_copied_on(
    world: World, second_world: World, source: ModelVersion
) -> None:
    assert copy(second_world, world).state == "success"
    version = second_world.hook.get_model_version(second_world.model_name, "1")
    second_world.hook.set_model_version_tag(second_world.model_name, "1", contract.TAG_GATE_VERDICT, "passed")
    place = second_world.hook.get_logged_model(version.model_id).artifact_uri.removeprefix("mlflow-artifacts:/")
    httpx.put(f"{second_world.url}/{ARTIFACT_PROXY}/{place}/model.pkl", content=b"evil").raise_for_status()
    world.model_name += "-prod"
    outcome = copy(world, second_world)
    assert outcome.state == "failed"
    assert "version 1 of" in str(outcome.error)
    assert f"but {version.tags[contract.TAG_MODEL_DIGEST]} is on record. It was not copied" in str(outcome.error)
    assert world.aliases == {}


class UnstartedError(Exception):
    pass


def test_credentials_of_the_source_reach_the_workload_as_secrets_only(
    world: World, second_world: World, source: ModelVersion
) -> None:
    seen: list[Any] = []

    class Recording(WorkloadBackend):
        python, ships_files = "python", False

        def run(self, workload: Any, **options: Any) -> None:
            seen.append(workload)
            raise UnstartedError

        def cancel(self) -> None:
            """Nothing runs."""

        def resume(self, *arguments: Any, **options: Any) -> None:
            """Nothing was deferred."""

    outcome = copy(
        second_world,
        world,
        source_fields={"login": "reader", "password": SECRET},
        before=lambda operator: operator.__dict__.update(backend=Recording()),
    )
    assert isinstance(outcome.error, UnstartedError)
    (workload,) = seen
    assert workload.env["AIRFLOW_MCP_SOURCE_MLFLOW_TRACKING_URI"] == world.url
    assert workload.env["MLFLOW_TRACKING_URI"] == second_world.url
    assert workload.secret_env["AIRFLOW_MCP_SOURCE_MLFLOW_TRACKING_PASSWORD"] == SECRET
    assert "MLFLOW_TRACKING_PASSWORD" not in workload.secret_env
    plain = json.dumps([dict(workload.env), workload.command, [file.content for file in workload.files]])
    assert SECRET not in plain + repr(workload)


def test_each_server_is_sent_its_own_credentials(
    world: World, second_world: World, source: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyServer(world.url) as from_server, FaultyServer(second_world.url) as to_server:
        outcome = copy(
            second_world,
            world,
            source_url=from_server.url,
            source_fields={"login": "reader", "password": SECRET},
            url=to_server.url,
            extra={"retries": 0, "token": "t0ken-of-prod"},
        )
    assert outcome.state == "success", outcome.error
    assert {request.headers.get("authorization", "")[:6] for request in from_server.seen} == {"Basic "}
    assert {request.headers.get("authorization") for request in to_server.seen} == {"Bearer t0ken-of-prod"}
    assert SECRET not in capsys.readouterr().out


# --- on one server ---------------------------------------------------------------------------------------------------
def copy_here(world: World, target: str, **options: Any) -> TaskOutcome:
    arguments = {
        "model_name": world.model_name,
        "version": "1",
        "experiment_name": world.experiment,
        "runtime": "local",
    }
    return world.run(CopyModelVersionOperator, **{**arguments, "target_model_name": target, **options})


def test_on_one_server_a_copy_is_a_version_whose_source_is_the_version(world: World, source: ModelVersion) -> None:
    target = f"{world.model_name}-prod"
    outcome = copy_here(world, target)
    assert outcome.state == "success", outcome.error
    version = world.hook.get_model_version(target, "1")
    assert (version.source, version.run_id, version.status) == (source.uri, source.run_id, "READY")
    assert (outcome.result["digest"], outcome.result["copied"]) == ("", True)
    run = world.hook.get_run(outcome.result["run_id"])
    assert (run.status, version.tags[contract.TAG_COPY_RUN]) == ("FINISHED", run.run_id)
    copied = f"{contract.ARTIFACT_COPIED_DIR}/{contract.ARTIFACT_GATE_REPORT_JSON}"
    assert json.loads(world.artifact(run, copied)) == {"report": "of dev"}
    assert predictions(world, version) == predictions(world, source)


def test_a_copy_on_one_server_that_is_killed_anywhere_is_completed_by_its_retry(world: World) -> None:
    world.versions(1)
    kills, base = 0, world.model_name
    for switch in kill_points():
        target = f"{base}-{kills}"
        copy_here(world, target, before=switch.arm)
        if not switch.has_fired:
            break
        kills += 1
        world.model_name = target
        world.let_claims_run_out()
        world.model_name = base
        outcome = copy_here(world, target, try_number=2)
        assert outcome.state == "success", outcome.error
        (version,) = world.hook.search_model_versions(f"name = '{target}'")
        run = world.hook.get_run(version.tags[contract.TAG_COPY_RUN])
        assert (run.status, run.tags[contract.TAG_MODEL_VERSION]) == ("FINISHED", f"{target}/1")
    assert kills >= 7


@pytest.mark.parametrize("server", ["same", "other"])
def test_a_champion_that_is_a_copy_is_what_drift_is_measured_from_where_it_is(
    world: World, second_world: World, source: ModelVersion, server: str
) -> None:
    data = pd.DataFrame({"steady": [float(n % 50) for n in range(500)], "moving": [float(n % 40) for n in range(500)]})
    data.to_parquet(world.folder / "train.parquet")
    profile = write_profile(profile_dataset([DatasetPin(uri=str(world.folder / "train.parquet"))]))
    world.hook.upload_artifact(source.run_id, contract.ARTIFACT_PROFILE, profile.encode())
    world.hook.upload_artifact(source.run_id, contract.ARTIFACT_IMPORTANCE, b'{"steady": 0.8, "moving": 0.2}')
    world.hook.set_model_version_tag(source.name, source.version, contract.TAG_DATA_PROFILE, contract.ARTIFACT_PROFILE)
    target, name = (world, f"{world.model_name}-prod") if server == "same" else (second_world, second_world.model_name)
    copied = copy_here(world, name) if server == "same" else copy(second_world, world)
    assert copied.state == "success", copied.error
    target.hook.set_alias(name, "champion", "1")
    (world.folder / "train.parquet").unlink()
    data.assign(moving=data["moving"] + 100).to_parquet(world.folder / "now.parquet")

    checked = target.run(
        DriftCheckOperator,
        experiment_name=f"{target.experiment}-drift",
        model_name=name,
        current={"uri": str(world.folder / "now.parquet"), "version": "now"},
        policy={"weights": "champion"},
    )
    assert checked.state == "success", checked.error
    assert checked.result["drifted_columns"] == ["moving"]
    assert checked.result["drift_share"] == pytest.approx(0.2)


def test_a_version_that_many_tasks_copy_at_once_is_copied_once(world: World) -> None:
    world.versions(1)
    target = f"{world.model_name}-prod"
    world.hook.close()

    def compete(number: int) -> tuple[str, str]:
        for try_number in range(1, 8):
            outcome = copy_here(world, target, dag_run_id=f"run-{number}", try_number=try_number, retries=7)
            if outcome.state != "up_for_retry":
                break
        return outcome.state, str((outcome.result or {}).get("version", outcome.error))

    tasks = [ForkedTask(lambda number=number: compete(number)) for number in range(5)]
    assert {task.result() for task in tasks} == {("success", "1")}
    assert len(world.hook.search_model_versions(f"name = '{target}'")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_model_name": ""}, "target_model_name must differ from model_name on the same MLflow server"),
        ({"version": "latest"}, "version must be a version number; got 'latest'"),
        ({"version": "9"}, "RESOURCE_DOES_NOT_EXIST"),
        ({"experiment_name": ""}, "experiment_name must be text that is not empty; got ''"),
        ({"target_model_name": 'it\'s "x"'}, "cannot be used in an MLflow filter"),
    ],
)
def test_what_cannot_be_copied_is_refused(world: World, options: dict[str, Any], message: str) -> None:
    world.versions(1)
    outcome = copy_here(world, f"{world.model_name}-prod", **options)
    assert outcome.state in ("failed", "up_for_retry")
    assert message in str(outcome.error)


def test_a_version_that_no_gate_let_through_is_not_copied_unless_asked_for(world: World) -> None:
    world.versions(1, "failed")
    target = f"{world.model_name}-prod"
    outcome = copy_here(world, target)
    assert outcome.state == "failed"
    assert "has gate verdict failed" in str(outcome.error)
    assert copy_here(world, target, require_gate=False).state == "success"


def test_a_dry_run_copies_nothing(world: World) -> None:
    world.versions(1)
    before = world.runs()
    assert copy_here(world, f"{world.model_name}-prod", dry_run="true").state == "skipped"
    assert world.runs() == before
    assert world.hook.search_model_versions(f"name = '{world.model_name}-prod'") == []


def test_a_copy_needs_a_verdict_of_its_own_or_the_carried_one(world: World) -> None:
    world.versions(1)

    def promote(target: str, run_id: str) -> TaskOutcome:
        arguments = {"model_name": target, "version": "1", "expected_champion": "none", "require_load_check": False}
        return world.run(PromoteModelOperator, **arguments, dag_run_id=run_id)

    target = f"{world.model_name}-test"
    copied = copy_here(world, target).result
    refused = promote(target, "run-1")
    assert refused.state == "failed"
    assert f"version 1 of {target!r} has gate verdict none" in str(refused.error)
    for verdict, state in (("failed", "failed"), ("passed", "success")):
        world.hook.set_tag(copied["run_id"], contract.TAG_GATE_VERDICT, verdict)
        assert promote(target, f"run-{verdict}").state == state
    (move,) = read_history(world.hook.get_registered_model(target).tags)
    assert (move.run_id, move.gate_verdict) == (copied["run_id"], "passed")

    target = f"{world.model_name}-prod"
    copied = copy_here(world, target, carry_gate_verdict=True).result
    world.hook.set_tag(copied["run_id"], contract.TAG_GATE_VERDICT, "failed")
    assert "has gate verdict failed" in str(promote(target, "run-own").error)
    world.hook.set_tag(copied["run_id"], contract.TAG_GATE_VERDICT, "")
    assert promote(target, "run-carried").state == "success"


def test_the_verdict_of_a_copys_own_gate_is_written_to_the_version_once(world: World) -> None:
    world.versions(1)
    target = f"{world.model_name}-test"
    world.hook.set_tag(copy_here(world, target).result["run_id"], contract.TAG_GATE_VERDICT, "approved")
    arguments = {"model_name": target, "version": "1", "expected_champion": "none", "require_load_check": False}
    with FaultyServer(world.url) as server:
        for try_number in (1, 2):
            outcome = world.run(PromoteModelOperator, **arguments, url=server.url, try_number=try_number)
            assert outcome.state == "success", outcome.error
        assert server.count("model-versions/set-tag") == 1
    assert world.hook.get_model_version(target, "1").tags[contract.TAG_GATE_VERDICT] == "approved"


def test_a_copy_of_a_copy_tells_the_whole_way(world: World) -> None:
    (first,) = world.versions(1)
    assert copy_here(world, f"{world.model_name}-test", carry_gate_verdict=True).state == "success"
    target = f"{world.model_name}-prod"
    outcome = copy_here(world, target, model_name=f"{world.model_name}-test", dag_run_id="run-2")
    assert outcome.state == "success", outcome.error
    origin = read_copied_from(world.hook.get_model_version(target, "1").tags)
    assert origin is not None
    assert (origin.model_name, origin.copied_from["model_name"]) == (f"{world.model_name}-test", first.name)


def test_where_champions_were_copied_from_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.versions(2)
    target, times = f"{world.model_name}-prod", []
    for version, expected in (("1", "none"), ("2", "1")):
        copy_here(world, target, version=version, carry_gate_verdict=True, dag_run_id=f"copy-{version}")
        arguments = {
            "model_name": target,
            "version": version,
            "expected_champion": expected,
            "require_load_check": False,
        }
        promoted = world.run(PromoteModelOperator, **arguments, dag_run_id=f"promote-{version}")
        assert promoted.state == "success", promoted.error
        times.append(datetime.now(UTC).isoformat())

    def told(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, "--tracking-uri", world.url]) == 0
        return capsys.readouterr().out

    origins = [f"version {n} of {world.model_name} at {world.url}, which has the same files" for n in (1, 2)]
    history = told("registry", "history", target)
    assert [f"version {n} is a copy of {origins[n - 1]}" in history for n in (1, 2)] == [True, True]
    assert f"copied from      {origins[0]}\n" in told("registry", "at", target, times[0])
    assert f"copied from      {origins[0]} -> {origins[1]}\n" in told("registry", "diff", target, *times)
    assert f"copied from    {origins[1]}\n" in told("status", target)


def test_a_copy_whose_run_was_deleted_is_not_promoted(world: World) -> None:
    world.versions(1)
    target = f"{world.model_name}-prod"
    run_id = copy_here(world, target, carry_gate_verdict=True).result["run_id"]
    world.hook.delete_run(run_id)
    outcome = world.run(
        PromoteModelOperator, model_name=target, version="1", expected_champion="none", require_load_check=False
    )
    assert outcome.state == "failed"
    assert f"is a copy whose MLflow run {run_id} is deleted, so its own gate verdict is not known" in str(outcome.error)
