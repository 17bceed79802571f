"""Windows of a quality check, and limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.quality.policy import QualityLimit, QualityPolicy, TrafficLimits, window_bounds, window_name

LIMIT = QualityLimit(metric="accuracy", minimum=0.8)
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def policy(**fields: Any) -> QualityPolicy:
    return QualityPolicy(**{"limits": (LIMIT,), **fields})


def days(found: list[Any], *, due: bool) -> list[int]:
    return [window.start.day for window in found if window.is_due is due]


class TestWindows:
    def test_the_newest_that_have_ended_are_judged_and_the_present_one_is_not(self) -> None:
        found = window_bounds(policy(windows=3), NOON)
        assert (days(found, due=True), days(found, due=False)) == ([26, 27, 28], [])
        assert found[-1].end == datetime(2026, 11, 29, tzinfo=UTC)

    def test_one_whose_labels_are_not_expected_yet_waits(self) -> None:
        found = window_bounds(policy(windows=2, label_delay=timedelta(days=3)), NOON)
        assert (days(found, due=True), days(found, due=False)) == ([24, 25], [26, 27, 28])

    def test_the_delay_has_passed_at_its_very_end(self) -> None:
        midnight = datetime(2026, 11, 29, tzinfo=UTC)
        delayed = policy(windows=1, label_delay=timedelta(days=1))
        assert days(window_bounds(delayed, midnight), due=True) == [27]
        assert days(window_bounds(delayed, midnight - timedelta(microseconds=1)), due=True) == [26]

    def test_a_window_has_one_name_in_every_check(self) -> None:
        early, late = (window_bounds(policy(windows=7), NOON + timedelta(days=shift)) for shift in (0, 3))
        names = [{window_name(each.start, timedelta(days=1)) for each in found} for found in (early, late)]
        assert len(names[0] & names[1]) == 4
        assert window_name(NOON, timedelta(days=1)) != window_name(NOON, timedelta(hours=1))


class TestALimit:
    def test_is_a_number_or_a_loss_against_the_champions_evaluation(self) -> None:
        better = QualityLimit(metric="recall", largest_loss=0.05)
        lower = QualityLimit(metric="rmse", largest_loss=2.0)
        assert (better.bound(0.9), better.needs_at_least) == (pytest.approx(0.85), True)
        assert (lower.bound(10.0), lower.needs_at_least) == (12.0, False)
        assert better.bound(None) is None
        assert (LIMIT.bound(None), LIMIT.needs_at_least) == (0.8, True)

    @pytest.mark.parametrize("fields", [{}, {"minimum": 0.5, "maximum": 0.7}, {"minimum": 0.5, "largest_loss": 0.1}])
    def test_is_given_in_one_way(self, fields: dict[str, float]) -> None:
        with pytest.raises(ValidationError, match="give exactly one of minimum, maximum and largest_loss"):
            QualityLimit(metric="accuracy", **fields)


class TestThePolicy:
    def test_needs_a_limit(self) -> None:
        with pytest.raises(ValidationError, match="limits"):
            QualityPolicy(limits=())

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"window": timedelta(seconds=30)}, "window must be a whole number of seconds, at least 60"),
            ({"label_delay": timedelta(days=-1)}, "label_delay must be zero or longer"),
            ({"label_delay": timedelta(days=101)}, "label_delay must be at most 100 windows"),
            ({"min_labelled": 0}, "min_labelled"),
            ({"windows": 21}, "windows"),
        ],
    )
    def test_refuses_what_cannot_be_judged(self, fields: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValidationError, match=problem):
            policy(**fields)

    def test_travels_as_json(self) -> None:
        given = policy(window="PT6H", label_delay="P7D", traffic=TrafficLimits(window=timedelta(minutes=1)))
        assert parse_document(QualityPolicy, dump_document(given), "policy") == given
        assert given.window == timedelta(hours=6)
