"""What an account needs on an MLflow server with its basic-auth app, action by action."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.registry.history import unrecorded_moves
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.sensors.registry import ModelAliasSensor, ModelVersionSensor
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer
from tests.support.task_harness import TaskOutcome

pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs Flask-WTF")
pytestmark = pytest.mark.integration
ADMIN, PASSWORD = "admin", "a-long-password-1"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with basic_auth(tmp_path_factory.mktemp("basic-auth"), "NO_PERMISSIONS") as server:
        yield server


@pytest.fixture(scope="module")
def readable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server on which every account may read everything."""
    with basic_auth(tmp_path_factory.mktemp("basic-auth-read"), "READ") as server:
        yield server


def basic_auth(folder: Path, default_permission: str) -> MlflowServer:
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = {default_permission}\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
    )
    env = {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    return MlflowServer(folder, options=("--app-name", "basic-auth"), env=env)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """What the administrator sees; it has three versions, of which the first is champion, and a challenger."""
    server: MlflowServer = request.getfixturevalue(getattr(request, "param", "guarded"))
    connection = {"conn_type": "mlflow", "host": server.url, "login": ADMIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps(connection))
    world = World(server.url, tmp_path)
    world.versions(3)
    for alias, version in (("champion", "1"), ("challenger", "2")):
        world.hook.set_alias(world.model_name, alias, version)
    yield world
    world.hook.close()


def administer(world: World, path: str, **body: str) -> None:
    login = base64.b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
    headers = {"content-type": "application/json", "authorization": f"Basic {login}"}
    request = urllib.request.Request(f"{world.url}/api/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def account(world: World, on_model: str | None, on_experiment: str | None = "READ") -> dict[str, str]:
    """Create an account with these rights; return its fields of a connection."""
    name = f"user-{world.model_name}"
    administer(world, "2.0/mlflow/users/create", username=name, password=PASSWORD)
    wanted = [("experiment", world.experiment_id, on_experiment)] if on_experiment else []
    wanted += [("registered_model", world.model_name, on_model)] if on_model else []
    for kind, resource, right in wanted:
        named = {"username": name, "resource_type": kind, "resource_id": resource, "permission": right}
        administer(world, "3.0/mlflow/users/permissions/grant", **named)
    return {"login": name, "password": PASSWORD}


def promote(world: World, login: dict[str, str], **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "version": "2", "expected_champion": "1", **options}
    return world.run(PromoteModelOperator, connection=login, **arguments)


def roll_back(world: World, login: dict[str, str], **options: Any) -> TaskOutcome:
    return world.run(RollbackModelOperator, connection=login, model_name=world.model_name, **options)


@pytest.mark.parametrize("right", ["READ", None])
def test_without_edit_nothing_is_promoted_and_nothing_is_moved(world: World, right: str | None) -> None:
    outcome = promote(world, account(world, right))
    assert (outcome.state, "403" in str(outcome.error)) == ("up_for_retry", True)
    assert world.aliases == {"champion": "1", "challenger": "2"}
    assert read_history(world.registered.tags) == ()


@pytest.mark.parametrize(("right", "challenger"), [("EDIT", {"challenger": "2"}), ("MANAGE", {})])
def test_with_edit_a_challenger_is_promoted_and_recorded_and_with_manage_its_alias_goes(
    world: World, right: str, challenger: dict[str, str]
) -> None:
    login = account(world, right)
    outcome = promote(world, login)
    assert outcome.state == "success", outcome.error
    assert world.aliases == {"champion": "2", "previous_champion": "1", **challenger}
    assert [move.champion_after for move in read_history(world.registered.tags)] == ["2"]
    assert world.claims == []
    retry = promote(world, login, try_number=2)
    assert (retry.state, retry.result["moved"]) == ("success", False)


@pytest.mark.parametrize(("right", "left"), [("EDIT", {"previous_champion": "1"}), ("MANAGE", {})])
def test_with_edit_a_rollback_is_done_and_recorded_and_with_manage_the_way_back_goes(
    world: World, right: str, left: dict[str, str]
) -> None:
    login = account(world, right)
    world.hook.delete_alias(world.model_name, "challenger")
    promote(world, login)
    assert roll_back(world, login, dag_run_id="on-call").state == "success"
    assert world.aliases == {"champion": "1", **left}
    assert [move.action for move in read_history(world.registered.tags)] == ["promote", "rollback"]
    assert unrecorded_moves(world.registered) == ()
    again = roll_back(world, login, dag_run_id="on-call-2")
    assert (again.state, "no champion to go back to" in str(again.error)) == ("failed", True)
    assert promote(world, login, version="3", dag_run_id="night-2").state == "success"
    assert roll_back(world, login, dag_run_id="on-call-3").state == "success"
    assert world.aliases == {"champion": "1", **left}


@pytest.mark.parametrize("exists", [False, True])
def test_an_account_that_may_edit_the_experiment_registers_a_new_model_and_owns_it(world: World, exists: bool) -> None:
    login = account(world, None, "EDIT")
    run, model_id = world.judged_model()
    name = world.model_name if exists else f"{world.model_name}.new"
    arguments = {"model_name": name, "model_uri": f"models:/{model_id}"}
    outcome = world.run(RegisterModelOperator, connection=login, **arguments)
    if exists:
        assert outcome.state in ("failed", "up_for_retry")
        assert len(world.all_versions()) == 3
        return
    assert outcome.state == "success", outcome.error
    assert world.hook.get_run(run.run_id).tags[contract.TAG_MODEL_VERSION] == f"{name}/1"


@pytest.mark.parametrize("sensor", [ModelAliasSensor, ModelVersionSensor])
def test_a_sensor_waits_for_a_model_that_does_not_exist_yet(world: World, sensor: type[ModelAliasSensor]) -> None:
    login = account(world, None)
    given = {"model_name": f"{world.model_name}.new", "timeout": 1, "poke_interval": 0.2, "deferrable": False}
    given |= {"alias": "champion"} if sensor is ModelAliasSensor else {"version": "1"}
    outcome = world.run(sensor, connection=login, **given)
    assert outcome.state == "failed"
    assert "timed out" in str(outcome.error)
    mlflow = DirectMlflow(MlflowSettings("account", world.url, world.url, login["login"], login["password"]))
    assert champion_of(mlflow, f"{world.model_name}.new") is None
    mlflow.close()


def test_an_account_that_may_read_no_runs_sees_the_champion_and_that_its_verdict_is_not_known(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = {"login": ADMIN, "password": PASSWORD}
    assert promote(world, admin).state == "success"
    login = account(world, "READ", None)
    assert command(world, login, monkeypatch, "status", world.model_name) == 0
    said = capsys.readouterr().out
    assert "champion: version 2" in said
    assert "WARNING: its gate verdict is not known" in said
    assert command(world, login, monkeypatch, "status") == 0
    assert f"{world.model_name}  version 2" in capsys.readouterr().out


# --- every account may read everything -------------------------------------------------------------------------------

on_readable = pytest.mark.parametrize("world", ["readable"], indirect=True)


def command(world: World, login: dict[str, str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", login["login"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", login["password"])
    return main([*arguments, "--tracking-uri", world.url])


@on_readable
def test_where_everybody_reads_an_account_without_rights_sees_the_status_and_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    login = account(world, None)
    assert command(world, login, monkeypatch, "status") == 0
    assert world.model_name in capsys.readouterr().out
    assert command(world, login, monkeypatch, "status", world.model_name) == 0
    back = ("rollback", world.model_name, "--to-version", "2", "--reason", "bad", "--yes")
    assert command(world, login, monkeypatch, *back) == 1
    assert "403" in capsys.readouterr().err
    outcome = promote(world, login)
    assert (outcome.state, "403" in str(outcome.error)) == ("up_for_retry", True)
    assert world.aliases == {"champion": "1", "challenger": "2"}
    assert (world.claims, read_history(world.registered.tags)) == ([], ())


@on_readable
def test_where_everybody_reads_a_model_that_does_not_exist_is_told_from_one_that_does(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    login = account(world, None, "EDIT")
    assert command(world, login, monkeypatch, "status", f"{world.model_name}x") == 1
    assert f"Did you mean '{world.model_name}'?" in capsys.readouterr().err
    mlflow = DirectMlflow(MlflowSettings("account", world.url, world.url, login["login"], login["password"]))
    champion = champion_of(mlflow, world.model_name)
    assert (champion and champion.version, champion_of(mlflow, f"{world.model_name}.new")) == ("1", None)
    mlflow.close()
    _, model_id = world.judged_model()
    for name, state in ((world.model_name, "up_for_retry"), (f"{world.model_name}.new", "success")):
        given = {"model_name": name, "model_uri": f"models:/{model_id}"}
        outcome = world.run(RegisterModelOperator, connection=login, **given)
        assert outcome.state == state, outcome.error


@on_readable
def test_where_everybody_reads_edit_on_the_model_is_enough_to_roll_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = account(world, "EDIT")
    back = ("rollback", world.model_name, "--to-version", "2", "--reason", "bad", "--yes")
    assert command(world, login, monkeypatch, *back) == 0
    assert world.aliases == {"champion": "2", "challenger": "2"}
    (move,) = read_history(world.registered.tags)
    assert (move.action, move.champion_before, move.champion_after) == ("rollback", "1", "2")
