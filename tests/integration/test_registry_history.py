"""``airflow-mcp registry`` and the doctor on a real MLflow registry, which somebody else also uses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mlflow import MlflowClient

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.core.registry.packed_moves import KEPT, PACKED_FROM
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from tests.support.mlflow_world import World, load_check_tags

pytestmark = pytest.mark.integration


def now() -> str:
    return datetime.now(UTC).isoformat()


def promote(world: World, version: str, expected: str) -> None:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    outcome = world.run(PromoteModelOperator, **arguments, reason="nightly", dag_run_id=f"run-{version}")
    assert outcome.state == "success", outcome.error


def ask(world: World, capsys: pytest.CaptureFixture[str], action: str, *times: str, form: str = "json") -> Any:
    capsys.readouterr()
    server = ["--tracking-uri", world.url, "--format", form]
    assert main(["registry", action, world.model_name, *times, *server]) == 0
    said = capsys.readouterr().out
    return json.loads(said) if form == "json" else said


def findings(world: World, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    capsys.readouterr()
    main(["doctor", "--no-cluster", "--tracking-uri", world.url, "--format", "json"])
    return {found["subject"]: found for found in json.loads(capsys.readouterr().out)["findings"]}


def test_what_was_in_production_when_is_answered_from_the_registry(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = world.versions(2)
    before = now()
    promote(world, "1", "none")
    between = now()
    promote(world, "2", "1")
    after = now()
    world.run(RollbackModelOperator, model_name=world.model_name, reason="bad scores", dag_run_id="run-back")

    document = ask(world, capsys, "history")
    assert [(change["action"], change["from"], change["to"]) for change in document["changes"]] == [
        ("promote", None, "1"),
        ("promote", "1", "2"),
        ("rollback", "2", "1"),
    ]
    assert [change["run_id"] for change in document["changes"]] == [versions[n].run_id for n in (0, 1, 0)]
    assert {change["gate_verdict"] for change in document["changes"]} == {"passed"}
    assert (document["champion"], document["unrecorded_moves"]) == ("1", [])
    latest = ask(world, capsys, "history", "--limit", "1")
    assert ([change["action"] for change in latest["changes"]], latest["earlier_changes"]) == (["rollback"], 2)
    assert "2 earlier changes are not shown: see --limit" in ask(world, capsys, "history", "--limit", "1", form="text")
    assert [ask(world, capsys, "at", time)["versions"] for time in (before, between, after, now())] == [
        [None],
        ["1"],
        ["2"],
        ["1"],
    ]
    told = ask(world, capsys, "at", between, form="text")
    assert f"{world.model_name} at {between}: version 1\n" in told
    assert f"by {world.dag_id}.task run-1: nightly" in told
    assert f"gate passed, MLflow run {versions[0].run_id}" in told
    assert "gate verdict     passed" in told


def test_a_long_history_is_packed_and_read_as_before(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.versions(3)
    for number in range(1, PACKED_FROM + 1):
        before, after = ("1", "2") if number % 2 else ("2", "1")
        at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)).isoformat()
        old = MoveRecord(
            "promote", f"{number:032x}", before if number > 1 else None, after, at, "nightly", number=number
        )
        world.hook.set_registered_model_tag(world.model_name, old.done_tag, old.to_tag())
    world.hook.set_alias(world.model_name, "champion", "1")
    promote(world, "3", "1")
    own = [name for name in world.registered.tags if name.startswith(contract.TAG_MOVE_PREFIX)]
    assert len(own) == KEPT
    document = ask(world, capsys, "history", "--limit", "1000")
    recorded = [change["to"] for change in document["changes"] if change["action"] != "unrecorded"]
    assert (len(recorded), recorded[:2], recorded[-1]) == (PACKED_FROM + 1, ["2", "1"], "3")
    assert ask(world, capsys, "at", "2026-01-01T00:01:30Z")["versions"] == ["2"]
    for name, value in load_check_tags("passed").items():
        world.hook.set_model_version_tag(world.model_name, "2", name, value)
    outcome = world.run(RollbackModelOperator, model_name=world.model_name, to_version="2", dag_run_id="on-call")
    assert (outcome.state, world.aliases) == ("success", {"champion": "2"}), outcome.error


def test_two_moments_are_compared_by_version_provenance_and_moves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = world.versions(2)
    for version, data in ((one, "v1"), (two, "v2")):
        world.hook.set_model_version_tag(world.model_name, version.version, contract.TAG_DATA_VERSION, data)
    promote(world, "1", "none")
    first = now()
    promote(world, "2", "1")
    second = now()
    document = ask(world, capsys, "diff", first, second)
    assert document == ask(world, capsys, "diff", second, first)
    assert [(change["from"], change["to"]) for change in document["changes"]] == [("1", "2")]
    assert document["provenance"] == {
        contract.TAG_DATA_VERSION: ["v1", "v2"],
        "airflow_mcp.mlflow_run": [one.run_id, two.run_id],
    }
    told = ask(world, capsys, "diff", first, second, form="text")
    assert "version 1 -> version 2:" in told
    assert "data version     v1 -> v2" in told
    assert "no changes" in ask(world, capsys, "diff", first, first, form="text")


def test_a_champion_moved_in_the_ui_is_shown_as_such_by_history_and_doctor(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.versions(3)
    promote(world, "1", "none")
    subject = f"MLflow alias of {world.model_name}"
    assert subject not in findings(world, capsys)
    MlflowClient(world.url).set_registered_model_alias(world.model_name, "champion", "3")
    document = ask(world, capsys, "history")
    assert document["changes"][-1]["action"] == "unrecorded"
    assert document["unrecorded_moves"] == [{"alias": "champion", "recorded": "1", "found": "3"}]
    text = ask(world, capsys, "history", form="text")
    assert "alias champion was moved outside airflow-mcp: it is at version 3" in text
    found = findings(world, capsys)[subject]
    assert found["level"] == "warning"
    assert f"'champion' is at 3, but the last recorded move (promote by {world.dag_id}.task run-1" in found["says"]
    promote(world, "2", "3")
    assert subject not in findings(world, capsys)
    assert [(change["action"], change["to"]) for change in ask(world, capsys, "history")["changes"]] == [
        ("promote", "1"),
        ("unrecorded", "3"),
        ("promote", "2"),
    ]


def test_a_champion_that_was_deleted_is_known_by_the_record_of_its_move(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = world.versions(1)
    promote(world, "1", "none")
    then = now()
    MlflowClient(world.url).delete_model_version(world.model_name, "1")
    document = ask(world, capsys, "at", then)
    assert "1" in document["versions"]
    assert document["provenance"] == {"1": None}
    assert document["since"]["run_id"] == version.run_id
    told = ask(world, capsys, "at", then, form="text")
    assert f"{world.model_name} at {then}: version 1 or no version" in told
    assert "version 1 was deleted; only the record of its move is left" in told
    assert "provenance cannot be compared" in ask(world, capsys, "diff", then, now(), form="text")


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("yesterday", "time must be ISO 8601 with an offset"),
        ("2026-11-21T08:00", "Without an offset"),
        ("2999-01-01T00:00Z", "time must be at or before now"),
    ],
)
def test_a_wrong_time_is_a_wrong_call(
    world: World, capsys: pytest.CaptureFixture[str], time: str, message: str
) -> None:
    world.versions(1)
    assert main(["registry", "at", world.model_name, time, "--tracking-uri", world.url]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_model_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "history", "nobody-knows-it", "--tracking-uri", world.url]) == 1
    assert "there is no registered model 'nobody-knows-it'" in capsys.readouterr().err
