"""The pages for data scientists, data engineers and the person on call: each command is run as it is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core.registry.moves import read_history
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.support.mlflow_world import World
from tests.support.paths import DOCS
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

PAGES = ("data-scientist", "data-engineer", "on-call")
ELSEWHERE = ("pip install", "airflow providers", "airflow connections", "python -m unittest")
"""Beginnings of lines that other tests run: the installation, Airflow's own commands, and the scaffold's test."""
NEEDS_AIRFLOW = "airflow-mcp retrain pause"
"""Its test runs a real Airflow: ``test_retrain_airflow.py``."""
ADDRESS = "http://127.0.0.1:5000"


def lines_of(page: str) -> list[str]:
    text = (DOCS / "ways" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


class Reader:
    """Somebody who follows a page; commands run in this process."""

    def __init__(self, world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.home, self.monkeypatch = world, home, monkeypatch
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
        monkeypatch.chdir(home)

    def do(self, line: str, name: str) -> None:
        """Run a line, with the model of this test in place of the page's."""
        words = [word.replace("~", str(self.home)).replace(ADDRESS, self.world.url) for word in shlex.split(line)]
        if words[0] == "cd":
            self.monkeypatch.chdir(words[1])
        elif words[0] == "export":
            self.monkeypatch.setenv(*words[1].split("=", 1))
        else:
            given = [self.world.model_name if word == name else word for word in words[1:]]
            assert main(given) == 0, line


@pytest.fixture(scope="module")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server of this module's own: its commands look at every model of a server."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow"), http="gunicorn") as server:
        yield server


@pytest.fixture
def reader(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    (tmp_path / "airflow" / "dags").mkdir(parents=True)
    return Reader(world, tmp_path, monkeypatch)


def promoted(world: World) -> None:
    world.versions(2)
    for version, expected in (("1", "none"), ("2", "1")):
        given = {"model_name": world.model_name, "version": version, "expected_champion": expected}
        assert world.run(PromoteModelOperator, dag_run_id=f"run-{version}", **given).state == "success"


def own_lines(page: str) -> Iterator[str]:
    for line in lines_of(page):
        if not line.startswith((*ELSEWHERE, NEEDS_AIRFLOW)):
            yield line


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_a_page_is_left_out(page: str) -> None:
    assert {line.split()[0] for line in own_lines(page)} <= {"airflow-mcp", "cd", "export"}
    assert len(list(own_lines(page))) >= 3


def test_the_on_call_page_ends_with_the_old_champion(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    promoted(reader.world)
    for line in own_lines("on-call"):
        before = reader.world.aliases["champion"]
        reader.do(line, "fraud")
        assert (reader.world.aliases["champion"] != before) is ("--yes" in line)
    assert reader.world.aliases == {"champion": "1"}
    assert read_history(reader.world.registered.tags)[-1].reason == "scores are constant since 01:00"
    said = capsys.readouterr().out
    assert f"{reader.world.model_name}: version 1 is the champion now; version 2 was rolled back" in said


def test_the_page_says_what_the_messages_say() -> None:
    """Each quoted beginning of a refusal is in the code that raises it."""
    page = (DOCS / "ways" / "on-call.md").read_text(encoding="utf-8")
    table = page.split("## If it is refused")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| (.+?) \|", table, re.M)[2:]
    fragments = [fragment for row in quoted for fragment in re.findall(r"`([^`]+)`", row) if fragment != "403"]
    package = DOCS.parent / "airflow_mcp"
    rooms = (package / "core" / "registry", package / "registry", package / "cli")
    code = "".join(path.read_text(encoding="utf-8") for room in rooms for path in sorted(room.glob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    assert [fragment for fragment in fragments if fragment not in joined] == []
    assert len(fragments) >= 7


def test_the_data_scientist_page_ends_with_a_checked_pipeline_and_a_status(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(reader.world)
    *lines, last = own_lines("data-scientist")
    for line in lines:
        reader.do(line, "no such word")
    said = capsys.readouterr().out
    assert "all valid" in said
    assert "promote after" in said
    reader.do(last, "churn")
    assert "champion: version 2" in capsys.readouterr().out
    yaml = re.findall(r"```yaml\n(.*?)```", (DOCS / "ways" / "data-scientist.md").read_text(encoding="utf-8"), re.S)[0]
    file = Path("pipeline.yaml")
    text = file.read_text(encoding="utf-8")
    before, after = text.split("    - name: evaluate\n")[0], text.split("latencyMs: 500          # upper bound\n")[1]
    file.write_text(before + yaml + after, encoding="utf-8")
    assert main(["validate", "pipeline.yaml"]) == 0


def test_the_data_engineer_page_ends_with_a_dag_file(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "pipelines"]) == 0
    file: Any = Path("pipelines", "pipeline.yaml")
    released = "sourceCode: {repoUrl: 'https://github.com/team/churn', revision: v1.0.0}"
    file.write_text(re.sub(r"sourceCode: \..*", released, file.read_text(encoding="utf-8")), encoding="utf-8")
    for line in own_lines("data-engineer"):
        reader.do(line, "no such word")
    assert len(list(reader.home.glob("airflow/dags/*.py"))) == 1
    assert "MLflow artifacts: write" in capsys.readouterr().out
