"""A promotion on a real MLflow server, made again from log and evidence, also when nothing but a folder is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.registry.moves import read_last_move
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.support.audit_log import sqlite_logs
from tests.support.mlflow_world import World

pytestmark = pytest.mark.integration
Replay = Callable[..., tuple[int, dict[str, Any]]]


@dataclass
class Promoted:
    """A version that its gate let through, and that was promoted."""

    world: World
    run_id: str
    move: str


@pytest.fixture
def promoted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Promoted:
    logs = sqlite_logs(tmp_path)
    connection = {"conn_type": "audit_log", "extra": {"sqlite_path": logs.owner.sqlite_path}}
    monkeypatch.setenv("AIRFLOW_CONN_AUDIT_TESTS", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__AIRFLOW_MCP__AUDIT_CONN_ID", "audit_tests")
    monkeypatch.setenv("AIRFLOW_MCP_AUDIT_LOG", f"sqlite://{logs.owner.sqlite_path}")
    (version,) = world.versions(1)
    run = world.hook.get_run(version.run_id)
    world.store_evidence(run, {"accuracy": 0.95})
    named = {"model_name": world.model_name, "task_id": "gate"}
    gate = world.run(EvaluationGateOperator, run_id=run.run_id, thresholds=["accuracy >= 0.9"], **named)
    assert gate.state == "success", gate.error
    expected = gate.result["champion_version"]
    moved = world.run(PromoteModelOperator, model_name=world.model_name, version="1", expected_champion=expected)
    assert moved.state == "success", moved.error
    last = read_last_move(world.registered.tags)
    assert last is not None
    return Promoted(world, run.run_id, last.identity)


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str]) -> Replay:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["audit", "replay", *arguments, "--format", "json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def change(folder: Path, promoted: Promoted, **policy: Any) -> None:
    """Change an argument of the policy in the stored inputs."""
    place = folder / promoted.run_id / contract.ARTIFACT_GATE_INPUTS
    inputs = json.loads(place.read_text())
    place.write_text(json.dumps({**inputs, "policy": {**inputs["policy"], **policy}}))


def test_a_promotion_is_made_again_when_only_a_folder_is_left(
    promoted: Promoted, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, world = tmp_path / "kept", promoted.world
    place = ["--model", world.model_name, "--tracking-uri", world.url]
    code, found = replay(promoted.move, *place, "--save", str(folder))
    assert (code, found["verdict"], found["missing"]) == (0, "identical", [])
    assert found["packages"]["then"] == found["packages"]["now"]

    world.hook.delete_run(promoted.run_id)
    monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
    code, again = replay("--seq", str(found["seq"]), "--offline", str(folder))
    assert (code, again["verdict"], again["move"]) == (0, "identical", promoted.move)

    change(folder, promoted, thresholds=["accuracy >= 0.99"])
    code, other = replay(promoted.move, "--offline", str(folder))
    fields = {one["field"]: (one["recorded"], one["replayed"]) for one in other["differences"]}
    assert (code, other["verdict"], fields["verdict"]) == (1, "different", ("passed", "failed"))

    (folder / promoted.run_id / contract.ARTIFACT_GATE_INPUTS).unlink()
    code, gone = replay(promoted.move, "--offline", str(folder))
    assert (code, gone["verdict"]) == (2, "impossible")
    assert gone["missing"] == [f"gate/inputs.json of MLflow run {promoted.run_id}"]


def test_a_gate_that_judged_again_since_is_named(promoted: Promoted, replay: Replay) -> None:
    world = promoted.world
    outcome = world.run(
        EvaluationGateOperator,
        task_id="gate",
        run_id=promoted.run_id,
        model_name=world.model_name,
        thresholds=["accuracy >= 0.5"],
        dag_run_id="run-2",
    )
    assert outcome.state == "success"
    code, found = replay(promoted.move, "--tracking-uri", world.url)  # reads the whole log, which is an export
    assert (code, found["verdict"]) == (1, "different")
    assert "hash of gate/inputs.json" in [one["field"] for one in found["differences"]]


def test_a_move_that_the_log_does_not_have_cannot_be_made_again(
    promoted: Promoted, capsys: pytest.CaptureFixture[str]
) -> None:
    world = promoted.world
    assert main(["audit", "replay", "no-such-move", "--model", world.model_name, "--tracking-uri", world.url]) == 2
    assert "the log has no registry.moved or retrain.decided named no-such-move" in capsys.readouterr().err
