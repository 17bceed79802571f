"""The stage gate of a pipeline file: what it becomes, and every problem at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan, Reference
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.exceptions import PipelineSpecError

HEAD = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {name: small}
spec:
  sourceCode: https://example.com/team/small
  trainingScript: train.py
  data: {uri: /d/train.csv, evaluationUri: /d/evaluation.csv, target: y}
  stages:
    - {name: tests, command: [pytest], reports: [coverage.xml, "lint/*.sarif"]}
"""


def plan(tmp_path: Path, gate: str, head: str = HEAD) -> PipelinePlan:
    path = tmp_path / "small.yaml"
    path.write_text(f"{head}    - name: gate\n      {gate}\n")
    return plan_pipeline(load_pipeline_file(path, "dev", variables={}))


def problems(tmp_path: Path, gate: str, head: str = HEAD) -> list[str]:
    with pytest.raises(PipelineSpecError) as caught:
        plan(tmp_path, gate, head)
    return [str(problem).partition("small.yaml:")[2] for problem in caught.value.problems]


def without_references(value: Any) -> Any:
    if isinstance(value, Reference):
        return "run"
    if isinstance(value, dict):
        return {name: without_references(each) for name, each in value.items()}
    return [without_references(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("gate", "rules"),
    [
        ("significance: [rocAuc]", ["roc_auc better than champion by >= 0 (0.95 confidence, >= 100 rows)"]),
        (
            "significance: [{metric: f1, minEffect: 0.1, confidence: 0.9, minRows: 5, method: bootstrap}]",
            ["f1 better than champion by >= 0.1 (0.9 confidence, >= 5 rows, bootstrap)"],
        ),
        (
            "slices: {floors: [f1 > 0], maxGap: {rocAuc: 0.1}, by: [a], minRows: 5, confidence: 0.9, correction: none}",
            [
                "f1 > 0 by a (0.9 confidence, >= 5 rows, correction none)",
                "gap of roc_auc <= 0.1 by a (0.9 confidence, >= 5 rows, correction none)",
            ],
        ),
        (
            "benchmarks: [{url: 'http://x/y', path: a.b, threshold: <= 5, connId: c, timeout: 2m, retries: 0}]",
            ["a.b <= 5 at http://x/y"],
        ),
        (
            "thresholds: [f1 > 0]\n      coverage:\n"
            "        - {report: {stage: tests, path: coverage.xml}, minLineRate: 0.5, mode: warn}",
            ["f1 > 0", "warn: line coverage >= 0.5 in reports/coverage.xml"],
        ),
        (
            "thresholds: [f1 > 0]\n      findings:\n"
            "        - {report: {stage: tests, path: lint/a.sarif}, max: {error: 0}, mode: dryRun}",
            ["f1 > 0", "dry_run: findings (error) <= 0 in reports/lint/a.sarif"],
        ),
        (
            "thresholds: [f1 > 0]\n      coverage: [{report: /x/c.xml, baseline: s3://b/c.xml, maxLineRateDrop: 0.1}]",
            ["f1 > 0", "loss of line coverage <= 0.1 in /x/c.xml"],
        ),
    ],
)
def test_what_the_file_says_is_what_the_gate_judges_by(tmp_path: Path, gate: str, rules: list[str]) -> None:
    arguments = plan(tmp_path, gate).task("gate").arguments
    kinds = ("thresholds", "significance", "slices", "benchmarks", "coverage", "findings")
    found = {**arguments, **arguments.get("policy", {})}
    given: dict[str, Any] = {name: without_references(found[name]) for name in kinds if name in found}
    assert list(GatePolicy.parse(**given).rules()) == rules


def test_the_evaluation_measures_what_the_gate_asks_for(tmp_path: Path) -> None:
    gate = "significance: [accuracy, {metric: accuracy, confidence: 0.99}, {metric: f1, method: bootstrap}]\n"
    found = plan(tmp_path, gate + "      slices: {floors: [f1 > 0], by: [region, sex]}")
    evaluate = found.task("evaluate").arguments
    assert evaluate["comparisons"] == [
        {"metric": "accuracy", "method": "auto", "confidence": 0.99},
        {"metric": "f1", "method": "bootstrap", "confidence": 0.95},
    ]
    assert evaluate["slices"] == ["region", "sex"]
    assert "comparisons" not in plan(tmp_path, "thresholds: [f1 > 0]").task("evaluate").arguments


def test_a_gate_waits_for_the_steps_whose_reports_it_judges_and_they_run_whenever_it_does(tmp_path: Path) -> None:
    coverage = "coverage: [{report: {stage: tests, path: coverage.xml}, minLineRate: 0.5}]"
    found = plan(tmp_path, f"thresholds: [f1 > 0]\n      {coverage}")
    assert "tests" in found.task("gate").needs
    assert found.stages.index("tests") < found.stages.index("gate")
    assert found.task("gate").arguments["policy"]["coverage"][0]["report"]["run_id"] == Reference("tests", "run_id")
    assert "['gate'] is not none" in str(found.task("tests").arguments["dry_run"])
    assert found.task("tests").arguments["reports"] == ["coverage.xml", "lint/*.sarif"]
    alone = plan(tmp_path, "thresholds: [f1 > 0]")
    assert "['tests'] is not none" in str(alone.task("tests").arguments["dry_run"])


def test_a_person_is_asked_only_where_the_file_says_so(tmp_path: Path) -> None:
    found = plan(tmp_path, "thresholds: [f1 > 0]\n      escalation: ask\n      mode: warn")
    gate = found.task("gate").arguments
    assert (gate["escalation"], gate["mode"]) == ({"ask": "approve"}, "warn")
    assert found.task("record_approval").arguments["answer"] == Reference("approve", "return_value")
    assert set(found.task("register").needs) >= {"gate", "record_approval"}
    assert found.task("register").arguments["trigger_rule"] == "none_failed_min_one_success"
    silent = plan(tmp_path, "thresholds: [f1 > 0]")
    assert {"approve", "record_approval"}.isdisjoint(task.task_id for task in silent.tasks)
    assert "trigger_rule" not in silent.task("register").arguments


@pytest.mark.parametrize(
    ("last", "needs"), [("gate", {"gate", "record_approval"}), ("register", {"load_check"}), ("promote", {"promote"})]
)
def test_the_outcome_of_a_run_waits_for_what_a_person_says(tmp_path: Path, last: str, needs: set[str]) -> None:
    head = HEAD.replace("spec:\n", f"spec:\n  stopAfter: {last}\n")
    asking = plan(tmp_path, "thresholds: [f1 > 0]\n      escalation: ask", head)
    assert set(asking.task("outcome").needs) == needs
    assert "record_approval" not in plan(tmp_path, "thresholds: [f1 > 0]", head).task("outcome").needs


GATE = "10:7: spec.stages[1]"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("significance: [latency]", "11:22: spec.stages[1].significance[0]: metric of a classifier must be one of"),
        ("significance: [{metric: f1, method: delong}]", "significance[0]: method delong compares roc_auc, not f1"),
        (
            "significance: [{metric: f1, minEfect: 1}]",
            "significance[0].minEfect: is not a known name. Did you mean 'minEffect'?",
        ),
        ("significance: [{metric: f1, confidence: 95}]", "significance[0].confidence: must be less than 1; got 95"),
        ("slices: {floors: [f1 > 0]}", "11:15: spec.stages[1].slices: no column is named"),
        ("slices: {by: [a]}", "11:15: spec.stages[1].slices: floors and max_gap are both empty"),
        ("slices: {floors: [f1 > champion], by: [a]}", "floors compare with numbers, not with the champion"),
        ("benchmarks: [{url: 'http://a:b@x', path: a, expect: 1}]", "url holds a user or password (not shown here)"),
        ("benchmarks: [{url: 'http://x', path: a}]", "benchmarks[0]: give exactly one of expect and threshold"),
        (
            "benchmarks: [{url: 'http://x', path: 'a b', expect: 1}]",
            "benchmarks[0]: path must be a path such as results[0].score; got 'a b'",
        ),
        ("coverage: [{report: {stage: tests, path: coverage.xml}}]", "coverage[0]: give at least one of min_line_rate"),
        ("coverage: [{report: coverage.xml, minLineRate: 0.5}]", "uri must be an absolute path"),
        ("coverage: [{report: {stage: tests}, minLineRate: 0.5}]", "name the report by stage and path, or by uri"),
        (
            "coverage: [{report: {stage: tests, path: x.xml}, minLineRate: 1}]",
            "'x.xml' is not among the reports of 'tests'",
        ),
        (
            "findings: [{report: {stage: lint, path: a}, max: {error: 0}}]",
            "there is no step 'lint' to write the report",
        ),
        ("findings: [{report: /a, max: {fatal: 0}}]", "findings[0].max.fatal"),
        ("thresholds: ['warn: f1 > 0']", "spec.stages[1]: at least one rule must be enforced; got only warn"),
        (
            "thresholds: [f1 > 0]\n      dryRun: true",
            "12:15: spec.stages[1].dryRun: after a dry run nothing is registered",
        ),
        (
            "thresholds: [f1 > 0]\n      mode: dry_run",
            "spec.stages[1].mode: must be one of enforce, warn; got 'dry_run'",
        ),
        ("coverage: [{report: /a, minLineRate: 0.5}]", "no threshold says what a good model is"),
        (
            "thresholds: [f1 > 0]\n      onInconclusive: extend",
            "spec.stages[1].onInconclusive: must be one of fail, skip; got 'extend'",
        ),
    ],
)
def test_what_cannot_be_judged_is_a_problem_at_its_place(tmp_path: Path, gate: str, message: str) -> None:
    assert any(message in problem for problem in problems(tmp_path, gate)), problems(tmp_path, gate)


