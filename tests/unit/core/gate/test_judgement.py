"""The evaluation gate: every boundary, everything that can be missing, and what the report says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import (
    EvaluationEvidence,
    MetricComparison,
    MetricInterval,
    ModelEvidence,
    SliceEvidence,
)
from airflow_mcp.core.gate.judgement import GateReport, error_report, evaluate_gate
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import InvalidArgumentError

CANDIDATE_RUN, CHAMPION_RUN = "c" * 32, "d" * 32


def model(metrics: dict[str, float], **changes: Any) -> ModelEvidence:
    return ModelEvidence(**{"model_uri": "models:/m-1", "run_id": CANDIDATE_RUN, "metrics": metrics, **changes})


def champion(metrics: dict[str, float], **changes: Any) -> ModelEvidence:
    return model(metrics, **{"model_uri": "models:/churn/3", "run_id": CHAMPION_RUN, "version": "3", **changes})


def evidence(candidate: ModelEvidence, champion: ModelEvidence | None = None) -> EvaluationEvidence:
    return EvaluationEvidence(
        identity="evaluation-1",
        run_id=CANDIDATE_RUN,
        model_type="classifier",
        target="label",
        dataset=DatasetPin(uri="data/holdout.csv", version="v7", hash="sha256:ab"),
        rows=114,
        candidate=candidate,
        champion=champion,
        created_at="2026-11-21T02:00:00+00:00",
    )


def judge(found: EvaluationEvidence, *rules: str) -> GateReport:
    return evaluate_gate(found, GatePolicy.parse(rules), model_name="churn", created_at="2026-11-21T02:01:00+00:00")


@pytest.mark.parametrize(
    ("accuracy", "latency", "verdict"),
    [
        (0.9199, 150, Verdict.FAILED),
        (0.92, 150, Verdict.PASSED),
        (0.9201, 150, Verdict.PASSED),
        (0.92, 150.1, Verdict.FAILED),
        (0.9199, 150.1, Verdict.FAILED),
        (1.0, 0.0, Verdict.PASSED),
    ],
)
def test_accuracy_and_latency_are_judged_at_their_boundaries(accuracy: float, latency: float, verdict: Verdict) -> None:
    report = judge(
        evidence(model({"accuracy": accuracy, "latency_ms": latency})), "accuracy >= 0.92", "latency_ms <= 150"
    )
    assert report.verdict is verdict
    assert report.opens is (verdict is Verdict.PASSED)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_evidence_with_a_number_that_is_not_finite_cannot_be_made(value: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        model({"accuracy": value})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '"NaN"', "null", "true"])
def test_evidence_with_a_number_that_is_not_finite_cannot_be_read(text: str) -> None:
    with pytest.raises(ValidationError):
        ModelEvidence.model_validate_json(f'{{"model_uri": "m", "metrics": {{"accuracy": {text}}}}}', strict=True)


def test_a_missing_metric_is_inconclusive_and_names_what_was_measured() -> None:
    report = judge(evidence(model({"f1": 0.9, "recall": 0.8})), "accuracy >= 0.92")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.rules[0].reason == (
        "no value of 'accuracy' for the candidate: it was not measured (measured: f1, recall)"
    )
    assert report.reason == f"accuracy >= 0.92: {report.rules[0].reason}"


def test_a_candidate_without_any_metric_is_inconclusive() -> None:
    report = judge(evidence(model({})), "accuracy >= 0.92")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "(measured: nothing)" in report.reason


def test_an_undefined_metric_is_inconclusive_with_the_reason_of_the_evaluation() -> None:
    found = evidence(model({}, undefined={"roc_auc": "only one class in the data"}))
    report = judge(found, "roc_auc >= 0.5")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reason.endswith("no value of 'roc_auc' for the candidate: only one class in the data")


def test_a_failed_rule_outweighs_a_missing_metric() -> None:
    report = judge(evidence(model({"f1": 0.1})), "accuracy >= 0.92", "f1 >= 0.5")
    assert report.verdict is Verdict.FAILED
    assert report.reason == "f1 >= 0.5: 0.1 is not >= 0.5"
    assert [rule.verdict for rule in report.rules] == [Verdict.INCONCLUSIVE, Verdict.FAILED]


def test_every_rule_is_measured_after_one_has_failed() -> None:
    report = judge(evidence(model({"a": 1.0, "b": 2.0, "c": 3.0})), "a >= 2", "b >= 2", "c < 3")
    assert [rule.verdict for rule in report.rules] == [Verdict.FAILED, Verdict.PASSED, Verdict.FAILED]
    assert report.reason == "a >= 2: 1 is not >= 2; c < 3: 3 is not < 3"


def test_a_rule_against_the_champion_does_not_apply_without_one() -> None:
    report = judge(evidence(model({"accuracy": 0.95})), "accuracy >= 0.92", "accuracy >= champion")
    assert report.verdict is Verdict.PASSED
    assert report.champion_version is None
    assert report.rules[1].verdict is None
    assert report.rules[1].reason == "does not apply: there is no champion yet"
    assert report.reason == "1 of 2 rules hold, the others do not apply"


def test_a_gate_with_no_rule_that_applies_does_not_pass() -> None:
    report = judge(evidence(model({"accuracy": 0.95})), "accuracy >= champion", "f1 >= champion")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reason == "no rule applies: there is no champion yet"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.0499, Verdict.PASSED), (1.05, Verdict.PASSED), (1.0501, Verdict.FAILED)],
)
def test_the_champion_sets_the_bound(value: float, verdict: Verdict) -> None:
    report = judge(evidence(model({"rmse": value}), champion({"rmse": 1.0})), "rmse <= champion * 1.05")
    assert report.verdict is verdict
    assert report.rules[0].bound == 1.05
    assert report.rules[0].champion_value == 1.0
    assert report.champion_version == "3"


def test_a_champion_without_the_metric_is_inconclusive() -> None:
    found = evidence(model({"f1": 0.9}), champion({"accuracy": 0.9}, undefined={"f1": "no positive row"}))
    report = judge(found, "f1 >= champion")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.rules[0].reason == "no value of 'f1' for the champion: no positive row"


def test_a_champion_whose_metric_is_beyond_all_numbers_is_inconclusive() -> None:
    found = evidence(model({"rmse": 5.0}), champion({"rmse": 1e308}))
    report = judge(found, "rmse <= champion * 10")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.rules[0].reason == "the champion's rmse of 1e+308 gives no finite bound"


@pytest.mark.parametrize(
    "same",
    [
        champion({"f1": 0.9}, model_uri="models:/m-1"),
        champion({"f1": 0.9}, run_id=CANDIDATE_RUN),
    ],
    ids=["same address", "same run"],
)
def test_a_candidate_that_is_the_champion_cannot_beat_itself(same: ModelEvidence) -> None:
    report = judge(evidence(model({"f1": 0.9}), same), "f1 >= champion")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.reason.endswith("the candidate is the champion; there is nothing to compare")
    assert judge(evidence(model({"f1": 0.9}), same), "f1 >= 0.5").verdict is Verdict.PASSED


def test_two_models_without_a_run_are_not_taken_for_the_same() -> None:
    found = evidence(model({"f1": 0.9}, run_id=""), champion({"f1": 0.8}, run_id=""))
    assert judge(found, "f1 >= champion").verdict is Verdict.PASSED


def test_a_narrow_miss_is_explained_with_all_its_digits() -> None:
    report = judge(evidence(model({"accuracy": 0.91999999})), "accuracy >= 0.92")
    assert report.reason == "accuracy >= 0.92: 0.91999999 is not >= 0.92"


def test_the_report_says_what_was_judged_and_survives_json() -> None:
    report = judge(evidence(model({"f1": 0.9}), champion({"f1": 0.8})), "f1 >= champion")
    assert (report.run_id, report.model_name, report.rows) == (CANDIDATE_RUN, "churn", 114)
    assert report.evidence_identity == "evaluation-1"
    assert report.dataset == DatasetPin(uri="data/holdout.csv", version="v7", hash="sha256:ab")
    assert report.reason == "all rules hold (1)"
    text = report.model_dump_json(by_alias=True)
    assert '"schema":"airflow_mcp/gate/4"' in text
    assert GateReport.model_validate_json(text) == report


def test_a_report_of_an_older_version_is_still_read() -> None:
    document = json.loads(judge(evidence(model({"f1": 0.9})), "f1 >= 0.5").model_dump_json(by_alias=True))
    for rule in document["rules"]:
        for name in ("kind", "slice", "low", "high", "rows_needed"):
            del rule[name]
    old = GateReport.model_validate_json(json.dumps({**document, "schema": "airflow_mcp/gate/2"}), strict=True)
    assert old.opens
    assert (old.rules[0].kind, old.rules[0].rows_needed) == ("threshold", None)


def self_reported(metrics: dict[str, float]) -> EvaluationEvidence:
    return EvaluationEvidence(
        identity="evaluation-1",
        run_id=CANDIDATE_RUN,
        self_reported=True,
        rows=0,
        candidate=model(metrics),
        champion=champion({}),
        created_at="2026-11-21T02:00:00+00:00",
    )


def test_self_reported_metrics_are_judged_by_numbers_and_the_report_says_whose_they_are() -> None:
    report = judge(self_reported({"accuracy": 0.95}), "accuracy >= 0.92")
    assert (report.verdict, report.self_reported, report.dataset, report.champion_version) == (
        Verdict.PASSED,
        True,
        None,
        "3",
    )


def test_self_reported_metrics_are_never_compared_with_the_champion() -> None:
    report = judge(self_reported({"accuracy": 0.95}), "accuracy >= 0.92", "accuracy > champion")
    assert report.verdict is Verdict.ERROR
    assert [rule.verdict for rule in report.rules] == [Verdict.PASSED, Verdict.ERROR]
    assert "accuracy > champion: refused: self-reported metrics cannot be compared" in report.reason


def test_a_latency_that_was_not_measured_is_not_a_pass() -> None:
    report = judge(self_reported({"accuracy": 0.95}), "accuracy >= 0.92", "latency_ms <= 150")
    assert report.verdict is Verdict.INCONCLUSIVE


def test_unusable_evidence_is_an_error_that_never_passes() -> None:
    report = error_report(
        "broken", run_id=CANDIDATE_RUN, model_name="churn", created_at="now", policy=GatePolicy.parse(["f1 > 0"])
    )
    assert report.verdict is Verdict.ERROR
    assert not report.opens
    assert (report.rules, report.rows, report.dataset, report.champion_version) == ((), 0, None, None)


def test_a_policy_without_rules_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="thresholds must have at least one rule"):
        GatePolicy.parse([])


def test_one_text_instead_of_a_list_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be a list of rules; got 'accuracy >= 0\.92'"):
        GatePolicy.parse("accuracy >= 0.92")


def test_every_bad_rule_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GatePolicy.parse(["accuracy = 0.92", "f1 >= 0.5", "latency < fast"])
    assert "'accuracy = 0.92'" in str(caught.value)
    assert "'latency < fast'" in str(caught.value)
    assert "'f1 >= 0.5'" not in str(caught.value)


def compared(low: float, high: float, metric: str = "accuracy") -> MetricComparison:
    return MetricComparison(
        metric=metric,
        method="bootstrap",
        difference=(low + high) / 2,
        low=low,
        high=high,
        confidence=0.95,
        p_value=None,
        standard_error=(high - low) / 4,
        rows=1000,
        resamples=1000,
        seed=0,
    )


def in_slices(*, north: int, south: int) -> tuple[SliceEvidence, ...]:
    parts = []
    for value, successes in (("north", north), ("south", south)):
        interval = MetricInterval(
            method="wilson", low=0, high=1, confidence=0.95, standard_error=0.01, successes=successes, trials=1000
        )
        metrics = {"accuracy": successes / 1000}
        parts.append(
            SliceEvidence(column="region", value=value, rows=1000, candidate=metrics, intervals={"accuracy": interval})
        )
    return tuple(parts)


ALL_KINDS = GatePolicy.parse(
    ["accuracy >= 0.8"],
    ["accuracy", {"metric": "f1", "min_effect": 0.02}],
    {"floors": ["accuracy >= 0.7"], "max_gap": {"accuracy": 0.1}},
)


def judge_all(*, f1: tuple[float, float] = (0.03, 0.05), south: int = 900) -> GateReport:
    found = evidence(model({"accuracy": 0.9, "f1": 0.8}), champion({"accuracy": 0.85, "f1": 0.76})).model_copy(
        update={"comparisons": (compared(0.0, 0.1), compared(*f1, "f1")), "slices": in_slices(north=900, south=south)}
    )
    return evaluate_gate(found, ALL_KINDS, model_name="churn", created_at="2026-11-21T02:01:00+00:00")


def test_rules_of_all_kinds_hold_together() -> None:
    report = judge_all()
    assert report.verdict is Verdict.PASSED
    assert [(rule.kind, rule.slice) for rule in report.rules] == [
        ("threshold", ""),
        ("significance", ""),
        ("significance", ""),
        ("slice_floor", "region=north"),
        ("slice_floor", "region=south"),
        ("slice_gap", "region"),
    ]
    assert GateReport.model_validate_json(report.model_dump_json(by_alias=True)) == report


def test_rules_of_all_kinds_are_judged_after_one_has_failed_and_the_worst_decides() -> None:
    report = judge_all(f1=(0.01, 0.05), south=500)
    assert [rule.verdict for rule in report.rules] == [
        Verdict.PASSED,
        Verdict.PASSED,
        Verdict.INCONCLUSIVE,
        Verdict.PASSED,
        Verdict.FAILED,
        Verdict.FAILED,
    ]
    assert report.verdict is Verdict.FAILED
    assert "accuracy >= 0.7 by every slice column" in report.reason
    assert "[region=south]" in report.reason
    assert "f1 better" not in report.reason


def test_one_rule_that_an_interval_does_not_decide_makes_the_gate_inconclusive_with_the_rows_that_would() -> None:
    report = judge_all(f1=(0.01, 0.05))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.rules[2].rows_needed is not None
    assert f"about {report.rules[2].rows_needed} rows would decide it" in report.reason


def test_the_rules_of_a_policy_are_those_of_its_report() -> None:
    assert tuple(dict.fromkeys(rule.rule for rule in judge_all().rules)) == ALL_KINDS.rules()


def test_a_gate_may_have_rules_of_one_kind_only_but_not_none() -> None:
    assert GatePolicy.parse([], ["f1"]).rules()
    assert GatePolicy.parse([], [], {"floors": ["f1 >= 0.5"]}).rules()
    with pytest.raises(InvalidArgumentError, match="thresholds must have at least one rule"):
        GatePolicy.parse([])


def test_every_rule_of_every_kind_that_cannot_be_read_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GatePolicy.parse(["x"], ["latency"], {"floors": []})
    for problem in ("got 'x'", "significance[0].metric", "floors and max_gap are both empty"):
        assert problem in str(caught.value)


def test_a_percentage_of_a_champion_of_zero_is_inconclusive_and_says_what_to_do() -> None:
    report = judge(evidence(model({"r2": 0.1}), champion({"r2": 0.0})), "r2 >= champion + 5%")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "the champion's r2 is 0, of which a percentage means nothing; use an absolute change" in report.reason


def test_a_percentage_of_a_negative_champion_asks_for_more_and_not_for_less() -> None:
    found = evidence(model({"r2": -0.51}), champion({"r2": -0.5}))
    assert judge(found, "r2 >= champion + 2%").verdict is Verdict.FAILED
    assert judge(found, "r2 >= champion - 2%").verdict is Verdict.PASSED
    assert judge(found, "r2 >= champion * 1.02").verdict is Verdict.PASSED


# --- modes ------------------------------------------------------------------------------------------------------------
GOOD, BAD, UNKNOWN = {"f1": 0.9}, {"f1": 0.1}, {"recall": 1.0}


@pytest.mark.parametrize(
    ("mode", "dry_run", "metrics", "verdict", "decision"),
    [
        ("enforce", False, GOOD, "passed", "passed"),
        ("enforce", False, BAD, "failed", "failed"),
        ("enforce", False, UNKNOWN, "inconclusive", "inconclusive"),
        ("warn", False, GOOD, "passed", "passed"),
        ("warn", False, BAD, "failed", "warned"),
        ("warn", False, UNKNOWN, "inconclusive", "warned"),
        ("enforce", True, GOOD, "passed", None),
        ("enforce", True, BAD, "failed", None),
        ("warn", True, BAD, "failed", None),
        ("enforce", True, UNKNOWN, "inconclusive", None),
    ],
)
def test_what_follows_from_a_verdict_depends_on_the_mode(
    mode: Any, dry_run: bool, metrics: dict[str, float], verdict: str, decision: str | None
) -> None:
    policy = GatePolicy.parse(["f1 >= 0.5"], mode=mode, dry_run=dry_run)
    report = evaluate_gate(evidence(model(metrics)), policy, model_name="churn", created_at="now")
    assert (report.verdict, report.decision, report.mode, report.dry_run) == (verdict, decision, mode, dry_run)
    assert report.opens is (decision in ("passed", "warned"))
    assert GateReport.model_validate_json(report.model_dump_json(by_alias=True), strict=True) == report


@pytest.mark.parametrize(
    ("options", "decision"), [({"mode": "enforce"}, "error"), ({"mode": "warn"}, "error"), ({"dry_run": True}, None)]
)
def test_evidence_that_cannot_be_used_opens_nothing_in_any_mode(options: Any, decision: str | None) -> None:
    policy = GatePolicy.parse(["f1 > 0"], **options)
    report = error_report("broken", run_id=CANDIDATE_RUN, model_name="churn", created_at="now", policy=policy)
    assert report.decision == decision
    assert not report.opens


@pytest.mark.parametrize(
    ("rule", "decision", "said"),
    [
        ("warn: recall >= 0.5", "warned", "1 of 2 rules hold; only warned of: warn: recall >= 0.5: 0.1 is not >= 0.5"),
        ("warn: r2 >= 0.5", "warned", "1 of 2 rules hold; only warned of: warn: r2 >= 0.5: no value of 'r2'"),
        ("warn: recall >= 0.05", "passed", "all rules hold (2)"),
        ("warn: recall >= champion", "passed", "1 of 2 rules hold, the others do not apply"),
        ("dry_run: recall >= 0.5", "passed", "1 of 2 rules hold, the others decide nothing"),
        ("enforce: recall >= 0.5", "failed", "recall >= 0.5: 0.1 is not >= 0.5"),
    ],
)
def test_a_rule_may_be_weaker_than_its_gate(rule: str, decision: str, said: str) -> None:
    report = judge(evidence(model({"f1": 0.9, "recall": 0.1})), "f1 >= 0.5", rule)
    assert report.decision == decision
    assert report.reason.startswith(said)


def test_a_rule_that_only_warns_is_named_after_those_that_fail() -> None:
    report = judge(evidence(model({"f1": 0.1, "recall": 0.1})), "f1 >= 0.5", "warn: recall >= 0.5")
    assert (report.verdict, report.decision) == (Verdict.FAILED, "failed")
    assert report.reason.endswith("0.1 is not >= 0.5; only warned of: warn: recall >= 0.5: 0.1 is not >= 0.5")
    assert [rule.rule for rule in report.warnings] == ["warn: recall >= 0.5"]


def test_a_rule_that_only_warns_is_an_error_when_it_asks_for_what_nobody_knows() -> None:
    report = judge(self_reported({"accuracy": 0.95}), "accuracy >= 0.92", "warn: accuracy > champion")
    assert (report.verdict, report.decision) == (Verdict.ERROR, "error")
    trial = judge(self_reported({"accuracy": 0.95}), "accuracy >= 0.92", "dry_run: accuracy > champion")
    assert trial.decision == "passed"


@pytest.mark.parametrize("rules", [["warn: f1 > 0"], ["warn: f1 > 0", "dry_run: f1 > 0.1"]])
def test_a_gate_of_rules_that_decide_nothing_is_refused(rules: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one rule must be enforced"):
        GatePolicy.parse(rules)


def test_rules_of_all_kinds_may_only_warn() -> None:
    policy = GatePolicy.parse(
        ["accuracy >= 0.8"],
        [{"metric": "f1", "min_effect": 0.02, "mode": "warn"}],
        {"floors": ["accuracy >= 0.95"], "max_gap": {"accuracy": 0.1}, "mode": "warn"},
    )
    found = evidence(model({"accuracy": 0.9}), champion({"accuracy": 0.85})).model_copy(
        update={"slices": in_slices(north=900, south=900)}
    )
    report = evaluate_gate(found, policy, model_name="churn", created_at="now")
    assert (report.verdict, report.decision) == (Verdict.PASSED, "warned")
    assert {rule.mode for rule in report.rules[1:]} == {"warn"}
    assert tuple(dict.fromkeys(rule.rule for rule in report.rules)) == policy.rules()
    assert all(rule.startswith("warn: ") for rule in policy.rules()[1:])


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_reports_of_before_there_were_modes_decide_what_their_verdict_says(schema: int) -> None:
    for metrics, opens in ((GOOD, True), (BAD, False)):
        document = json.loads(judge(evidence(model(metrics)), "f1 >= 0.5").model_dump_json(by_alias=True))
        del document["mode"], document["decision"], document["rules"][0]["mode"], document["rules"][0]["facts"]
        old = GateReport.model_validate_json(json.dumps({**document, "schema": f"airflow_mcp/gate/{schema}"}))
        assert (old.mode, old.opens) == ("enforce", opens)


def test_the_rows_that_are_needed_are_those_of_the_hungriest_rule() -> None:
    assert judge_all(f1=(0.01, 0.05)).rows_needed == judge_all(f1=(0.01, 0.05)).rules[2].rows_needed
    assert judge_all().rows_needed is None
    missing = judge_all(f1=(0.01, 0.05)).model_copy(update={"rules": judge(evidence(model({})), "f1 > 0").rules})
    assert missing.rows_needed is None  # more rows do not measure what was not measured


def test_the_table_for_the_log_has_every_rule_with_its_numbers_and_why() -> None:
    lines = judge(evidence(model({"f1": 0.9})), "f1 >= 0.5", "r2 > champion", "warn: x > 1").table().splitlines()
    assert lines[0].split() == ["verdict", "value", "bound", "rule"]
    assert lines[1].split() == ["passed", "0.9", "0.5", "f1", ">=", "0.5"]
    assert lines[2].strip() == "0.9 is >= 0.5"
    assert lines[3].split() == ["does", "not", "apply", "-", "-", "r2", ">", "champion"]
    assert lines[5].endswith("  warn: x > 1")
