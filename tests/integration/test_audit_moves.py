"""Moves of a real registry with an audit log: intent before, outcome after, whatever is down in between."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.postgresql import PostgresAuditLog, connect
from airflow_mcp.audit.sqlite import SqliteAuditLog
from airflow_mcp.audit.stores import open_log
from airflow_mcp.core.audit.log import export
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.core.audit.verify import verify
from airflow_mcp.core.registry.moves import read_last_move
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator
from tests.support.audit_log import ACTOR, Logs, sqlite_logs
from tests.support.mlflow_world import World, kill_points
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration


@pytest.fixture
def logs(audit_logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Logs:
    _configure(audit_logs, monkeypatch)
    return audit_logs


@pytest.fixture
def in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    found = sqlite_logs(tmp_path)
    _configure(found, monkeypatch)
    return found


def _configure(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the log Airflow's, for the login that releases."""
    settings = logs.as_login("mcp_release")
    if logs.is_postgresql:
        fields = {"host": settings.host, "port": settings.port, "schema": settings.database, "login": settings.login}
        extra = {}
    else:
        fields, extra = {}, {"sqlite_path": settings.sqlite_path}
    connection = {"conn_type": "audit_log", **fields, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")


def promote(world: World, version: str, expected: str, **options: Any) -> TaskOutcome:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    return world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{version}", **options)


def roll_back(world: World, **options: Any) -> TaskOutcome:
    return world.run(RollbackModelOperator, model_name=world.model_name, reason="worse", dag_run_id="back", **options)


def records(logs: Logs) -> list[Record]:
    """Return the records of moves, after checking that the log is whole."""
    log = open_log(logs.as_login("mcp_keeper"))
    with closing(log):
        lines = list(log.read(export(ACTOR, "dev", reason="test")))
    assert verify(lines, deep=True).is_whole
    found = [read_record(line.decode()) for line in lines]
    return [record for record in found if record.event["action"].startswith("registry.")]


def actions(logs: Logs) -> list[str]:
    return [record.event["action"].removeprefix("registry.") for record in records(logs)]


class Down:
    """Takes a log down for real at its n-th use: its database accepts nobody, or its file is locked.

    :param after: uses that still succeed.
    """

    def __init__(self, logs: Logs, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
        self.logs, self.left = logs, after
        self._lock: sqlite3.Connection | None = None
        monkeypatch.setattr("airflow_mcp.audit.sqlite.BUSY_TIMEOUT", 0.1)
        for store in (PostgresAuditLog, SqliteAuditLog):
            for name in ("append", "facts"):
                monkeypatch.setattr(store, name, self._counted(getattr(store, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                self._take_down()
            self.left -= 1
            return method(*arguments, **named)

        return counted

    def _take_down(self) -> None:
        if self.logs.is_postgresql:
            self._allow_connections("false")
            self._of_server("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", self._database)
        else:
            self._lock = sqlite3.connect(self.logs.owner.sqlite_path, isolation_level=None)
            self._lock.execute("BEGIN IMMEDIATE")

    def up(self) -> None:
        if self.logs.is_postgresql:
            self._allow_connections("true")
        elif self._lock is not None:
            self._lock.close()

    @property
    def _database(self) -> str:
        return self.logs.owner.database

    def _allow_connections(self, value: str) -> None:
        self._of_server(f"ALTER DATABASE {self._database} WITH ALLOW_CONNECTIONS {value}")

    def _of_server(self, statement: str, *values: str) -> None:
        with closing(connect(replace(self.logs.owner, database="postgres"))) as connection:
            connection.cursor().execute(statement, values or None)


def test_a_promotion_is_an_intent_and_an_outcome_that_names_it(world: World, logs: Logs) -> None:
    world.versions(2)
    assert promote(world, "1", "none").state == "success"
    assert promote(world, "2", "1", reason="better").state == "success"
    assert roll_back(world).state == "success"
    found = records(logs)
    assert actions(logs) == ["move_intended", "moved"] * 3
    intent, outcome = found[2], found[3]
    assert outcome.event["refs"] == [intent.seq]
    assert (outcome.event["old"]["champion"], outcome.event["new"]["champion"]) == ("1", "2")
    assert outcome.event["subject"] == f"model:{world.model_name}"
    assert (outcome.event["reason"], outcome.event["late"]) == ("better", False)
    assert outcome.event["task"]["dag_run_id"] == "run-2"
    assert outcome.event["actor"] == intent.event["actor"]
    assert found[5].event["new"]["action"] == "rollback"
    # The outcomes alone give the champions that the registry has.
    assert found[-1].event["new"]["champion"] == world.aliases["champion"] == "1"


def test_a_stage_move_is_recorded_too(world: World, in_a_file: Logs) -> None:
    world.versions(1)
    arguments = {"model_name": world.model_name, "version": "1", "stage": "Staging"}
    assert world.run(TransitionModelStageOperator, **arguments).state == "success"
    assert world.run(TransitionModelStageOperator, **arguments, try_number=2).state == "success"
    assert actions(in_a_file) == ["stage_intended", "stage_moved"]
    assert records(in_a_file)[1].event["new"]["stages"] == {"Staging": "1"}


@pytest.mark.parametrize("uses", [0, 1], ids=["before the policy is read", "before the intent"])
def test_nothing_moves_while_the_log_is_down(
    world: World, logs: Logs, monkeypatch: pytest.MonkeyPatch, uses: int
) -> None:
    world.versions(1)
    down = Down(logs, monkeypatch, after=uses)
    outcome = promote(world, "1", "none")
    assert outcome.state == "up_for_retry"
    assert "Nothing was moved: a move is recorded before it is made" in str(outcome.error)
    assert (world.aliases, world.claims) == ({}, [])
    down.up()
    assert promote(world, "1", "none", try_number=2).state == "success"
    assert actions(logs) == ["move_intended", "moved"]


@pytest.mark.parametrize("uses", [2, 3], ids=["before the facts", "before the outcome"])
def test_a_log_that_goes_down_after_the_move_gets_the_outcome_from_the_retry(
    world: World, logs: Logs, monkeypatch: pytest.MonkeyPatch, uses: int
) -> None:
    world.versions(1)
    down = Down(logs, monkeypatch, after=uses)
    assert promote(world, "1", "none").state != "success"
    assert world.aliases["champion"] == "1"
    down.up()
    assert actions(logs) == ["move_intended"]
    retry = promote(world, "1", "none", try_number=2)
    assert retry.state == "success"
    assert actions(logs) == ["move_intended", "moved"]
    assert records(logs)[1].event["late"] is False
    assert promote(world, "1", "none", try_number=3).state == "success"
    assert actions(logs) == ["move_intended", "moved"]


def test_a_rollback_goes_on_without_the_log_and_is_recorded_late(
    world: World, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.versions(2)
    promote(world, "1", "none")
    promote(world, "2", "1")
    down = Down(logs, monkeypatch)
    outcome = roll_back(world)
    assert outcome.state == "success"
    last = read_last_move(world.registered.tags)
    assert last is not None
    assert (last.audit, world.aliases["champion"]) == ("pending", "1")
    down.up()
    assert actions(logs) == ["move_intended", "moved"] * 2
    assert roll_back(world, try_number=2).state == "success"
    late = records(logs)[-1].event
    assert (late["action"], late["late"], late["refs"]) == ("registry.moved", True, [])
    assert late["actor"]["name"] == last.by


def test_a_rollback_waits_for_the_log_where_that_is_configured(
    world: World, in_a_file: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.versions(2)
    promote(world, "1", "none")
    promote(world, "2", "1")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ROLLBACK_WITHOUT_AUDIT", "false")
    down = Down(in_a_file, monkeypatch)
    assert "Nothing was moved" in str(roll_back(world).error)
    assert world.aliases["champion"] == "2"
    down.up()
    assert roll_back(world, try_number=2).state == "success"
    assert world.aliases["champion"] == "1"


def test_prod_promotes_nothing_without_a_log(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.versions(2)
    promote(world, "1", "none")
    promote(world, "2", "1")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__ENVIRONMENT", "prod")
    refused = promote(world, "1", "2", try_number=9, task_id="again")
    assert refused.state == "failed"
    assert "environment prod promotes only what an audit log records" in str(refused.error)
    assert world.aliases["champion"] == "2"
    assert roll_back(world).state == "success"


def test_a_wrong_connection_stops_a_promotion_and_not_a_rollback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.versions(2)
    promote(world, "1", "none")
    promote(world, "2", "1")
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "nowhere")
    refused = promote(world, "1", "2", task_id="again")
    assert "there is no such connection" in str(refused.error)
    assert world.aliases["champion"] == "2"
    assert roll_back(world).state == "success"


def test_a_task_that_is_killed_after_any_write_leaves_one_outcome_that_names_its_intent(
    world: World, in_a_file: Logs
) -> None:
    base, kills = world.model_name, 0
    for switch in kill_points():
        world.model_name = f"{base}-{kills}"
        world.versions(1)
        first = promote(world, "1", "none", before=switch.arm)
        if not switch.has_fired:
            assert first.state == "success"
            break
        kills += 1
        world.let_claims_run_out()
        retry = promote(world, "1", "none", try_number=2)
        assert retry.state == "success", retry.error
    assert kills >= 4
    found = records(in_a_file)
    for number in range(kills + 1):
        own = [record for record in found if record.event["subject"] == f"model:{base}-{number}"]
        assert [record.event["action"] for record in own] == ["registry.move_intended", "registry.moved"]
        assert own[1].event["refs"] == [own[0].seq]


def test_without_a_log_nothing_is_recorded_and_everything_works(world: World, tmp_path: Path) -> None:
    world.versions(1)
    assert promote(world, "1", "none").state == "success"
    assert not any(tmp_path.rglob("log.db"))


def test_an_event_of_a_move_holds_no_clock_of_the_try(world: World, in_a_file: Logs) -> None:
    world.versions(1)
    promote(world, "1", "none")
    intent = records(in_a_file)[0].event
    assert "at" not in intent["new"]
    assert "number" not in intent["new"]
