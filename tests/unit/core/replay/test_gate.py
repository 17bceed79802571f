"""A gate judged again from what it stored: the same report, or what differs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence
from airflow_mcp.core.gate.inputs import GateCase, GateInputs, case_of, judge_case, policy_arguments, stored_inputs
from airflow_mcp.core.gate.judgement import Gathered
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.benchmark import BenchmarkAnswer
from airflow_mcp.core.gate.rules.report_files import FetchedReport
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.replay.gate import replay_gate

PACKAGES = {"airflow-mcp": "0.1.0"}
COVERAGE = b'<coverage line-rate="0.9" branch-rate="0.8" lines-valid="10" lines-covered="9"><packages/></coverage>'
POLICY = GatePolicy.parse(
    ["accuracy >= 0.9", "warn: f1 >= champion - 0.01"],
    [{"metric": "f1", "min_effect": 0.01, "mode": "warn"}],
    {"floors": ["recall >= 0.8"], "max_gap": {"recall": 0.1}},
    replay={"max_flip_rate": 0.1},
    benchmarks={"url": "https://bench.example/x", "path": "score", "threshold": ">= 0.5"},
    coverage={"report": {"run_id": "r0", "path": "coverage.xml"}, "min_line_rate": 0.5},
    findings={"report": "/reports/lint.sarif", "max": {"error": 0}},
)


def evidence() -> EvaluationEvidence:
    return EvaluationEvidence(
        identity="e1",
        run_id="r1",
        model_type="classifier",
        target="y",
        dataset=DatasetPin(uri="/data/e.csv", hash="sha256:00"),
        rows=100,
        candidate=ModelEvidence(model_uri="models:/m-1", run_id="r1", metrics={"accuracy": 0.95}),
        champion=None,
        created_at="2026-01-01T00:00:00+00:00",
    )


def decided(case: GateCase) -> tuple[dict[str, Any], bytes, bytes]:
    """Return the event, the stored inputs and the report of a judgement."""
    report = judge_case(case)
    inputs, text = dump_document(stored_inputs(case, PACKAGES)).encode(), dump_document(report).encode()
    new = {"run_id": "r1", "verdict": report.verdict.value, "mode": report.mode, "champion": report.champion_version}
    return {"new": new, "inputs": {"inputs": content_hash(inputs), "report": content_hash(text)}}, inputs, text


def simple(rule: str = "accuracy >= 0.9", **changes: Any) -> GateCase:
    given = {"policy": GatePolicy.parse([rule]), "evidence": evidence(), "gathered": Gathered(), **changes}
    return GateCase(run_id="r1", model_name="fraud", created_at="2026-01-01T00:00:00+00:00", **given)


def test_the_same_inputs_give_the_same_bytes() -> None:
    event, inputs, report = decided(simple())
    found = replay_gate(event, inputs, {}, report)
    assert (found.verdict, found.packages) == ("identical", PACKAGES)


@pytest.mark.parametrize("changes", [{"evidence": None}, {"evidence": None, "problem": "it is of another run"}])
def test_a_gate_that_had_no_evidence_is_made_again_too(changes: Any) -> None:
    event, inputs, report = decided(simple(**changes))
    assert replay_gate(event, inputs, {}, report).verdict == "identical"


def test_a_threshold_that_was_changed_shows_in_the_hash_and_in_the_verdict() -> None:
    event, inputs, report = decided(simple())
    other = json.loads(inputs)
    other["policy"]["thresholds"] = ["accuracy >= 0.99"]
    found = replay_gate(event, json.dumps(other).encode(), {}, report)
    fields = {one.field: (one.recorded, one.replayed) for one in found.differences}
    assert found.verdict == "different"
    assert "hash of gate/inputs.json" in fields
    assert fields["verdict"] == ("passed", "failed")
    assert fields["rules[0].bound"] == ("0.9", "0.99")


def test_without_the_stored_report_the_event_says_what_differs() -> None:
    event, inputs, _ = decided(simple())
    other = {**json.loads(inputs), "policy": {"thresholds": ["accuracy >= 0.99"]}}
    found = replay_gate(event, json.dumps(other).encode(), {}, None)
    assert ("verdict", "passed", "failed") in [(one.field, one.recorded, one.replayed) for one in found.differences]


def test_nothing_can_be_said_without_the_inputs() -> None:
    event, _, report = decided(simple())
    assert replay_gate(event, None, {}, report).missing == ("gate/inputs.json of MLflow run r1",)
    old = {**event, "inputs": {"report": event["inputs"]["report"]}}
    assert replay_gate(old, None, {}, report).verdict == "impossible"


def test_an_argument_that_this_version_does_not_know_is_named() -> None:
    event, inputs, report = decided(simple())
    newer = json.loads(inputs)
    newer["policy"]["unheard_of"] = 1
    found = replay_gate(event, json.dumps(newer).encode(), {}, report)
    assert "policy.unheard_of is not a known name" in found.missing[0]


class TestWhatIsStored:
    def test_gives_the_policy_back_with_every_kind_of_rule(self) -> None:
        arguments = json.loads(json.dumps(policy_arguments(POLICY)))
        again = GatePolicy.parse(**arguments)
        assert again == POLICY
        assert again.files == POLICY.files

    def test_gives_answers_and_reports_back(self) -> None:
        files = POLICY.files
        reports = {
            files[0]: FetchedReport(COVERAGE, commit="c1"),
            files[1]: FetchedReport(None, "there is no such file"),
        }
        answer = BenchmarkAnswer(200, b'{"score": 0.7}', milliseconds=12.5, tries=2)
        case = simple(policy=POLICY, gathered=Gathered((answer,), reports, "c1"))
        stored = parse_document(GateInputs, dump_document(stored_inputs(case, PACKAGES)), "inputs")
        assert case_of(stored, {content_hash(COVERAGE): COVERAGE}) == case
        assert (stored.files[0].run_id, stored.files[0].path) == ("r0", "coverage.xml")
        event, inputs, report = decided(case)
        assert replay_gate(event, inputs, {content_hash(COVERAGE): COVERAGE}, report).verdict == "identical"
        gone = replay_gate(event, inputs, {}, report)
        assert (gone.verdict, "coverage.xml of MLflow run r0" in gone.missing[0]) == ("impossible", True)

    def test_has_no_secret_of_an_answer(self) -> None:
        answer = BenchmarkAnswer(200, b'{"score": 0.7, "echo": "s3cret"}', problem="for s3cret", secrets=("s3cret",))
        (stored,) = stored_inputs(simple(gathered=Gathered((answer,))), PACKAGES).answers
        assert "s3cret" not in (again := case_of_answer(stored)).body.decode() + again.problem


def case_of_answer(stored: Any) -> BenchmarkAnswer:
    inputs = stored_inputs(simple(), PACKAGES).model_copy(update={"answers": (stored,)})
    return case_of(inputs, {}).gathered.answers[0]
