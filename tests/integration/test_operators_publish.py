"""PublishModelOperator and its step: real uploads in a real MLflow server, unpacked, wrapped and loaded for real."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.registry.publishing import PublishResult, Upload
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.operators.publish import PublishModelOperator
from airflow_mcp.operators.registry import RegisterModelOperator
from airflow_mcp.workloads.local import LocalBackend
from tests.support.logged_models import log_tree
from tests.support.mlflow_world import World, kill_points
from tests.support.onnx_files import linear_onnx
from tests.support.task_harness import TaskOutcome

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def upload(world: World, data: bytes, kind: Any = "onnx", *, said: bytes | None = None, complete: bool = True) -> str:
    """Store an upload as the publisher API does, and return its address."""
    announced = said if said is not None else data
    sha256 = f"sha256:{hashlib.sha256(announced).hexdigest()}"
    found = Upload(format=kind, size=len(announced), sha256=sha256, by="olga")
    experiment_id = world.hook.get_or_create_experiment(f"{world.model_name}-uploads")
    run = world.hook.create_run(experiment_id, "upload", found.to_tags(world.model_name, "key"), 1)
    world.hook.upload_artifact(run.run_id, found.artifact, data)
    if complete:
        world.hook.update_run(run.run_id, "FINISHED", 2)
    return f"uploads:/{run.run_id}"


def publish(world: World, source: str, **options: Any) -> TaskOutcome:
    return world.run(PublishModelOperator, model_name=world.model_name, source=source, **options)


def refused(world: World) -> str:
    """Return why the last upload was refused, as the run that was to hold the model says."""
    experiment_id = world.hook.get_or_create_experiment(f"{world.model_name}-uploads")
    runs = world.hook.search_runs([experiment_id], f"tags.`{contract.TAG_KIND}` = 'publish'")
    assert [run.status for run in runs] == ["FAILED"]
    return runs[0].tags[contract.TAG_REFUSED]


def test_an_onnx_file_becomes_a_version_with_what_was_reported(world: World) -> None:
    data = linear_onnx()
    source = upload(world, data)
    example = {"x": [[1.0, 2.0], [3.0, 4.0]]}
    given = {"input_example": example, "provenance": {"code_commit": "c" * 40}, "request_id": "req-7"}
    published = publish(world, source, **given)
    assert published.state == "success", published.error
    named = {"model_name": world.model_name, "model_uri": published.result["model_uri"], "require_gate": False}
    registered = world.run(RegisterModelOperator, **named)
    assert registered.result["version"] == "1"
    version = world.hook.get_model_version(world.model_name, "1")
    assert version.tags[f"{contract.TAG_REPORTED_PREFIX}code_commit"] == "c" * 40
    assert contract.TAG_CODE_COMMIT not in version.tags  # nobody has checked it
    assert version.tags[contract.TAG_REQUEST_ID] == "req-7"
    model_id = published.result["model_uri"].removeprefix("models:/")
    files = {entry.path for entry in world.hook.list_model_artifacts(model_id)}
    assert {"MLmodel", "model.onnx", "requirements.txt"} <= files


def test_one_upload_makes_one_model_however_many_dag_runs_ask(world: World) -> None:
    source = upload(world, linear_onnx())
    found = [publish(world, source, dag_run_id=f"run-{number}") for number in (1, 2)]
    assert found[0].result == found[1].result, found[1].error


def test_a_model_that_was_logged_already_is_passed_on_unless_its_gate_refused_it(world: World) -> None:
    run, model_id = world.judged_model("failed")
    outcome = publish(world, f"models:/{model_id}")
    assert outcome.state == "failed"
    assert "is failed" in str(outcome.error)
    good, _ = world.judged_model(None)
    outcome = publish(world, f"runs:/{good.run_id}/model")
    assert outcome.result["model_uri"] == f"runs:/{good.run_id}/model"
    assert run.run_id != good.run_id


def test_an_archive_of_a_model_is_unpacked_and_logged_byte_for_byte(world: World, mlflow_server: Any) -> None:
    tree = log_tree(mlflow_server)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(tree.files.rglob("*")):
            if path.is_file():
                archive.write(path, f"my_model/{path.relative_to(tree.files)}")
    outcome = publish(world, upload(world, buffer.getvalue(), "mlflow"))
    assert outcome.state == "success", outcome.error
    assert world.run(RegisterModelOperator, model_name=world.model_name, model_uri=outcome.result["model_uri"],
                     require_gate=False).state == "success"  # fmt: skip
    checked = world.run(LoadCheckOperator, model_name=world.model_name, version="1")
    assert checked.result["verdict"] == "passed", checked.error


def test_other_bytes_than_were_announced_are_refused_with_the_reason_on_the_run_and_without_a_retry(
    world: World,
) -> None:
    data = linear_onnx()
    outcome = publish(world, upload(world, data, said=data[:-1] + b"\x00"))
    assert outcome.state == "failed"
    assert "were announced" in refused(world)


def test_an_upload_that_is_not_complete_or_for_another_model_is_refused(world: World) -> None:
    source = upload(world, linear_onnx(), complete=False)
    assert "not complete" in str(publish(world, source).error)
    other = world.run(PublishModelOperator, model_name="another", source=source)
    assert "holds no upload for 'another'" in str(other.error)


def test_a_task_killed_between_any_two_writes_leaves_one_model_after_its_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, kills, name = upload(world, linear_onnx()), 0, world.model_name
    upload_run = world.hook.get_run(source.removeprefix("uploads:/"))
    monkeypatch.setattr(LocalBackend, "run", lambda self, workload, **_: logged_by(world, workload.env))
    for switch in kill_points():
        world.model_name = f"{name}.{kills}"
        world.hook.set_tag(upload_run.run_id, contract.TAG_MODEL_NAME, world.model_name)
        first = publish(world, source, before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success", first.error
            break
        kills += 1
        second = publish(world, source, try_number=2)
        assert second.state == "success", second.error
        experiment_id = world.hook.get_or_create_experiment(f"{world.model_name}-uploads")
        runs = world.hook.search_runs([experiment_id], f"tags.`{contract.TAG_KIND}` = 'publish'")
        assert [run.status for run in runs].count("FINISHED") == 1
        assert not [run for run in runs if run.status == "RUNNING"]
    assert kills >= 2


def logged_by(world: World, env: Mapping[str, str]) -> None:
    """Do what the workload does to MLflow, without the model."""
    run = world.hook.get_run(env[contract.ENV_RUN_ID])
    model_id = world.logged_model(run)
    result = PublishResult(
        identity=env[contract.ENV_IDENTITY], run_id=run.run_id, model_id=model_id, digest=f"sha256:{'0' * 64}"
    )
    world.hook.upload_artifact(run.run_id, contract.ARTIFACT_PUBLISH, dump_document(result).encode())
    world.hook.update_run(run.run_id, "FINISHED", 3)
