"""``airflow-mcp registry`` with stages, ``set-stage``, ``migrate-stages``, ``mirror-stages``, on a real registry."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from mlflow import MlflowClient

from airflow_mcp.cli import main
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.core.registry.stage_migration import plan_migration
from airflow_mcp.core.registry.stages import read_stage_moves
from airflow_mcp.mlflow_client import paging
from airflow_mcp.operators.registry import PromoteModelOperator, RollbackModelOperator
from airflow_mcp.registry.stages import read_with_versions
from tests.support.fakes.faulty_server import FaultyServer, answer
from tests.support.mlflow_world import World

pytestmark = pytest.mark.integration


class CommandLine:
    """Calls ``airflow-mcp registry`` on one server."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.capsys, self.url = world, capsys, world.url

    def __call__(self, action: str, *arguments: str, code: int = 0) -> str:
        self.capsys.readouterr()
        assert main(["registry", action, *arguments, "--tracking-uri", self.url]) == code
        said = self.capsys.readouterr()
        return said.out if code != 2 else said.err

    def json(self, action: str, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(action, *arguments, "--format", "json", code=code))

    def set_own(self, version: str, stage: str, name: str = "") -> None:
        """Set MLflow's own stage, as an old tool does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            MlflowClient(self.url).transition_model_version_stage(name or self.world.model_name, version, stage)

    @property
    def stages(self) -> dict[str, str]:
        rows = self.json("stages", self.world.model_name)["versions"]
        return {row["version"]: row["stage"] for row in rows}


@pytest.fixture
def registry(world: World, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(world, capsys)


def promote(world: World, version: str, expected: str) -> None:
    arguments = {"model_name": world.model_name, "version": version, "expected_champion": expected}
    assert world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{version}").state == "success"


# --- stages ----------------------------------------------------------------------------------------------------------
def test_the_stage_of_every_version_is_told_with_what_puts_it_there(registry: CommandLine, world: World) -> None:
    world.versions(4)
    promote(world, "1", "none")
    promote(world, "2", "1")
    world.hook.set_alias(world.model_name, "challenger", "3")
    registry.set_own("2", "Production")
    registry.set_own("1", "Production")
    document = registry.json("stages", world.model_name)
    assert [(row["version"], row["stage"], row["why"]) for row in document["versions"]] == [
        ("4", "None", "no alias and no record"),
        ("3", "Staging", "alias challenger"),
        ("2", "Production", "alias champion"),
        ("1", "Archived", "was champion"),
    ]
    assert document["drift"] == [
        {"version": "1", "stage": "Archived", "mlflow_stage": "Production"},
        {"version": "3", "stage": "Staging", "mlflow_stage": "None"},
    ]
    told = registry("stages", world.model_name)
    assert "      1  Archived   !Production   was champion" in told
    assert "      2  Production  Production   alias champion" in told
    assert "deprecated stage of 2 version(s) differs; the aliases decide" in told


# --- set-stage -------------------------------------------------------------------------------------------------------
def test_a_person_sets_stages_and_the_history_says_who_and_why(registry: CommandLine, world: World) -> None:
    world.versions(2)
    name = world.model_name
    told = registry("set-stage", name, "1", "staging", "--reason", "looks good")
    assert told == f"{name}: version 1 is now in Staging\n"
    assert registry("set-stage", name, "1", "Staging") == f"{name}: version 1 is already in Staging\n"
    registry("set-stage", name, "1", "Production", "--expected-champion", "none", "--reason", "go")
    arguments = ("set-stage", name, "2", "Production", "--expected-champion", "1")
    assert "archive_existing must be true because version 1 is in Production" in registry(*arguments, code=2)
    registry(*arguments, "--archive-existing")
    assert registry.stages == {"1": "Archived", "2": "Production"}
    document = registry.json("history", name)
    assert [(change["action"], change["to"], change["reason"]) for change in document["changes"]] == [
        ("promote", "1", "go"),
        ("promote", "2", ""),
    ]
    (moved,) = document["stage_moves"]
    assert (moved["action"], moved["stages"], moved["reason"]) == ("transition", {"Staging": "1"}, "looks good")
    assert moved["by"].endswith(" airflow-mcp")
    assert "transition  1 -> Staging\n" in registry("history", name)


def test_production_needs_what_a_promotion_needs(registry: CommandLine, world: World) -> None:
    world.versions(1, None)
    arguments = ("set-stage", world.model_name, "1", "Production")
    assert "--expected-champion must be the version that is champion now" in registry(*arguments, code=2)
    registry(*arguments, "--expected-champion", "none", code=1)
    assert world.aliases == {}
    registry(*arguments, "--expected-champion", "none", "--no-gate")
    assert world.aliases == {"champion": "1"}


# --- migrate-stages --------------------------------------------------------------------------------------------------
def old_fashioned(registry: CommandLine, *stages: str) -> None:
    """Make versions of this test's model that only MLflow's own stages tell apart."""
    registry.world.versions(len(stages))
    for number, stage in enumerate(stages, 1):
        registry.set_own(str(number), stage)


def test_a_migration_is_said_then_done_then_done_already(registry: CommandLine, world: World) -> None:
    old_fashioned(registry, "Archived", "Archived", "Production", "Staging", "None")
    name = world.model_name
    said = registry("migrate-stages", name)
    assert "alias champion: none -> 3 (Production)" in said
    assert "alias challenger: none -> 4 (Staging)" in said
    assert "recorded as Archived: 1-2" in said
    assert "Nothing was changed. Pass --apply to migrate." in said
    assert (world.aliases, world.registered.tags) == ({}, {})
    registry("migrate-stages", name, "--apply", "--reason", "off stages")
    assert world.aliases == {"champion": "3", "challenger": "4"}
    assert registry.stages == {"1": "Archived", "2": "Archived", "3": "Production", "4": "Staging", "5": "None"}
    assert registry.json("stages", name)["drift"] == []
    (move,) = read_history(world.registered.tags)
    (stage_move,) = read_stage_moves(world.registered)
    assert (move.action, move.champion_after, move.reason) == ("migrate", "3", "off stages")
    assert move.run_id == world.hook.get_model_version(name, "3").run_id
    assert (stage_move.action, stage_move.reason) == ("migrate", "off stages")
    assert registry.json("history", name)["unrecorded_moves"] == []
    before = world.registered
    assert "1 models: 0 migrated, 1 with nothing to do" in registry("migrate-stages", name, "--apply")
    promote(world, "4", "3")
    assert registry.json("migrate-stages", name)["models"][0]["status"] == "done"
    world.run(RollbackModelOperator, model_name=name, dag_run_id="back")
    assert registry.json("migrate-stages", name)["models"][0]["status"] == "done"
    assert before.aliases == {"champion": "3", "challenger": "4"}


def test_what_only_a_person_can_decide_is_refused_with_the_option_that_decides(
    registry: CommandLine, world: World
) -> None:
    old_fashioned(registry, "Production", "Production", "Staging", "None")
    world.hook.set_alias(world.model_name, "challenger", "4")
    name = world.model_name
    refused = registry("migrate-stages", name, "--apply", code=1)
    assert "REFUSED: versions 1-2 are all in Production" in refused
    assert "REFUSED: alias challenger is at version 4, but version 3 is in Staging" in refused
    assert world.aliases == {"challenger": "4"}
    registry("migrate-stages", name, "--apply", "--newest", "--prefer", "stages")
    assert world.aliases == {"champion": "2", "challenger": "3"}
    assert registry.stages == {"1": "Archived", "2": "Production", "3": "Staging", "4": "None"}


def test_a_migration_that_breaks_off_anywhere_is_completed_by_the_next(registry: CommandLine, world: World) -> None:
    broken = 0
    for number in range(1, 60, 3):
        world.model_name = f"{world.model_name.split('.')[0]}.{number}"
        old_fashioned(registry, "Archived", "Production", "Staging")
        with FaultyServer(world.url) as server:
            _break_after(server, number)
            code = main(["registry", "migrate-stages", world.model_name, "--apply", "--tracking-uri", server.url])
        if code == 0:
            break
        broken += 1
        world.let_claims_run_out()
        registry("migrate-stages", world.model_name, "--apply")
        assert world.aliases == {"champion": "2", "challenger": "3"}
        assert registry.stages == {"1": "Archived", "2": "Production", "3": "Staging"}
        assert [change["to"] for change in registry.json("history", world.model_name)["changes"]] == ["2"]
    assert broken >= 5


def _break_after(server: FaultyServer, number: int) -> None:
    """Let that many requests through, and none after them."""
    handle = server.handle

    def counted(request: Any) -> Any:
        if len(server.seen) >= number:
            server.fail("", answer(403, '{"error_code": "PERMISSION_DENIED", "message": "no"}'))
        return handle(request)

    server.handle = counted  # type: ignore[method-assign]


def test_many_models_are_read_page_by_page_and_one_that_is_refused_stops_no_other(
    second_world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_SIZE", 5)
    world, registry = second_world, CommandLine(second_world, capsys)
    _, model_id = world.judged_model()
    names = [f"{world.model_name}-{number:02}" for number in range(12)]
    for number, name in enumerate(names):
        world.hook.create_registered_model(name)
        for version in ("1", "2"):
            world.hook.create_model_version(name, f"models:/{model_id}")
            if version == "1" or number == 7:
                registry.set_own(version, "Production", name)
    document = registry.json("migrate-stages", "--all", "--apply", code=1)
    ours = {one["model_name"]: one["status"] for one in document["models"] if one["model_name"] in names}
    assert ours == {name: "refused" if name == names[7] else "to migrate" for name in names}
    assert [world.hook.get_registered_model(name).aliases for name in names] == [
        {} if name == names[7] else {"champion": "1"} for name in names
    ]


def test_of_models_without_stages_no_versions_are_read(world: World) -> None:
    class Reading:
        """The registry of this test alone, and what is asked about versions."""

        def __init__(self) -> None:
            self.asked: list[str] = []

        def search_registered_models(self) -> list[Any]:
            return world.hook.search_registered_models(f"name LIKE '{world.model_name}%'")

        def search_model_versions(self, where: str, max_results: int | None) -> list[Any]:
            self.asked.append(where)
            return world.hook.search_model_versions(where, max_results=max_results)

    prefix = world.model_name
    for kind in ("staged", "free"):
        world.model_name = f"{prefix}.{kind}"
        world.versions(3)
    world.model_name = prefix
    world.hook.transition_stage(f"{prefix}.staged", "1", "Archived")
    reading = Reading()
    read = {model.name: versions for model, versions in read_with_versions(reading, [])}  # type: ignore[arg-type]
    assert reading.asked == [f"name = '{prefix}.staged'"]
    assert [len(read[f"{prefix}.{kind}"]) for kind in ("staged", "free")] == [3, 1]
    assert [plan_migration(world.hook.get_registered_model(name), read[name]).status for name in sorted(read)] == [
        "done",
        "to migrate",
    ]


@pytest.mark.parametrize("arguments", [(), ("a", "--all")])
def test_a_migration_is_of_named_models_or_of_all(registry: CommandLine, arguments: tuple[str, ...]) -> None:
    assert "exactly one of NAME and --all must be given" in registry("migrate-stages", *arguments, code=2)


# --- mirror-stages ---------------------------------------------------------------------------------------------------
def test_mlflows_own_stages_follow_once_they_are_told_to_and_not_before_a_migration(
    registry: CommandLine, world: World
) -> None:
    old_fashioned(registry, "Production", "Staging")
    name = world.model_name
    assert "would be overwritten. Nothing was changed" in registry("mirror-stages", name, "on", code=2)
    registry("migrate-stages", name, "--apply")
    assert registry("mirror-stages", name, "on").endswith("from now on; the stage of 0 version(s) was changed\n")
    promote(world, "2", "1")
    assert registry.json("stages", name)["drift"] == []
    registry("mirror-stages", name, "off")
    world.run(RollbackModelOperator, model_name=name, dag_run_id="back")
    assert [one["version"] for one in registry.json("stages", name)["drift"]] == ["1", "2"]
    assert registry("mirror-stages", name, "on").endswith("the stage of 2 version(s) was changed\n")
    assert registry.json("stages", name)["drift"] == []