@pytest.mark.parametrize("gate", ["significance: [f1]", "slices: {floors: [f1 > 0], by: [a]}"])
def test_rules_about_rows_need_evaluation_data(tmp_path: Path, gate: str) -> None:
    head = HEAD.replace("  data: {uri: /d/train.csv, evaluationUri: /d/evaluation.csv, target: y}\n", "")
    assert any("evaluation data" in problem for problem in problems(tmp_path, gate, head))


def test_a_dry_run_is_allowed_where_nothing_follows(tmp_path: Path) -> None:
    head = HEAD.replace("  stages:\n", "  stopAfter: gate\n  stages:\n")
    assert plan(tmp_path, "thresholds: [f1 > 0]\n      dryRun: true", head).task("gate").arguments["dry_run"] is True


def test_a_step_that_the_gate_waits_for_cannot_wait_for_the_gate(tmp_path: Path) -> None:
    head = HEAD.replace("command: [pytest]", "command: [pytest], needs: [gate]")
    gate = "thresholds: [f1 > 0]\n      coverage: [{report: {stage: tests, path: coverage.xml}, minLineRate: 0.5}]"
    assert any("wait for each other" in problem for problem in problems(tmp_path, gate, head))


@pytest.mark.parametrize("name", ["approve", "record_approval"])
def test_a_step_cannot_take_the_name_of_a_task_that_is_filled_in(tmp_path: Path, name: str) -> None:
    head = HEAD.replace("name: tests", f"name: {name}")
    assert any(
        "is the name of a task that is filled in" in problem
        for problem in problems(tmp_path, "thresholds: [f1 > 0]", head)
    )


