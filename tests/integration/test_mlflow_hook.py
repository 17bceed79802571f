"""Every operation of the hook against a real MLflow server, blocking and awaiting."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowConflictError,
    MlflowError,
    MlflowNotFoundError,
    MlflowUnreachableError,
)
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.mlflow_client.api import filter_value
from tests.support.fakes.faulty_server import FaultyServer, lost_answer
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

NOW = 1_767_268_800_000
Call = Callable[..., Any]


@pytest.fixture
def hook(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowHook]:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
    with MlflowHook() as hook:
        yield hook


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Call:
    """Perform ``do(hook.operation, ...)`` through one of the two faces."""

    def perform(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return operation(*args, **kwargs)
        return asyncio.run(operation.aio(*args, **kwargs))

    return perform


@pytest.fixture
def name() -> str:
    return f"it's-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def run(hook: MlflowHook, name: str) -> Run:
    return hook.create_run(hook.get_or_create_experiment(name), "a run", {"who": "test"}, NOW)


def log_model(run: Run, model_name: str, server: MlflowServer) -> str:
    """Log an empty model with MLflow's own client and return its id."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    client = MlflowClient(server.url)
    model = client.create_logged_model(run.experiment_id, model_name, source_run_id=run.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def test_the_connection_works(hook: MlflowHook, mlflow_server: MlflowServer) -> None:
    import mlflow.version

    assert hook.test_connection() == (True, f"MLflow {mlflow.version.VERSION} answers at {mlflow_server.url}")


def test_experiments(hook: MlflowHook, do: Call, name: str, mlflow_server: MlflowServer) -> None:
    from mlflow import MlflowClient

    assert do(hook.get_experiment_by_name, name) is None
    experiment_id = do(hook.get_or_create_experiment, name)
    assert do(hook.get_or_create_experiment, name) == experiment_id
    assert do(hook.get_experiment_by_name, name).name == name
    assert name in {experiment.name for experiment in do(hook.search_experiments)}
    MlflowClient(mlflow_server.url).delete_experiment(experiment_id)
    with pytest.raises(InvalidArgumentError, match="is deleted on the MLflow server"):
        do(hook.get_or_create_experiment, name)


def test_many_creators_get_one_experiment(hook: MlflowHook, name: str) -> None:
    ids: list[str] = []

    def create() -> None:
        with MlflowHook(hook.mlflow_conn_id) as own:
            ids.append(own.get_or_create_experiment(name))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_run_from_its_start_to_its_end(hook: MlflowHook, do: Call, run: Run) -> None:
    assert (run.status, run.run_name, run.start_time, run.tags["who"]) == ("RUNNING", "a run", NOW, "test")
    do(hook.log_batch, run.run_id, {"auc": 0.5, "bad": float("nan")}, {"lr": "0.1"}, {"a": "1"}, NOW)
    do(hook.set_tag, run.run_id, "who", "it's me")
    do(hook.set_tags, run.run_id, {f"t{i}": "x" for i in range(150)})
    do(hook.update_run, run.run_id, "FINISHED", NOW + 5)
    read = do(hook.get_run, run.run_id)
    assert (read.status, read.end_time, read.is_live) == ("FINISHED", NOW + 5, False)
    assert (read.metrics["auc"], str(read.metrics["bad"]), read.params) == (0.5, "nan", {"lr": "0.1"})
    assert (read.tags["who"], read.tags["t149"]) == ("it's me", "x")
    for _ in range(2):
        do(hook.delete_run, run.run_id)
    assert do(hook.get_run, run.run_id).lifecycle_stage == "deleted"


def test_what_the_server_does_with_long_and_changed_values(hook: MlflowHook, run: Run) -> None:
    hook.log_batch(run.run_id, params={"p": "x" * 7000}, tags={"t": "x" * 9000})
    read = hook.get_run(run.run_id)
    assert (len(read.params["p"]), len(read.tags["t"])) == (6000, 8000)
    with pytest.raises(MlflowError, match="Changing param values is not allowed") as caught:
        hook.log_batch(run.run_id, params={"p": "other"})
    assert caught.value.status == 400


def test_searching_runs_pages_and_cannot_be_broken_out_of(hook: MlflowHook, do: Call, run: Run) -> None:
    others = [hook.create_run(run.experiment_id, f"r{i}", {"n": 'say "x"'}, NOW + i) for i in range(3)]
    order = ["attributes.start_time DESC"]
    found = do(hook.search_runs, [run.experiment_id], order_by=order, max_results=2)
    assert [item.run_id for item in found] == [others[2].run_id, others[1].run_id]
    for value, count in [('say "x"', 3), ("it's", 0), ("' OR tags.n != '", 0), ("x", 0)]:
        query = f"tags.n = {filter_value(value)}"
        assert len(do(hook.search_runs, [run.experiment_id], query)) == count
    with pytest.raises(MlflowError, match="search runs of experiments"):
        do(hook.search_runs, [run.experiment_id], "tags.n = unquoted")


def test_artifacts_come_back_as_they_went(hook: MlflowHook, do: Call, run: Run) -> None:
    data = bytes(range(256)) * 40
    for path in ("gate/report.json", "gate/a bü+&.bin"):
        do(hook.upload_artifact, run.run_id, path, data)
        assert do(hook.download_artifact, run.run_id, path) == data
    do(hook.upload_artifact, run.run_id, "gate/report.json", b"second")
    assert do(hook.download_artifact, run.run_id, "gate/report.json") == b"second"
    assert [(item.path, item.is_dir) for item in do(hook.list_artifacts, run.run_id)] == [("gate", True)]
    files = {item.path: item.file_size for item in do(hook.list_artifacts, run.run_id, "gate")}
    assert files == {"gate/report.json": 6, "gate/a bü+&.bin": len(data)}
    assert do(hook.list_artifacts, run.run_id, "nothing") == []
    with pytest.raises(MlflowNotFoundError):
        do(hook.download_artifact, run.run_id, "nothing.json")
    with pytest.raises(MlflowError, match="refers to a directory"):
        do(hook.download_artifact, run.run_id, "gate")
    with pytest.raises(InvalidArgumentError, match="max_bytes=3"):
        do(hook.download_artifact, run.run_id, "gate/report.json", max_bytes=3)


def test_what_is_not_there(hook: MlflowHook, do: Call) -> None:
    for operation, *args in [
        (hook.get_run, "nope"),
        (hook.delete_run, "nope"),
        (hook.set_tag, "nope", "k", "v"),
        (hook.get_logged_model, "m-nope"),
        (hook.list_artifacts, "nope"),
        (hook.upload_artifact, "nope", "a", b""),
        (hook.get_registered_model, "nope"),
        (hook.set_registered_model_tag, "nope", "k", "v"),
        (hook.delete_registered_model_tag, "nope", "k"),
        (hook.get_model_version, "nope", "1"),
        (hook.set_model_version_tag, "nope", "1", "k", "v"),
        (hook.get_model_version_by_alias, "nope", "champion"),
        (hook.set_alias, "nope", "champion", "1"),
        (hook.transition_stage, "nope", "1", "Staging"),
        (hook.delete_alias, "nope", "champion"),
    ]:
        with pytest.raises(MlflowNotFoundError):
            do(operation, *args)


def test_a_version_needs_a_logged_model_that_exists(hook: MlflowHook, do: Call, name: str) -> None:
    hook.create_registered_model(name)
    with pytest.raises(MlflowError, match="Unable to fetch model from model URI"):
        do(hook.create_model_version, name, "models:/m-nope")
    assert hook.search_model_versions(f"name = {filter_value(name)}") == []


def test_the_registry(hook: MlflowHook, do: Call, run: Run, name: str, mlflow_server: MlflowServer) -> None:
    model_id = log_model(run, "model", mlflow_server)
    assert do(hook.get_run, run.run_id).model_ids == (model_id,)
    logged = do(hook.get_logged_model, model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("model", "READY", run.run_id)
    assert do(hook.list_model_artifacts, model_id) == []

    assert do(hook.create_registered_model, name, {"team": "a"}, "for tests").name == name
    with pytest.raises(MlflowConflictError):
        do(hook.create_registered_model, name)
    do(hook.set_registered_model_tag, name, "claim", "me")
    made = do(hook.create_model_version, name, logged.uri, run.run_id, model_id, {"k": "v"}, "first")
    assert (made.version, made.status, made.model_id, made.run_id) == ("1", "READY", model_id, run.run_id)
    second = do(hook.create_model_version, name, logged.uri)
    assert second.model_id == model_id
    do(hook.set_model_version_tag, name, "1", "promoted", "yes")

    assert do(hook.get_model_version_by_alias, name, "champion") is None
    do(hook.set_alias, name, "champion", "1")
    do(hook.set_alias, name, "champion", second.version)
    do(hook.set_alias, name, "previous_champion", "1")
    assert do(hook.get_model_version_by_alias, name, "champion").version == "2"
    assert do(hook.get_model_version, name, "1").tags == {"k": "v", "promoted": "yes"}
    assert do(hook.get_model_version, name, "1").aliases == ("previous_champion",)

    model = do(hook.get_registered_model, name)
    assert (model.aliases, model.description) == ({"champion": "2", "previous_champion": "1"}, "for tests")
    assert model.tags == {"team": "a", "claim": "me"}
    query = f"name = {filter_value(name)}"
    found = do(hook.search_model_versions, query, ["version_number DESC"], 1)
    assert [item.version for item in found] == ["2"]
    assert len(do(hook.search_model_versions, query)) == 2

    assert do(hook.transition_stage, name, "1", "Production").current_stage == "Production"
    do(hook.transition_stage, name, "2", "Production", archive_existing=True)
    stages = {item.version: item.current_stage for item in do(hook.search_model_versions, query, max_results=None)}
    assert stages == {"1": "Archived", "2": "Production"}

    for _ in range(2):
        do(hook.delete_alias, name, "champion")
        do(hook.delete_registered_model_tag, name, "claim")
    assert do(hook.get_registered_model, name).tags == {"team": "a"}
    assert do(hook.get_model_version_by_alias, name, "champion") is None
    with pytest.raises(MlflowNotFoundError):
        do(hook.set_alias, name, "champion", "99")


class TestLostAnswers:
    """The server does what it was asked, and the connection breaks before it can say so."""

    @pytest.fixture
    def server(self, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
        with FaultyServer(mlflow_server.url) as server:
            connection = {"conn_type": "mlflow", "host": server.url}
            monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
            yield server

    def test_a_created_run_is_not_created_twice(self, server: FaultyServer, name: str) -> None:
        with MlflowHook() as hook:
            experiment_id = hook.get_or_create_experiment(name)
            server.fail("runs/create", lost_answer(), times=1)
            with pytest.raises(MlflowUnreachableError, match="the server may have done it"):
                hook.create_run(experiment_id, "a", {}, NOW)
            assert len(hook.search_runs([experiment_id])) == 1

    def test_repeating_what_was_done_changes_nothing(self, server: FaultyServer, name: str) -> None:
        for part in ("experiments/create", "log-batch", "mlflow-artifacts", "runs/update", "runs/delete"):
            server.fail(part, lost_answer(), times=1)
        with MlflowHook() as hook:
            run = hook.create_run(hook.get_or_create_experiment(name), "a", {}, NOW)
            hook.log_batch(run.run_id, {"m": 1.0}, {"p": "1"}, {"t": "1"}, NOW)
            hook.upload_artifact(run.run_id, "a.txt", b"x")
            hook.update_run(run.run_id, "FINISHED", NOW)
            assert hook.download_artifact(run.run_id, "a.txt") == b"x"
            hook.delete_run(run.run_id)
            read = hook.get_run(run.run_id)
        assert (read.metrics, read.params, read.status) == ({"m": 1.0}, {"p": "1"}, "FINISHED")
        assert [server.count(part) for part in ("experiments/create", "log-batch", "runs/delete")] == [2, 2, 2]
