"""A champion, or a way back, that does not load is seen: status, registry history and doctor on a real registry."""

from __future__ import annotations

import json

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.registry.load_check import LoadVerdict
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.support.mlflow_world import World, load_check_tags

pytestmark = pytest.mark.integration


@pytest.fixture
def two(world: World) -> World:
    world.versions(2)
    for version, before in (("1", "none"), ("2", "1")):
        arguments = {"model_name": world.model_name, "version": version, "expected_champion": before}
        assert world.run(PromoteModelOperator, **arguments, dag_run_id=f"run-{version}").state == "success"
    return world


def tag(world: World, version: str, verdict: LoadVerdict) -> None:
    for name, value in load_check_tags(verdict, reason="the file is torn").items():
        world.hook.set_model_version_tag(world.model_name, version, name, value)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def test_status_marks_what_does_not_load(two: World, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("status", two.model_name, "--tracking-uri", two.url)
    fine = told(capsys, *call)
    assert fine.count("load check     passed at") == 2
    assert "UNUSABLE" not in fine
    assert f": airflow-mcp rollback {two.model_name} --reason TEXT" in fine
    tag(two, "2", "failed")
    champion = told(capsys, *call)
    assert "the file is torn\n  UNUSABLE       a model server cannot load it" in champion
    assert f": airflow-mcp rollback {two.model_name} --reason TEXT" in champion
    tag(two, "1", "failed")
    both = told(capsys, *call)
    assert "UNUSABLE       you cannot roll back to it" in both
    assert "to roll back to version" not in both


def test_history_says_what_was_known_of_each_champion_and_which_alias_is_unusable(
    two: World, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("registry", "history", two.model_name, "--tracking-uri", two.url)
    assert told(capsys, *call).count("  load check passed at") == 2
    tag(two, "1", "failed")
    assert "UNUSABLE: alias previous_champion is at version 1: its load check failed" in told(capsys, *call)
    document = json.loads(told(capsys, *call, "--format", "json"))
    assert [(item["alias"], item["version"]) for item in document["unusable"]] == [("previous_champion", "1")]
    assert document["changes"][0]["load_check"].startswith("passed at")


def test_the_doctor_finds_aliases_at_versions_that_do_not_load(two: World, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("doctor", "--no-cluster", "--tracking-uri", two.url, "--format", "json")

    def found() -> list[tuple[str, str]]:
        findings = json.loads(told(capsys, *call))["findings"]
        return [
            (item["level"], item["says"].partition(",")[0])
            for item in findings
            if item["subject"] == f"MLflow alias of {two.model_name}"
        ]

    assert found() == []
    tag(two, "2", "failed")
    tag(two, "1", "failed")
    assert found() == [
        ("problem", "'champion' is at version 2"),
        ("warning", "'previous_champion' is at version 1"),
    ]
    tag(two, "2", "passed")
    assert [level for level, _ in found()] == ["warning"]