class TestMetrics:
    """Names of metrics are spelled in either way everywhere, and a near miss is refused everywhere."""

    def test_both_spellings_make_the_same_plan(self, tmp_path: Path) -> None:
        rules = (
            "thresholds: [{latency} <= 50, warn: {auc} >= champion - 0.01]\n      significance: [{auc}]\n"
            "      slices: {{floors: [{auc} >= 0.5], maxGap: {{{auc}: 0.1}}, by: [a]}}\n"
            "    - name: evaluate\n      metricsThreshold: {{{latency}: 60, {auc}: 0.8}}"
        ).replace("warn: {auc} >= champion - 0.01", '"warn: {auc} >= champion - 0.01"')
        camel = plan(tmp_path, rules.format(latency="latencyMs", auc="rocAuc"))
        snake = plan(tmp_path, rules.format(latency="latency_ms", auc="roc_auc"))
        assert camel.task("gate").arguments == snake.task("gate").arguments
        thresholds = camel.task("gate").arguments["thresholds"]
        assert set(thresholds) == {
            *("latency_ms <= 60", "roc_auc >= 0.8", "latency_ms <= 50", "warn: roc_auc >= champion - 0.01")
        }

    @pytest.mark.parametrize(
        ("gate", "place"),
        [
            ("thresholds: [acuracy >= 0.9]", "11:20: spec.stages[1].thresholds[0]"),
            ("significance: [acuracy]", "11:22: spec.stages[1].significance[0]"),
            ("significance: [{metric: acuracy}]", "11:31: spec.stages[1].significance[0].metric"),
            ("slices: {floors: [acuracy >= 0.9], by: [a]}", "11:25: spec.stages[1].slices.floors[0]"),
            ("slices: {maxGap: {acuracy: 0.1}, by: [a]}", "11:25: spec.stages[1].slices.maxGap.acuracy"),
            (
                'thresholds: [f1 > 0]\n    - name: evaluate\n      metricsThreshold: {acuracy: ">= 0.9"}',
                "13:26: spec.stages[2].metricsThreshold.acuracy",
            ),
            ("thresholds: [f1 > 0]\n  select: {metric: acuracy, direction: maximize}", "12:20: spec.select.metric"),
        ],
    )
    def test_a_near_miss_is_refused(self, tmp_path: Path, gate: str, place: str) -> None:
        found = problems(tmp_path, gate)
        assert any(each.startswith(place) and "Did you mean 'accuracy'?" in each for each in found), found

    @pytest.mark.parametrize("rule", ["floors: [profit > 0]", "maxGap: {latencyMs: 3}"])
    def test_a_metric_that_no_slice_has_is_refused(self, tmp_path: Path, rule: str) -> None:
        found = problems(tmp_path, f"slices: {{{rule}, by: [a]}}")
        assert "metric of a slice must be one of accuracy, precision" in found[0]

    def test_a_share_above_1_is_refused_in_either_spelling(self, tmp_path: Path) -> None:
        for name in ("rocAuc", "roc_auc"):
            assert "no model can reach roc_auc >= 92" in problems(tmp_path, f"thresholds: [{name} >= 92]")[0]
