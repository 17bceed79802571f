"""How many answers may change: numbers in, verdicts out; nothing that is missing is a pass."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from statsmodels.stats.proportion import proportion_confint

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, ModelEvidence, ModelUnderTest
from airflow_mcp.core.evaluation.replay import ModelTroubles, ReplayEvidence, ReplaySegment
from airflow_mcp.core.gate.judgement import evaluate_gate
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.replay import ReplayRule, judge_replay
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import InvalidArgumentError

RUN = "r" * 32
CANDIDATE, CHAMPION = "models:/m-1", "models:/churn/3"


def evaluated(**changes: Any) -> EvaluationEvidence:
    given: dict[str, Any] = {
        "identity": "evaluation-1",
        "run_id": RUN,
        "model_type": "classifier",
        "target": "y",
        "dataset": DatasetPin(uri="data.csv", hash="sha256:ab"),
        "rows": 100,
        "candidate": ModelEvidence(model_uri=CANDIDATE, run_id=RUN, metrics={"accuracy": 0.9}),
        "champion": ModelEvidence(model_uri=CHAMPION, run_id="q", version="3", metrics={"accuracy": 0.8}),
        "created_at": "2026-11-21T02:00:00+00:00",
    }
    return EvaluationEvidence(**(given | changes))


def replayed(**changes: Any) -> ReplayEvidence:
    given: dict[str, Any] = {
        "identity": "replay-1",
        "run_id": RUN,
        "candidate": ModelUnderTest(model_uri=CANDIDATE),
        "champion": ModelUnderTest(model_uri=CHAMPION, version="3"),
        "model_type": "classifier",
        "source": "/log",
        "files": 1,
        "available": 9_000,
        "requests": 2_000,
        "compared": 2_000,
        "flips": 20,
        "candidate_only_missing": 0,
        "candidate_troubles": ModelTroubles(),
        "champion_troubles": ModelTroubles(),
        "deltas": None,
        "created_at": "2026-11-21T02:00:00+00:00",
    }
    return ReplayEvidence(**(given | changes))


def verdicts(rule: ReplayRule, replay: ReplayEvidence | None, **changes: Any) -> list[Verdict | None]:
    return [item.verdict for item in judge_replay(rule, evaluated(**changes), replay, same_model=False)]


@pytest.mark.parametrize(
    ("flips", "verdict"),
    [
        (0, Verdict.PASSED),
        (20, Verdict.PASSED),
        (40, Verdict.INCONCLUSIVE),
        (60, Verdict.FAILED),
        (2000, Verdict.FAILED),
    ],
)
def test_only_a_whole_interval_decides(flips: int, verdict: Verdict) -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.02), evaluated(), replayed(flips=flips), same_model=False)
    assert result.verdict is verdict
    low, high = proportion_confint(flips, 2000, 0.05, method="wilson")
    assert (result.value, result.low, result.high) == pytest.approx((flips / 2000, low, high), abs=1e-12)
    assert (result.bound, result.kind) == (0.02, "replay")


def test_an_undecided_share_says_how_many_requests_would_decide() -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.02), evaluated(), replayed(flips=35), same_model=False)
    assert result.rows_needed is not None
    assert result.rows_needed > 2000
    assert f"about {result.rows_needed} requests would decide it" in result.reason


def test_a_request_that_only_the_champion_answers_counts_as_changed() -> None:
    lost = replayed(compared=1_900, flips=0, candidate_only_missing=100)
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.02), evaluated(), lost, same_model=False)
    assert (result.verdict, result.value) == (Verdict.FAILED, 0.05)


def test_no_champion_means_that_the_rule_does_not_apply() -> None:
    rule = ReplayRule(max_flip_rate=0.02, segments=("region",))
    assert verdicts(rule, None, champion=None) == [None, None]
    assert verdicts(rule, replayed(), champion=None) == [None, None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"requests": 999, "compared": 999, "flips": 0}, "999 requests; at least 1000 are needed"),
        ({"requests": 0, "compared": 0, "flips": 0}, "0 of 0 requests are unusable (none was taken)"),
        ({"unreadable": 21, "compared": 1_979}, "21 of 2000 requests are unusable (21 unreadable)"),
        ({"undated": 300}, "300 of 2300 requests are unusable (300 without a time)"),
        ({"compared": 1_000, "flips": 0}, "1000 of 2000 requests are unusable (1000 not answered by the champion)"),
    ],
    ids=["few", "none", "unreadable", "undated", "champion-silent"],
)
def test_too_few_requests_that_say_something_are_never_a_pass(changes: dict[str, Any], reason: str) -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.5), evaluated(), replayed(**changes), same_model=False)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert reason in result.reason


def test_a_few_requests_left_out_do_not_stop_the_judgement() -> None:
    assert verdicts(ReplayRule(max_flip_rate=0.5), replayed(unreadable=20, compared=1_980)) == [Verdict.PASSED]


def test_without_a_replay_the_rule_is_inconclusive() -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.5), evaluated(), None, same_model=False)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "run ReplayModelOperator before the gate" in result.reason


def test_the_candidate_is_not_compared_with_itself() -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.5), evaluated(), replayed(flips=0), same_model=True)
    assert result.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"champion": ModelUnderTest(model_uri="models:/churn/2", version="2")}, "champion models:/churn/2"),
        ({"candidate": ModelUnderTest(model_uri="models:/m-2")}, "candidate models:/m-2, evaluated was models:/m-1"),
        ({"run_id": "s" * 32}, "evaluated was rrrr"),
    ],
)
def test_a_replay_of_other_models_than_were_evaluated_is_an_error(changes: dict[str, Any], reason: str) -> None:
    (result,) = judge_replay(ReplayRule(max_flip_rate=0.5), evaluated(), replayed(**changes), same_model=False)
    assert result.verdict is Verdict.ERROR
    assert reason in result.reason


def segment(value: str, compared: int, flips: int) -> ReplaySegment:
    return ReplaySegment(column="region", value=value, compared=compared, flips=flips)


def test_every_segment_is_judged_with_the_error_shared_between_them() -> None:
    parts = (segment("north", 1_500, 5), segment("south", 450, 15), segment("west", 50, 0))
    rule = ReplayRule(max_flip_rate=0.02, segments=("region", "sex"), max_segment_flip_rate=0.03)
    whole, north, south, west, sex = judge_replay(rule, evaluated(), replayed(segments=parts), same_model=False)
    assert (whole.verdict, north.verdict) == (Verdict.PASSED, Verdict.PASSED)
    assert south.verdict is west.verdict is sex.verdict is Verdict.INCONCLUSIVE
    assert (north.slice, south.slice, north.kind) == ("region=north", "region=south", "replay_segment")
    assert (south.low, south.high) == pytest.approx(proportion_confint(15, 450, 0.05 / 3, method="wilson"))
    assert "50 requests; at least 100 are needed" in west.reason
    assert "no segments by 'sex'" in sex.reason


def test_the_rule_is_written_with_everything_that_decides() -> None:
    rule = ReplayRule(max_flip_rate=0.02, segments=("region",), max_segment_flip_rate=0.05)
    assert rule.rules() == (
        "flip_rate <= 0.02 (0.95 confidence, >= 1000 requests, <= 0.01 left out)",
        "flip_rate <= 0.05 by region (0.95 confidence, >= 100 requests, <= 0.01 left out)",
    )


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan")])
def test_a_limit_that_no_interval_can_keep_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="max_flip_rate"):
        ReplayRule(max_flip_rate=value)


def test_a_gate_with_a_replay_alone_judges_it_and_reports_each_rule() -> None:
    policy = GatePolicy.parse([], replay={"max_flip_rate": 0.02})
    report = evaluate_gate(evaluated(), policy, model_name="churn", created_at="now", replay=replayed(flips=100))
    assert (report.verdict, len(report.rules)) == (Verdict.FAILED, 1)
    assert policy.rules() == (report.rules[0].rule,)


def test_a_replay_that_only_warns_does_not_stop_the_gate() -> None:
    policy = GatePolicy.parse(["accuracy >= 0.5"], replay={"max_flip_rate": 0.02, "mode": "warn"})
    report = evaluate_gate(evaluated(), policy, model_name="churn", created_at="now", replay=replayed(flips=100))
    assert report.verdict is Verdict.PASSED
    assert report.decision == "warned"


def test_a_mapping_that_cannot_be_read_names_what_is_allowed() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"replay\.max_flips is not a known name\. Did you mean 'max_flip_rate'\?"
    ):
        GatePolicy.parse([], replay={"max_flips": 0.02})


def test_evidence_whose_counts_do_not_fit_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="do not fit together"):
        replayed(flips=2_001)
    with pytest.raises(ValidationError, match="do not fit together"):
        replayed(compared=1_990, candidate_only_missing=11)
