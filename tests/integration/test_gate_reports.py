"""From a step that leaves reports to a gate that judges them: real tools, a real MLflow server, a real web server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import WorkloadLostError
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.step import RunStepOperator
from tests.support.mlflow_world import World
from tests.support.paths import REPORTS
from tests.support.task_harness import TaskOutcome

pytestmark = pytest.mark.integration

CODE = "def twice(x):\n    if x < 0:\n        return None\n    return 2 * x\n"
TEST = "from code_under_test import twice\n\n\ndef test_twice():\n    assert twice(2) == 4\n"
STEP = """
coverage run --branch --source=. -m pytest -q -p no:cacheprovider . &&
coverage xml -q && ruff check --isolated --select ANN --exit-zero --output-format sarif -o lint/ruff.sarif .
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "lint").mkdir(parents=True)
    (folder / "code_under_test.py").write_text(CODE)
    (folder / "test_code.py").write_text(TEST)
    return folder


def step(world: World, **arguments: Any) -> TaskOutcome:
    given = {"experiment_name": world.experiment, "runtime": "local", **arguments}
    return world.run(RunStepOperator, **given)


def judge(world: World, run_id: str, **rules: Any) -> TaskOutcome:
    policy = {name: rules.pop(name) for name in ("benchmarks", "coverage", "findings") if name in rules}
    return world.run(EvaluationGateOperator, run_id=run_id, model_name=world.model_name, policy=policy, **rules)


def stored(world: World, run_id: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(world.artifact(run_id, contract.ARTIFACT_GATE_REPORT_JSON))
    return report


def test_reports_of_real_tools_go_from_a_step_through_its_run_into_the_gate(world: World, project: Path) -> None:
    done = step(
        world, command=["sh", "-c", STEP.replace("\n", " ")], folder=str(project), reports=["coverage.xml", "lint/*"]
    )
    assert done.state == "success", done.error
    run_id = done.result["run_id"]
    assert b"<coverage" in world.artifact(run_id, "reports/coverage.xml")
    coverage = {"run_id": run_id, "path": "reports/coverage.xml"}
    gate = judge(
        world,
        run_id,
        coverage={"report": coverage, "min_line_rate": 0.8, "min_branch_rate": 0.5, "mode": "enforce"},
        findings={"report": {"run_id": run_id, "path": "reports/lint/ruff.sarif"}, "max": {"error": 0}},
    )
    assert gate.state == "failed"  # ANN001 and ANN201: nothing is annotated
    kinds = [(rule["kind"], rule["metric"], rule["verdict"]) for rule in stored(world, run_id)["rules"]]
    assert kinds == [
        ("coverage", "line_rate", "passed"),
        ("coverage", "branch_rate", "passed"),
        ("findings", "error", "failed"),
    ]
    passing = judge(world, run_id, coverage={"report": coverage, "min_line_rate": 0.8})
    assert (passing.state, passing.result["champion_version"]) == ("success", "none")
    assert world.hook.get_run(run_id).tags[contract.TAG_GATE_VERDICT] == "passed"
    html = world.artifact(run_id, contract.ARTIFACT_GATE_REPORT_HTML).decode()
    assert "line coverage &gt;= 0.8 in reports/coverage.xml" in html


def test_a_step_that_leaves_no_report_fails_and_says_which(world: World, tmp_path: Path) -> None:
    outcome = step(world, command=["true"], reports=["coverage.xml"])
    assert outcome.state == "up_for_retry"
    assert "the command left no coverage.xml" in str(outcome.error)
    assert [run.status for run in world.runs()] == ["FAILED"]


def test_reports_of_a_step_that_fails_are_kept_but_do_not_count(world: World) -> None:
    outcome = step(world, command=["sh", "-c", "echo '<coverage/>' > coverage.xml; exit 3"], reports=["coverage.xml"])
    assert outcome.state == "up_for_retry"
    (run,) = world.runs()
    assert world.artifact(run, "reports/coverage.xml") == b"<coverage/>\n"
    report = {"run_id": run.run_id, "path": "reports/coverage.xml"}
    gate = judge(world, world.new_run().run_id, coverage={"report": report, "min_line_rate": 0})
    assert (gate.state, gate.xcom["verdict"]) == ("failed", "inconclusive")
    assert "does not count: its MLflow run" in gate.xcom["reason"]


@pytest.mark.parametrize("reports", ["coverage.xml", ["/etc/passwd"], ["../x"], [""], ["a//b"], [5], ["--"]], ids=repr)
def test_reports_outside_the_folder_are_refused(world: World, reports: Any) -> None:
    outcome = step(world, command=["true"], reports=reports)
    assert outcome.state == "failed"
    assert "must be a list of files or patterns" in str(outcome.error)


def test_a_step_that_vanished_is_not_taken_for_done(world: World) -> None:
    def lose(*_: Any, **__: Any) -> None:
        raise WorkloadLostError("pod x is gone")

    def before(operator: Any) -> None:
        operator.__dict__["backend"] = SimpleNamespace(
            run=lose, ships_files=False, python=sys.executable, require_modules=lambda *_: None, image_digest=""
        )

    outcome = step(world, command=["true"], before=before)
    assert outcome.state == "up_for_retry"
    assert "pod x is gone" in str(outcome.error)
    assert [run.status for run in world.runs()] == ["FAILED"]


# --- what can be wrong with a report ----------------------------------------------------------------------------------


@pytest.fixture
def run(world: World) -> Run:
    return world.new_run()


def keep(world: World, run: Run, name: str) -> dict[str, str]:
    world.hook.upload_artifact(run.run_id, f"reports/{name}", (REPORTS / name).read_bytes())
    return {"run_id": run.run_id, "path": f"reports/{name}"}


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"run_id": None, "path": "reports/x.xml"}, "pushed no MLflow run"),
        ({"run_id": "", "path": "reports/x.xml"}, "pushed no MLflow run"),
        ({"run_id": "{{ none }}", "path": "reports/x.xml"}, "pushed no MLflow run"),
        ({"run_id": "f" * 32, "path": "reports/x.xml"}, "there is no reports/x.xml in MLflow run"),
        ("/no/such/coverage.xml", "/no/such/coverage.xml cannot be read: No such file"),
        ("file:///no/such/coverage.xml", "cannot be read: No such file"),
        ("file:///", "cannot be read: Is a directory"),
    ],
)
def test_a_report_that_is_not_there_is_inconclusive_and_never_a_pass(
    world: World, run: Run, report: Any, reason: str
) -> None:
    gate = judge(world, run.run_id, coverage={"report": report, "min_line_rate": 0})
    assert (gate.state, gate.xcom["verdict"]) == ("failed", "inconclusive")
    assert reason in gate.xcom["reason"]


