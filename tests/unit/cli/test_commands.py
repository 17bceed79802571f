"""The command line as a whole: its commands, what calling one loads, and calls that are wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from importlib import import_module

import pytest

from airflow_mcp import __version__
from airflow_mcp.cli import COMMANDS, _parser, main
from tests.support.paths import ROOT


def test_every_command_is_documented_and_nothing_else() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `airflow-mcp (\w+)", page, re.M)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_module_of_its_name_and_explains_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_module(f"airflow_mcp.cli.{command}").run.__doc__
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: airflow-mcp {command}")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert [command for command in COMMANDS if f"\n    {command} " not in shown] == []


OTHER_FORMS = {
    "schema": "prints a JSON document in any case",
    "policy template": "prints the YAML file that people edit",
    "serve": "answers over HTTP, and ends with a signal",
}
"""Actions without ``--json``, and why."""


def _actions(parser: ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each action below a parser with the options that it takes."""
    (inner,) = [each for each in parser._actions if isinstance(each, _SubParsersAction)] or [None]
    if inner is None:
        yield name, {option for each in parser._actions for option in each.option_strings}
        return
    for action, its in inner.choices.items():
        yield from _actions(its, f"{name} {action}".strip())


def test_every_action_answers_programs_in_json() -> None:
    found = {
        name: options
        for command in COMMANDS
        for name, options in _actions(_parser(command), "")
        if name.partition(" ")[0] == command
    }
    assert {name for name, options in found.items() if "--json" not in options} == set(OTHER_FORMS)
    assert len(found) > 40


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["rollback"], ["pods"], ["pods", "list", "--yes"]])
def test_a_wrong_call_ends_with_2_and_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith("usage: airflow-mcp")


def test_the_version_is_printed_and_loads_no_other_command() -> None:
    code = (
        "import json, sys\nfrom airflow_mcp.cli import main\nassert main(['version']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    printed, loaded = done.stdout.splitlines()
    assert printed == f"airflow-mcp {__version__}"
    assert {name for name in json.loads(loaded) if name.startswith("airflow_mcp.")} == {
        "airflow_mcp.cli",
        "airflow_mcp.cli.options",
        "airflow_mcp.cli.version",
        "airflow_mcp.exceptions",
    }
    assert not {"httpx", "kubernetes", "airflow", "pydantic", "yaml"} & set(json.loads(loaded))
