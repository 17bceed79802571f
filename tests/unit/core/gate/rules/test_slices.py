"""Floors and gaps over slices: corrected p-values, small slices, and what was not measured."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, MetricInterval, ModelEvidence, SliceEvidence
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.slices import SlicePolicy, correct, judge_slices, wilson_interval
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import InvalidArgumentError

PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE


def proportion(value: str, successes: int, trials: int, column: str = "region") -> SliceEvidence:
    low, high = wilson_interval(successes, trials, 0.95)
    interval = MetricInterval(
        method="wilson",
        low=low,
        high=high,
        confidence=0.95,
        standard_error=0.0,
        successes=successes,
        trials=trials,
    )
    return SliceEvidence(
        column=column,
        value=value,
        rows=trials,
        candidate={"accuracy": successes / trials},
        intervals={"accuracy": interval},
    )


def measured(value: str, mae: float, error: float, rows: int = 1000) -> SliceEvidence:
    interval = MetricInterval(
        method="bootstrap", low=mae - 2 * error, high=mae + 2 * error, confidence=0.95, standard_error=error
    )
    return SliceEvidence(column="region", value=value, rows=rows, candidate={"mae": mae}, intervals={"mae": interval})


def judge(*parts: SliceEvidence, evidence: dict[str, Any] | None = None, **policy: Any) -> tuple[RuleResult, ...]:
    given: dict[str, Any] = {
        "identity": "e",
        "run_id": "r",
        "model_type": "classifier",
        "target": "y",
        "dataset": DatasetPin(uri="d.csv"),
        "rows": 1000,
        "candidate": ModelEvidence(model_uri="models:/m-1", metrics={}),
        "champion": None,
        "slices": parts,
        "created_at": "2026-11-21T02:00:00+00:00",
        **(evidence or {}),
    }
    return judge_slices(SlicePolicy(**policy), EvaluationEvidence(**given))


def verdicts(results: tuple[RuleResult, ...]) -> list[Verdict | None]:
    return [result.verdict for result in results]


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_corrected_p_values_are_those_of_statsmodels(correction: str) -> None:
    from statsmodels.stats.multitest import multipletests

    values = [0.04, 0.001, 0.3, 0.012, 0.012, 0.9, 0.0, 1.0]
    expected = multipletests(values, method=correction)[1]
    assert correct(values, correction) == pytest.approx(list(expected))  # type: ignore[arg-type]
    assert correct([], correction) == []  # type: ignore[arg-type]


def test_without_a_correction_p_values_stay() -> None:
    assert correct([0.5, 0.01], "none") == [0.5, 0.01]


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 20), (810, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_interval_of_a_proportion_is_wilsons(successes: int, trials: int, confidence: float) -> None:
    from statsmodels.stats.proportion import proportion_confint

    expected = proportion_confint(successes, trials, 1 - confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("successes", "verdict"), [(840, PASSED), (800, INCONCLUSIVE), (760, FAILED)])
def test_a_slice_passes_or_fails_a_floor_only_for_certain(successes: int, verdict: Verdict) -> None:
    (result,) = judge(proportion("north", successes, 1000), floors=["accuracy >= 0.8"])
    assert (result.verdict, result.slice, result.kind) == (verdict, "region=north", "slice_floor")
    assert (result.value, result.bound) == (successes / 1000, 0.8)
    assert (result.low, result.high) == wilson_interval(successes, 1000, 0.95)


@pytest.mark.parametrize("successes", range(0, 201, 5))
@pytest.mark.parametrize("floor", [0.0, 0.3, 0.8, 1.0])
def test_one_slice_is_certain_exactly_when_the_floor_is_outside_its_interval(successes: int, floor: float) -> None:
    (result,) = judge(proportion("north", successes, 200), floors=[f"accuracy >= {floor}"])
    low, high = wilson_interval(successes, 200, 0.95)
    outside = not low <= floor <= high
    share = successes / 200
    expected = INCONCLUSIVE if not outside else PASSED if share >= floor else FAILED
    assert result.verdict is expected


def test_many_slices_need_more_certainty_than_one() -> None:
    parts = [proportion(f"r{number}", 828, 1000) for number in range(10)]
    assert verdicts(judge(parts[0], floors=["accuracy >= 0.8"])) == [PASSED]
    assert verdicts(judge(*parts, floors=["accuracy >= 0.8"], correction="none")) == [PASSED] * 10
    assert verdicts(judge(*parts, floors=["accuracy >= 0.8"], correction="bonferroni")) == [INCONCLUSIVE] * 10
    assert verdicts(judge(*parts, floors=["accuracy >= 0.8"])) == [INCONCLUSIVE] * 10


def test_holm_finds_what_bonferroni_misses_and_both_keep_the_order_of_the_slices() -> None:
    parts = [proportion("a", 830, 1000), proportion("b", 990, 1000), proportion("c", 700, 1000)]
    assert verdicts(judge(*parts, floors=["accuracy >= 0.8"])) == [PASSED, PASSED, FAILED]
    assert verdicts(judge(*parts, floors=["accuracy >= 0.8"], correction="bonferroni")) == [
        INCONCLUSIVE,
        PASSED,
        FAILED,
    ]


def test_the_rows_that_would_decide_grow_with_the_number_of_slices() -> None:
    (alone,) = judge(proportion("a", 810, 1000), floors=["accuracy >= 0.8"])
    among = judge(*(proportion(name, 810, 1000) for name in "abcd"), floors=["accuracy >= 0.8"])[0]
    assert alone.rows_needed is not None
    assert among.rows_needed is not None
    assert 1000 < alone.rows_needed < among.rows_needed
    assert f"about {alone.rows_needed} rows in the slice would decide it" in alone.reason


def test_a_small_slice_is_inconclusive_and_does_not_count_as_a_test() -> None:
    small, big = judge(proportion("a", 1, 29), proportion("b", 830, 1000), floors=["accuracy >= 0.8"])
    assert (small.verdict, small.rows_needed) == (INCONCLUSIVE, 30)
    assert small.reason == "accuracy rests on 29 rows; at least 30 are needed"
    assert big.verdict is PASSED
    assert "over 1 slices" in big.reason
    assert judge(proportion("a", 1, 30), floors=["accuracy >= 0.8"])[0].verdict is FAILED


def test_less_is_better_where_the_floor_is_an_upper_bound() -> None:
    parts = [measured("a", 2.0, 0.1), measured("b", 2.95, 0.1), measured("c", 4.0, 0.1)]
    assert verdicts(judge(*parts, floors=["mae <= 3"])) == [PASSED, INCONCLUSIVE, FAILED]


def test_a_resampled_value_without_any_variation_is_inconclusive() -> None:
    (result,) = judge(measured("a", 1.0, 0.0), floors=["mae <= 3"])
    assert result.verdict is INCONCLUSIVE
    assert "every resample gives the same value" in result.reason


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (SliceEvidence(column="region", value="a", rows=99, candidate={}), "no value of 'accuracy' in this slice"),
        (SliceEvidence(column="region", value="a", rows=99, candidate={"accuracy": 1.0}), "has no interval of"),
    ],
    ids=["undefined", "without-interval"],
)
def test_what_was_not_measured_in_a_slice_is_inconclusive(part: SliceEvidence, reason: str) -> None:
    floor, gap = judge(part, floors=["accuracy >= 0.5"], max_gap={"accuracy": 1.0})
    assert floor.verdict is gap.verdict is INCONCLUSIVE
    assert reason in floor.reason
    assert reason in gap.reason


def test_slices_that_the_evaluation_did_not_measure_are_inconclusive() -> None:
    results = judge(floors=["accuracy >= 0.5"], max_gap={"accuracy": 0.1})
    assert verdicts(results) == [INCONCLUSIVE] * 2
    assert results[0].reason == "the evaluation has no slices at all; name the column in its slices"
    results = judge(proportion("a", 90, 100), floors=["accuracy >= 0.5"], by=["region", "sex"])
    assert verdicts(results) == [PASSED, INCONCLUSIVE]
    assert "has no slices by 'sex'" in results[1].reason


def test_self_reported_evidence_has_no_slices_and_is_refused() -> None:
    nothing = {"self_reported": True, "dataset": None, "model_type": None, "rows": 0}
    assert verdicts(judge(evidence=nothing, floors=["accuracy >= 0.5"])) == [Verdict.ERROR]


def test_only_the_columns_that_are_named_are_judged() -> None:
    parts = [proportion("a", 10, 100), proportion("f", 90, 100, column="sex")]
    results = judge(*parts, floors=["accuracy >= 0.5"], by=["sex"])
    assert [(result.slice, result.verdict) for result in results] == [("sex=f", PASSED)]


@pytest.mark.parametrize(
    ("other", "verdict"), [(905, PASSED), (870, INCONCLUSIVE), (800, FAILED)], ids=["near", "unsure", "far"]
)
def test_a_gap_passes_or_fails_only_for_certain(other: int, verdict: Verdict) -> None:
    (result,) = judge(proportion("a", 900, 1000), proportion("b", other, 1000), max_gap={"accuracy": 0.05})
    assert (result.verdict, result.kind, result.slice) == (verdict, "slice_gap", "region")
    assert result.value == pytest.approx(abs(900 - other) / 1000)
    assert result.low is not None
    assert result.high is not None
    assert result.low < result.value < result.high


def test_the_error_of_a_gap_is_agresti_and_caffos() -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep

    (result,) = judge(proportion("a", 45, 50), proportion("b", 60, 80), max_gap={"accuracy": 0.5})
    low, high = confint_proportions_2indep(45, 50, 60, 80, method="agresti-caffo", compare="diff")
    assert (result.low, result.high) != (None, None)
    assert (result.high or 0) - (result.low or 0) == pytest.approx(high - low, abs=1e-9)


def test_one_pair_that_is_too_far_apart_fails_the_column() -> None:
    parts = [proportion("a", 900, 1000), proportion("b", 905, 1000), proportion("c", 700, 1000)]
    (result,) = judge(*parts, max_gap={"accuracy": 0.05})
    assert result.verdict is FAILED
    assert "largest gap 0.205 between b (0.905) and c (0.7)" in result.reason


def test_a_gap_cannot_pass_while_a_slice_is_too_small_but_can_fail() -> None:
    small = proportion("tiny", 5, 5)
    (unsure,) = judge(proportion("a", 900, 1000), proportion("b", 900, 1000), small, max_gap={"accuracy": 0.05})
    assert unsure.verdict is INCONCLUSIVE
    assert "not compared: tiny (accuracy rests on 5 rows" in unsure.reason
    (far,) = judge(proportion("a", 900, 1000), proportion("b", 700, 1000), small, max_gap={"accuracy": 0.05})
    assert far.verdict is FAILED


def test_one_slice_alone_has_no_gap() -> None:
    (result,) = judge(proportion("a", 900, 1000), max_gap={"accuracy": 0.05})
    assert result.verdict is INCONCLUSIVE
    assert "there is only one slice" in result.reason


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "floors and max_gap are both empty"),
        ({"floors": ["accuracy = 1"]}, "got 'accuracy = 1'"),
        ({"floors": ["accuracy >= champion"]}, "floors compare with numbers, not with the champion: accuracy >="),
        ({"max_gap": {"accuracy": -0.1}}, "slices.max_gap.accuracy must be at least 0; got -0.1"),
        (
            {"floors": ["f1 > 0"], "correction": "fdr"},
            "slices.correction must be one of holm, bonferroni, none; got 'fdr'",
        ),
        ({"floors": ["f1 > 0"], "min_rows": 0}, "slices.min_rows"),
        ({"floors": ["f1 > 0"], "floor": 1}, "slices.floor is not a known name. Did you mean 'floors'?"),
        ({"floors": "f1 > 0"}, "slices.floors"),
        (["f1 > 0"], "slices must be a mapping; got a list"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_argument(SlicePolicy, "slices", given)
    assert problem in str(caught.value)


def test_the_rules_of_a_policy_are_those_of_its_results() -> None:
    policy = SlicePolicy(floors=("accuracy >= 0.8",), max_gap={"accuracy": 0.05}, by=("region",), min_rows=10)
    results = judge(proportion("a", 9, 10), **policy.model_dump())
    assert tuple(dict.fromkeys(result.rule for result in results)) == policy.rules()
    assert policy.rules()[0] == "accuracy >= 0.8 by region (0.95 confidence, >= 10 rows, correction holm)"
