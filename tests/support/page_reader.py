"""Somebody who follows a page of the docs: runs its shell lines and writes its files, exactly as they are printed."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow.sdk import DAG

from tests.support.mlflow_world import World
from tests.support.paths import DOCS, ROOT
from tests.support.task_harness import TaskOutcome, run_dag

BLOCK = re.compile(r"(?:<!-- (?P<comment>[^>]+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)


class PageReader:
    """Somebody who follows a page on a machine with a home of their own.

    :param page: file name of the page in ``docs``.
    :param world: the MLflow server.
    :param home: the home folder.
    :param elsewhere: beginnings of lines that the test does in another way, such as the start of servers.
    :param instead: text of the page, and what stands there on this machine.
    """

    def __init__(
        self, page: str, world: World, home: Path, elsewhere: Sequence[str], instead: Mapping[str, str] | None = None
    ) -> None:
        self.text = (DOCS / page).read_text(encoding="utf-8")
        self.world, self.here = world, home
        self.dags = home / "airflow" / "dags"
        self.dags.mkdir(parents=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.env = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}
        self.said: dict[str, str] = {}
        self._elsewhere, self._instead = tuple(elsewhere), {"http://127.0.0.1:5000": world.url, **(instead or {})}

    def lines(self, text: str) -> list[str]:
        """Return the shell lines of a text that are not done in another way."""
        blocks = (block["text"] for block in BLOCK.finditer(text) if block["kind"] == "sh")
        lines = (line.strip() for block in blocks for line in block.splitlines())
        return [line for line in lines if line and not line.startswith(self._elsewhere)]

    def section(self, number: int) -> str:
        """Return the text of a section; 0 is what comes before the first."""
        before, *sections = re.split(r"\n## ", self.text)
        return next(each for each in sections if each.startswith(f"{number}. ")) if number else before

    def here_is(self, text: str) -> str:
        """Return a text of the page with what stands there on this machine."""
        for printed, real in self._instead.items():
            text = text.replace(printed, real)
        return text

    def do(self, line: str) -> None:
        """Run one shell line; ``cd`` and ``export`` last."""
        printed, line = line, self.here_is(line)
        command, *arguments = shlex.split(line)
        if command == "cd":
            self.here /= arguments[0]
        elif command == "export":
            name, _, value = arguments[0].partition("=")
            self.env[name] = value
        else:
            done = subprocess.run(
                ["sh", "-c", line], cwd=self.here, env=self.env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            self.said[printed] = done.stdout

    def follow(self, number: int) -> None:
        """Write the files of a section and run its shell lines."""
        self.write_files(number)
        for line in self.lines(self.section(number)):
            self.do(line)

    def write_files(self, number: int) -> None:
        """Write the files of a section that ``<!-- file: name -->`` marks; Dags go where Airflow finds them."""
        for block in BLOCK.finditer(self.section(number)):
            if (block["comment"] or "").startswith("file: "):
                folder = self.dags if "DAG(" in block["text"] else self.here
                name = block["comment"].removeprefix("file: ")
                (folder / name).write_text(self.here_is(block["text"]), encoding="utf-8")

    def python(self, comment: str) -> str:
        """Return the block of Python that a comment marks."""
        (code,) = (block["text"] for block in BLOCK.finditer(self.text) if block["comment"] == comment)
        return self.here_is(code)

    def run(self, file: Path, run_id: str = "run-1") -> dict[str, TaskOutcome]:
        """Run the Dag of a file in the Dags folder once; every task must succeed."""
        found = (getattr(value, "dag", value) for value in runpy.run_path(str(file)).values())
        (dag,) = {each.dag_id: each for each in found if isinstance(each, DAG)}.values()
        outcomes = run_dag(dag, mlflow_url=self.world.url, run_id=run_id)
        failed = {name: str(outcome.error) for name, outcome in outcomes.items() if outcome.state != "success"}
        assert failed == {}
        return outcomes

    def champion(self, model: str) -> str:
        """Return the version that is the champion."""
        found = self.world.hook.get_model_version_by_alias(model, "champion")
        assert found is not None
        return found.version
