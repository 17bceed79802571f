"""The difference between the predictions of canary and champion, and its bounds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from airflow_mcp.core.gate.rules.thresholds import parse_threshold
from airflow_mcp.core.rollout.analysis import analyse
from airflow_mcp.core.rollout.plan import read_plan
from airflow_mcp.core.rollout.samples import Counts, Pair
from airflow_mcp.core.rollout.shift import prediction_shift
from airflow_mcp.core.serving.prediction_ranges import range_name, range_of
from airflow_mcp.exceptions import InvalidArgumentError

RULE = "prediction_shift <= 0.1"


def classes(**counts: float) -> Counts:
    return Counts(answered=sum(counts.values()), classes=counts)


def numbers(values: list[float]) -> Counts:
    ranges: Mapping[str, int] = Counter(range_name(range_of(value)) for value in values)
    return Counts(answered=len(values), ranges=dict(ranges))


def judged(canary: Counts, champion: Counts, rule: str = RULE) -> str:
    return analyse([parse_threshold(rule)], Pair(canary=canary, champion=champion), 50, is_sticky=True).verdict


class TestClasses:
    def test_equal_shares_pass_as_soon_as_there_are_enough_predictions(self) -> None:
        assert judged(classes(yes=10, no=40), classes(yes=200, no=800)) == "inconclusive"
        assert judged(classes(yes=100, no=400), classes(yes=200, no=800)) == "passed"

    def test_another_share_of_a_class_fails_either_way(self) -> None:
        more, less = classes(yes=200, no=300), classes(yes=20, no=480)
        champion = classes(yes=200, no=800)
        assert judged(more, champion) == judged(less, champion) == "failed"

    def test_a_class_that_only_one_side_predicts_counts(self) -> None:
        assert judged(classes(yes=100, new=300), classes(yes=400)) == "failed"
        assert judged(classes(yes=400), classes(yes=100, gone=300)) == "failed"
        assert judged(classes(yes=4_000, new=10), classes(yes=4_000)) == "passed"

    def test_the_reason_names_the_class_with_the_largest_difference(self) -> None:
        found = prediction_shift(classes(a=200, b=300, c=500), classes(a=100, b=600, c=300), 0.05)
        assert found.value == pytest.approx(0.3)
        assert found.reason.startswith("class b: 300 of 1000 of the canary, 600 of 1000 of the champion; ")
        assert "allowed are 5.000% either way" in found.reason


class TestNumbers:
    def test_the_same_distribution_passes_and_a_moved_one_fails(self) -> None:
        rng = random.Random(7)
        champion = numbers([rng.gauss(100, 20) for _ in range(5_000)])
        assert judged(numbers([rng.gauss(100, 20) for _ in range(5_000)]), champion) == "passed"
        assert judged(numbers([rng.gauss(125, 20) for _ in range(5_000)]), champion) == "failed"
        assert judged(numbers([rng.gauss(100, 20) for _ in range(20)]), champion) == "inconclusive"

    def test_the_order_is_that_of_the_numbers(self) -> None:
        rng = random.Random(8)
        values = [rng.uniform(-1, 1) for _ in range(4_000)]
        found = prediction_shift(numbers(values), numbers([-value for value in values]), 0.1)
        assert found.value is not None
        assert found.value < 0.05
        assert prediction_shift(numbers([abs(value) for value in values]), numbers(values), 0.1).broken

    def test_predictions_that_are_no_number_are_a_shift(self) -> None:
        champion = numbers([1.0] * 500)
        found = prediction_shift(numbers([1.0] * 250 + [float("nan")] * 250), champion, 0.1)
        assert found.broken
        assert found.value == pytest.approx(0.5)

    def test_many_different_whole_numbers_are_compared_as_numbers(self) -> None:
        rng = random.Random(9)
        made = [numbers([float(rng.randrange(1_000)) for _ in range(3_000)]) for _ in range(2)]
        mixed = [side.model_copy(update={"classes": {"1": 10.0, "other": 2_990.0}}) for side in made]
        assert judged(mixed[0], mixed[1]) == "passed"


class TestMissingDataIsNeverAPass:
    @pytest.mark.parametrize(
        ("canary", "champion", "reason"),
        [
            (Counts(answered=9_000), classes(a=9_000), "the canary has no predictions"),
            (classes(a=9_000), Counts(answered=9_000), "the champion has no predictions"),
            (classes(a=5_000, other=4_000), classes(a=5_000, other=4_000), "neither all numbers nor all of at most"),
            (classes(a=9_000), numbers([1.0] * 9_000), "neither all numbers nor all of at most"),
        ],
    )
    def test_what_cannot_be_compared_is_inconclusive(self, canary: Counts, champion: Counts, reason: str) -> None:
        found = analyse([parse_threshold(RULE)], Pair(canary=canary, champion=champion), 50)
        assert found.verdict == "inconclusive"
        assert reason in found.reason


def test_a_sound_canary_is_rarely_failed_and_a_shifted_one_is_never_passed() -> None:
    """80 rollouts of 10 looks at 20 classes: each verdict is wrong at most as often as its bound says."""
    rng = random.Random(11)
    names = [f"c{number}" for number in range(20)]
    weights = [1.0] * 19 + [4.0]
    shifted = [1.0] * 19 + [8.5]  # the last class: 17 % before, 31 % now
    wrong = {"failed": 0, "passed": 0}
    for _ in range(80):
        champion: Counter[str] = Counter()
        sound: Counter[str] = Counter()
        other: Counter[str] = Counter()
        for _ in range(10):
            champion.update(rng.choices(names, weights, k=60))
            sound.update(rng.choices(names, weights, k=20))
            other.update(rng.choices(names, shifted, k=20))
        wrong["failed"] += judged(classes(**sound), classes(**champion)) == "failed"
        wrong["passed"] += judged(classes(**other), classes(**champion)) == "passed"
    assert wrong == {"failed": 0, "passed": 0}


@pytest.mark.parametrize("value", [1e-9, 0.0, 1e-6, 0.5, 1.0, 9.99, 1e9, 1e300, float("inf")])
def test_ranges_are_in_the_order_of_their_values_and_symmetric(value: float) -> None:
    number = range_of(value)
    assert number is not None
    assert range_of(-value) == -number
    bigger = range_of(value * 1.3 + 1e-6)
    assert bigger is not None
    assert bigger >= number
    assert float(range_name(bigger)) >= float(range_name(number))


def test_every_range_has_a_name_of_its_own() -> None:
    names = [range_name(number) for number in range(-300, 301)]
    assert len(set(names)) == len(names)
    assert sorted(names, key=float) == names


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("prediction_shift <= champion + 0.1", "limit of prediction_shift must be a number below 1"),
        ("prediction_shift <= 1", "limit of prediction_shift must be a number below 1"),
        ("prediction_shift <= 0", "limit must be more than 0"),
        ("prediction_shift >= 0.1", "rule must have <= or <"),
        ("unfit_rate <= champion", "rule must allow a difference, such as unfit_rate <= champion + 0.005"),
    ],
)
def test_a_rule_that_cannot_be_decided_is_refused(rule: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem.replace("+", r"\+")):
        read_plan({"steps": [{"setWeight": 5}, {"analysis": "10m"}], "rules": [rule]})


def test_a_shift_needs_a_champion_that_is_asked_something() -> None:
    with pytest.raises(InvalidArgumentError, match="compares with the champion, which is asked nothing at weight 100"):
        read_plan({"steps": [{"setWeight": 100}, {"analysis": "10m"}], "rules": [RULE]})