def test_reports_may_be_files_of_this_machine(world: World, run: Run) -> None:
    gate = judge(
        world,
        run.run_id,
        coverage={"report": str(REPORTS / "coverage.xml"), "min_line_rate": 0.75},
        findings=[{"report": f"file://{REPORTS}/bandit.sarif", "max": {"error": 1}}],
    )
    assert gate.state == "success", gate.error


def test_a_report_about_another_commit_is_an_error(world: World) -> None:
    candidate = world.new_run({contract.TAG_CODE_COMMIT: "b" * 40})
    report = keep(world, world.new_run({contract.TAG_CODE_COMMIT: "a" * 40}), "coverage.xml")
    gate = judge(world, candidate.run_id, coverage={"report": report, "min_line_rate": 0.5})
    assert (gate.state, gate.xcom["verdict"]) == ("failed", "error")
    assert f"is about commit {'a' * 40}, the candidate was made from {'b' * 40}" in gate.xcom["reason"]


def test_rules_of_all_kinds_are_judged_together_and_new_ones_also_when_the_evidence_is_missing(
    world: World, run: Run
) -> None:
    coverage = {"report": keep(world, run, "coverage.xml"), "min_line_rate": 0.5}
    without = judge(world, run.run_id, thresholds=["accuracy >= 0.9"], coverage=coverage)
    assert (without.state, without.xcom["verdict"]) == ("failed", "error")
    assert [rule["verdict"] for rule in without.xcom["rules"]] == ["passed"]
    world.store_evidence(run, {"accuracy": 0.95})
    gate = judge(world, run.run_id, thresholds=["accuracy >= 0.9"], coverage=coverage)
    assert gate.state == "success"
    assert [rule["kind"] for rule in gate.result["rules"]] == ["threshold", "coverage"]


def test_a_gate_that_expects_an_evaluation_does_not_do_without(world: World, run: Run) -> None:
    coverage = {"report": keep(world, run, "coverage.xml"), "min_line_rate": 0.5}
    assert judge(world, run.run_id, coverage=coverage, evidence_identity="evaluation-1").xcom["verdict"] == "error"


# --- benchmarks -------------------------------------------------------------------------------------------------------


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"regression": self.path != "/good", "p99": 12.5}).encode()
        self.send_response(503 if self.path == "/down" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("path", "verdict"), [("good", "passed"), ("regressed", "failed"), ("down", "inconclusive")])
def test_a_gate_asks_a_service_and_keeps_what_it_said(
    world: World, run: Run, service: str, path: str, verdict: str
) -> None:
    benchmark = {"url": f"{service}/{path}", "path": "regression", "expect": False, "retries": 0}
    gate = judge(world, run.run_id, benchmarks=benchmark)
    assert gate.state == ("success" if verdict == "passed" else "failed")
    (rule,) = stored(world, run.run_id)["rules"]
    assert (rule["kind"], rule["verdict"]) == ("benchmark", verdict)
    assert rule["facts"]["status"] == (503 if path == "down" else 200)
    assert '"p99": 12.5' in rule["facts"]["excerpt"]


def test_a_benchmark_that_only_warns_marks_the_candidate(world: World, run: Run, service: str) -> None:
    gate = judge(
        world,
        run.run_id,
        benchmarks=[
            {"url": f"{service}/good", "path": "p99", "threshold": "<= 20"},
            {"url": f"{service}/regressed", "path": "regression", "expect": False, "mode": "warn"},
        ],
    )
    assert (gate.state, gate.result["decision"]) == ("success", "warned")
    assert [rule["value"] for rule in gate.result["rules"]] == [12.5, None]
