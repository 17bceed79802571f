"""The tutorial, followed exactly: a model is trained, served, watched, replaced and taken back."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mlflow_world import World
from tests.support.page_reader import PageReader
from tests.support.services import LOOPBACK, free_port
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

ELSEWHERE = ("pip install", "airflow-mcp serve", "airflow dags reserialize", "airflow dags unpause")
"""Beginnings of lines that the test does in another way: the installation, the servers, and commands of Airflow."""
SERVE = "airflow-mcp serve models:/parcels@champion --port 8000"
RUN = ["pin_data", "begin", "train", "evaluate", "gate", "register", "load_check", "promote", "outcome"]


class Tutorial(PageReader):
    """Somebody who follows the tutorial, with a folder for ``/data`` and a free port for the model server."""

    def __init__(self, world: World, home: Path) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        data = {
            "/data/": f"{home / 'data'}/",
            "http://127.0.0.1:8000": self.url,
            "--port 8000": f"--port {self.url.rpartition(':')[2]}",
        }
        super().__init__("tutorial.md", world, home, ELSEWHERE, data)
        self.runs: list[dict[str, TaskOutcome]] = []

    def do(self, line: str) -> None:
        """Run a line; one that triggers a Dag runs it to its end."""
        if line.startswith("airflow dags trigger "):
            (file,) = self.dags.glob(f"*{line.rpartition(' ')[2]}.py")
            self.runs.append(self.run(file, run_id=f"run-{len(self.runs)}"))
        else:
            super().do(line)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the model server as section 4 starts it; it stores its log when it ends."""
        assert SERVE in self.text
        log = (self.here / "server.log").open("w")
        env = self.env | {"AIRFLOW_MCP_SERVING_LOG_FOLDER": str(self.here / "waiting")}
        process = subprocess.Popen(
            ["sh", "-c", f"exec {self.here_is(SERVE)}"], cwd=self.here, env=env, stdout=log, stderr=log
        )
        try:
            self.wait_for(lambda: self.get("/readyz") is not None)
            yield
        finally:
            process.terminate()
            process.wait(60)
            log.close()

    def get(self, path: str) -> Any:
        """Return what the model server answers; None when it does not answer with 200."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        return json.loads(text) if text.startswith("{") else text

    def wait_for(self, done: Callable[[], bool], seconds: float = 90) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, (self.here / "server.log").read_text()[-3000:]
            time.sleep(0.3)

    def version(self) -> str:
        """Return the version that answers the request of section 4, which is asked as it is printed."""
        (line,) = (line for line in self.lines(self.section(4)) if line.startswith("curl "))
        self.do(line)
        return str(json.loads(self.said[line])["model"]["version"])


@pytest.fixture
def reader(world: World, tmp_path: Path) -> Tutorial:
    return Tutorial(world, tmp_path)


def test_a_model_is_trained_served_watched_replaced_and_taken_back(reader: Tutorial) -> None:
    for number in (0, 1, 2, 3):
        reader.follow(number)
    assert sorted(reader.runs[-1]) == sorted(RUN)
    assert reader.champion("parcels") == "1"

    reader.do("export AIRFLOW_MCP_SERVING_LOG_URI=/data/requests")
    reader.do("export AIRFLOW_MCP_SERVING_POLL_SECONDS=2")
    with reader.serving():
        reader.follow(4)
        assert reader.version() == "1"
        (ask,) = (line for line in reader.lines(reader.section(5)) if line.startswith("python ask.py"))
        reader.write_files(5)
        reader.do(ask)
        assert reader.said[ask].splitlines() == ["100 answers"] * 12

    reader.do("airflow dags trigger parcels_watch")
    drift = reader.runs[-1]["drift_check"].result
    assert drift["verdict"] == "drifted"
    assert drift["drifted_columns"] == ["distance_km"]

    with reader.serving():
        reader.follow(6)
        assert reader.champion("parcels") == "2"
        reader.wait_for(lambda: reader.version() == "2")
        reader.follow(7)
        assert reader.champion("parcels") == "1"
        reader.wait_for(lambda: reader.version() == "1")
    reader.do("airflow-mcp status parcels")
    assert "complaints since midnight" in reader.said["airflow-mcp status parcels"]
