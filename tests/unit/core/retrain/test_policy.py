"""What a retrain policy may say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.exceptions import InvalidArgumentError


def test_a_policy_that_could_never_retrain_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no reason to retrain: set on_drift=True"):
        RetrainPolicy(on_drift=False)


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every", "cooldown", "label_delay"])
def test_a_negative_time_is_refused_by_name(name: str) -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=rf"{name} must be (zero or longer|longer than zero); got datetime.timedelta\(days=-1\)",
    ):
        RetrainPolicy(**{name: timedelta(days=-1)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_model_age", "retrain_every"])
def test_a_limit_of_zero_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"{name} must be longer than zero; got datetime.timedelta\(0\)"):
        RetrainPolicy(**{name: timedelta(0)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"violations": 0}, "violations must be a whole number from 1 to 1; got 0"),
        ({"violations": 3, "window_count": 2}, "violations must be a whole number from 1 to 2; got 3"),
        ({"window_count": 21}, "window_count must be a whole number from 1 to 20; got 21"),
        ({"window_count": None}, "window_count must be a whole number from 1 to 20; got None"),
        ({"daily_budget": 0}, "daily_budget must be a whole number from 1 to 20; got 0"),
        ({"weekly_budget": 2.5}, "weekly_budget must be a whole number from 1 to 20; got 2.5"),
        ({"max_rejections": True}, "max_rejections must be a whole number from 1; got True"),
        ({"min_new_rows": -1}, "min_new_rows must be a whole number from 1; got -1"),
        ({"min_new_labels": "many"}, "min_new_labels must be a whole number from 1; got 'many'"),
    ],
)
def test_a_number_that_means_nothing_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RetrainPolicy(**changes)
    assert message in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RetrainPolicy(on_drift=False, daily_budget=0, cooldown=timedelta(days=-1))
    assert all(name in str(caught.value) for name in ("on_drift", "daily_budget", "cooldown"))


def test_every_limit_can_be_switched_off() -> None:
    policy = RetrainPolicy(daily_budget=None, weekly_budget=None, max_rejections=None, cooldown=timedelta(0))
    assert policy.daily_budget is policy.weekly_budget is policy.max_rejections is None
