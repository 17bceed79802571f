"""The hook: connection in, two faces out, no secret and no heavy import anywhere."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import InvalidArgumentError, MlflowProtocolError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.mlflow_client import api as mlflow_api
from airflow_mcp.mlflow_client import registry_api as mlflow_registry_api
from airflow_mcp.mlflow_client.operations import MlflowOperations, OperationMethod
from tests.support.fakes.faulty_server import FaultyServer, answer, html

RUN = '{"run": {"info": {"run_id": "r1", "experiment_id": "1", "status": "RUNNING"}}}'


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def connect(monkeypatch: pytest.MonkeyPatch, host: str, extra: dict[str, Any] | None = None, **fields: Any) -> None:
    connection = {"conn_type": "mlflow", "host": host, "extra": extra or {}, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))


def test_both_faces_ask_the_server_of_the_connection(monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
    connect(monkeypatch, server.url)
    server.fail("runs/get", answer(200, RUN))
    with MlflowHook() as hook:
        assert hook.get_run("r1").run_id == "r1"
    assert server.count("runs/get") == 1


async def test_the_awaiting_face_finds_its_connection_too(
    monkeypatch: pytest.MonkeyPatch, server: FaultyServer
) -> None:
    connect(monkeypatch, server.url, {"token": "s3cret-token"})
    server.fail("runs/get", answer(200, RUN))
    run = await MlflowHook().get_run.aio("r1")
    assert run.run_id == "r1"
    assert server.seen[0].headers["authorization"] == "Bearer s3cret-token"


def test_every_operation_of_the_api_is_a_method_with_its_docstring() -> None:
    helpers = {"require", "filter_value", "artifact_path", "key_values", "wire_number", "paged"}
    internal = {"check_server", "server_version"}
    described = {
        name
        for module in (mlflow_api, mlflow_registry_api)
        for name, value in vars(module).items()
        if inspect.isgeneratorfunction(value) and not name.startswith("_")
    }
    methods = {name: value for name, value in vars(MlflowOperations).items() if isinstance(value, OperationMethod)}
    assert set(methods) == described - helpers - internal
    for name in methods:
        bound = getattr(MlflowHook(), name)
        assert bound.__name__ == name
        assert bound.__doc__


def test_the_signature_of_a_method_is_the_operations() -> None:
    assert str(inspect.signature(MlflowHook().get_run)).startswith("(run_id: 'str')")


def test_links_use_the_address_that_people_see(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://mlflow:5000", {"ui_url": "https://ml.example.com/"})
    hook = MlflowHook()
    run = Run(run_id="r1", experiment_id="7", status="RUNNING")
    assert hook.run_url(run) == "https://ml.example.com/#/experiments/7/runs/r1"
    assert hook.model_version_url("a b", "3") == "https://ml.example.com/#/models/a%20b/versions/3"


@pytest.mark.parametrize(
    ("extra", "fields", "plain", "secret"),
    [
        ({}, {}, {}, {}),
        ({"verify": False}, {}, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}, {}),
        ({"ca_bundle": __file__}, {}, {"MLFLOW_TRACKING_SERVER_CERT_PATH": __file__}, {}),
        ({"token": "s3cret"}, {}, {}, {"MLFLOW_TRACKING_TOKEN": "s3cret"}),
        (
            {},
            {"login": "ann", "password": "pw-secret"},
            {},
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw-secret"},
        ),
    ],
)
def test_a_workload_gets_address_and_secrets_apart(
    monkeypatch: pytest.MonkeyPatch,
    extra: dict[str, Any],
    fields: dict[str, Any],
    plain: dict[str, str],
    secret: dict[str, str],
) -> None:
    connect(monkeypatch, "https://mlflow:5000/base/", extra, **fields)
    assert MlflowHook().workload_environment() == (
        {"MLFLOW_TRACKING_URI": "https://mlflow:5000/base", **plain},
        secret,
    )


def test_a_workspace_reaches_links_and_workloads(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "https://mlflow:5000", {"workspace": "team-a"})
    hook = MlflowHook()
    run = Run("r1", "7", "FINISHED")
    assert hook.run_url(run) == "https://mlflow:5000/#/experiments/7/runs/r1?workspace=team-a"
    artifact = "https://mlflow:5000/#/experiments/7/runs/r1/artifacts/a.json?workspace=team-a"
    assert hook.artifact_url(run, "a.json") == artifact
    assert hook.model_version_url("m", "1") == "https://mlflow:5000/#/models/m/versions/1?workspace=team-a"
    assert hook.workload_environment()[0]["MLFLOW_WORKSPACE"] == "team-a"


def test_a_bad_connection_is_refused_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "")
    hook = MlflowHook()
    with pytest.raises(InvalidArgumentError, match="connection 'mlflow_default': host is missing"):
        hook.get_run("r1")


class TestTestConnection:
    def test_it_tells_the_version(self, monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
        connect(monkeypatch, server.url)
        server.fail("health", answer(200, "OK"))
        server.fail("version", answer(200, "3.17.2"))
        server.fail("experiments/search", answer(200, "{}"))
        assert MlflowHook().test_connection() == (True, f"MLflow 3.17.2 answers at {server.url}")

    @pytest.mark.parametrize("version", ["2.22.1", "3.0.1", "3.9.0"])
    def test_a_server_that_is_too_old_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, server: FaultyServer, version: str
    ) -> None:
        connect(monkeypatch, server.url)
        server.fail("health", answer(200, "OK"))
        server.fail("version", answer(200, version))
        server.fail("experiments/search", answer(200, "{}"))
        said = f"{server.url}: MLflow {version} is too old: upgrade the server to 3.10 or newer"
        assert MlflowHook().test_connection() == (False, said)

    def test_it_tells_what_is_wrong_without_raising_or_repeating(
        self, monkeypatch: pytest.MonkeyPatch, server: FaultyServer
    ) -> None:
        connect(monkeypatch, server.url)
        server.fail("", answer(503), times=1)
        server.fail("", html())
        hook = MlflowHook()
        assert hook.test_connection()[1].count("HTTP 503") == 1
        ok, message = hook.test_connection()
        assert not ok
        assert "this is not MLflow's API" in message

    def test_a_missing_connection_is_an_answer_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT", raising=False)
        connect(monkeypatch, "ftp://x")
        assert MlflowHook().test_connection() == (
            False,
            "connection 'mlflow_default': host must be a URL like https://mlflow.example.com/base; got 'ftp://x'. "
            "No request was sent",
        )


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_no_secret_reaches_a_log_a_message_or_a_repr(monkeypatch: pytest.MonkeyPatch, server: FaultyServer) -> None:
    connect(monkeypatch, server.url, {"token": "s3cret-token", "retries": 1})
    server.fail("", answer(503, '{"message": "bad token s3cret-token"}', retry_after="0"), times=1)
    server.fail("", answer(200, "s3cret-token"))
    collector, root = _Collector(), logging.getLogger()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        hook = MlflowHook()
        with pytest.raises(MlflowProtocolError) as caught:
            hook.get_run("r1")
        hook.close()
    finally:
        root.removeHandler(collector)
        root.setLevel(level)
    ours = [line for line in collector.lines if "asking again" in line]
    assert len(ours) == 1
    shown = [*collector.lines, str(caught.value), repr(caught.value), repr(hook), repr(vars(hook))]
    assert not any("s3cret-token" in text for text in shown)


def test_the_token_is_registered_with_airflows_masker(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.log import redact

    connect(monkeypatch, "http://mlflow:5000", {"token": "a-token-to-mask"})
    assert MlflowHook().settings.token == "a-token-to-mask"
    assert "a-token-to-mask" not in str(redact("log line with a-token-to-mask"))


def test_importing_the_hook_loads_no_mlflow_and_next_to_nothing_beyond_airflow() -> None:
    code = (
        "import sys; import airflow.sdk; from airflow.sdk import BaseHook; before = set(sys.modules);"
        "import airflow_mcp.hooks.mlflow;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)), 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "['airflow_mcp'] False"
