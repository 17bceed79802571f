"""Plans are checked when they are read, not when their step is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core.rollout.plan import (
    BLUE_GREEN_STEPS,
    CANARY_STEPS,
    Analysis,
    Pause,
    SetWeight,
    Shadow,
    read_plan,
)
from airflow_mcp.exceptions import InvalidArgumentError

STEPS = ({"setWeight": 5}, {"analysis": "10m"})
SHADOW = {"shadow": {"percent": 20, "for": "10m"}}
ROLLBACK = {"metric": "http_5xx_rate", "threshold": "0.05", "duration": "2m"}


def test_reads_steps_as_data() -> None:
    steps = [{"setWeight": 5}, {"pause": "1h"}, {"analysis": timedelta(minutes=10)}, {"pause": {}}]
    assert read_plan({"steps": steps}).steps == (
        SetWeight(weight=5),
        Pause(seconds=3600),
        Analysis(seconds=600),
        Pause(seconds=None),
    )


def test_reads_a_shadow_step_and_queries() -> None:
    rules = ["http_5xx_rate <= 0.01", "conversion >= 0.02"]
    plan = read_plan({"steps": [SHADOW, *STEPS], "rules": rules, "queries": {"conversion": "sum(sales)"}})
    assert plan.steps[0] == Shadow(percent=20, seconds=600)
    assert [str(rule) for rule in plan.shadow_thresholds] == rules[:1]
    assert type(plan).model_validate_json(plan.model_dump_json(by_alias=True), strict=True) == plan


def test_reads_where_servers_go_back_to() -> None:
    assert read_plan({"steps": STEPS}).stable_version == "previous_champion"
    assert read_plan({"steps": STEPS, "rollback": ROLLBACK, "stable_version": "v1.7.3"}).stable_version == "v1.7.3"


@pytest.mark.parametrize("steps", [CANARY_STEPS, BLUE_GREEN_STEPS])
def test_the_usual_steps_are_plans(steps: Any) -> None:
    plan = read_plan({"steps": steps})
    assert plan.rules == ("http_5xx_rate <= 0.01",)
    assert type(plan).model_validate_json(plan.model_dump_json(by_alias=True), strict=True) == plan


def test_another_plan_has_another_hash() -> None:
    one, other = read_plan({"steps": STEPS}), read_plan({"steps": STEPS, "sticky": "X-User-Id"})
    assert one.hash == read_plan({"steps": STEPS}).hash != other.hash


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "5"}, "steps must be a list of mappings"),
        ({"steps": []}, "must begin with setWeight"),
        ({"steps": [{"analysis": "10m"}]}, "must begin with setWeight"),
        ({"steps": [{"setWeight": 5}]}, "must end with an analysis or a pause"),
        ({"steps": [{"setWeight": 5}, {"pause": {}}]}, "must have an analysis"),
        ({"steps": [{"setWeight": 5}, *STEPS]}, "weights of the steps must rise; got 5, 5"),
        ({"steps": [{"setWeight": 0}, {"analysis": "1m"}]}, "must have a weight above 0"),
        ({"steps": [*STEPS, {"setWeight": 500}]}, r"steps\[2\].setWeight must be at most 100; got 500"),
        ({"steps": [{"setweight": 5}]}, r"steps\[0\] must have one of setWeight, analysis, pause"),
        ({"steps": [{"setWeight": 5, "pause": {}}]}, r"steps\[0\] must have one of"),
        ({"steps": [{"setWeight": 5}, {"analysis": "10"}]}, "must be a duration"),
        ({"steps": STEPS, "rules": ["accuracy <= 1"]}, "metric must be one of http_5xx_rate"),
        ({"steps": STEPS, "rules": ["http_5xx_rate >= 0.1"]}, "rule must have <= or <"),
        ({"steps": STEPS, "rules": ["http_5xx_rate <= 0"]}, "limit must be more than 0"),
        ({"steps": STEPS, "rules": []}, "rules must have at least one without warn: in front"),
        ({"steps": STEPS, "rules": ["warn: http_5xx_rate <= 0.01"]}, "rules must have at least one without warn:"),
        ({"steps": STEPS, "rules": ["http_5xx_rate <= 5"]}, "less than 1.*Did you mean 'http_5xx_rate <= 0.05'"),
        ({"steps": STEPS, "rules": ["warn: http_4xx_rate <= 1"]}, "Did you mean 'warn: http_4xx_rate <= 0.01'"),
        (
            {"steps": STEPS, "rules": ["unfit_rate <= champion + 5"]},
            r"Did you mean 'unfit_rate <= champion \+ 0.05'",
        ),
        ({"steps": STEPS, "rules": ["http_5xx_rate <= 500"]}, "got 'http_5xx_rate <= 500'$"),
        ({"steps": STEPS, "rules": ["latency_p99_ms <= 0.5"]}, "limit must be between 1 and 5000 ms"),
        ({"steps": STEPS, "rules": ["latency_p99_ms <= 9000"]}, "limit must be between 1 and 5000 ms"),
        ({"steps": STEPS, "rules": ["latency_p99_ms <= champion * 0"]}, "limit must be between 1 and 5000 ms"),
        ({"steps": STEPS, "rules": ["dry_run: http_5xx_rate <= 0.1"]}, "must be one of enforce, warn"),
        ({"steps": STEPS, "rules": ["http_5xx_rate <= champion * 1.2"]}, "rule must allow a difference"),
        (
            {"steps": BLUE_GREEN_STEPS, "rules": ["latency_p99_ms <= champion * 1.2"]},
            "compares with the champion, which is asked nothing at weight 100",
        ),
        ({"steps": STEPS, "bake": "10m"}, "bake needs rollback"),
        ({"steps": STEPS, "stable_version": "v1.7.3"}, "stable_version needs rollback"),
        ({"steps": [SHADOW]}, "steps must begin with setWeight"),
        ({"steps": [*STEPS, SHADOW, {"pause": {}}]}, "shadow must come before every other step"),
        ({"steps": [{"shadow": {"percent": 0, "for": "1m"}}, *STEPS]}, "percent must be more than 0; got 0"),
        ({"steps": [SHADOW, *STEPS], "rules": ["latency_p99_ms <= 200"]}, "shadow needs a rule on http_5xx_rate"),
        ({"steps": STEPS, "queries": {"sales": "sum(sales)"}}, "query 'sales' needs a rule"),
        (
            {"steps": STEPS, "queries": {"sales": "sum(sales)"}, "rules": ["sales >= champion"]},
            "rule on a query must have a number",
        ),
        ({"steps": STEPS, "queries": {"http_5xx_rate": "vector(0)"}}, "query 'http_5xx_rate' must have another name"),
        ({"steps": STEPS, "sticky": "X\r\nY"}, "sticky: must be the name of an HTTP header"),
        ({"steps": STEPS, "max_duration": "10m"}, "max_duration must be longer than the steps, .* at least 600 s"),
        ({"steps": [*STEPS, {"pause": "1h"}], "max_duration": 4_199}, "at least 4200 s; got 4199 s"),
        ({"steps": STEPS, "max_duration": 1e300}, "max_duration: must be at most 366 days; got 1e\\+300 s"),
        ({"steps": STEPS, "load_timeout": 4e7}, "load_timeout: must be at most 366 days"),
        ({"steps": STEPS, "bake": "367d", "rollback": ROLLBACK}, "bake: must be at most 366 days"),
        ({"steps": [{"setWeight": 5}, {"analysis": 1e15}]}, r"steps\[1\].analysis: must be at most 366 days"),
        ({"steps": [{"setWeight": True}, {"analysis": "1m"}]}, r"steps\[0\].setWeight: must be a number; got True"),
        ({"steps": [{"setWeight": 5}, {"analysis": True}]}, r"steps\[1\].analysis: must be a duration .* got True"),
        ({"steps": STEPS, "breaker": {"threshold": "5%", "duration": "2m"}}, "threshold must be a number; got '5%'"),
        (
            {"steps": STEPS, "breaker": {"threshold": 0.05, "duration": "999999d"}},
            "breaker: must be at most 366 days; got 8.63999e\\+10 s",
        ),
        ({"steps": STEPS, "rollback": {"threshold": 0.05, "duration": 1e15}}, "rollback: must be at most 366 days"),
        ({"steps": STEPS, "on_lost": "retry"}, "on_lost must be one of hold, stable; got 'retry'"),
        ({"steps": STEPS, "on_inconclusive": "go"}, "on_inconclusive must be one of pause, abort; got 'go'"),
    ],
)
def test_refuses_a_plan_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_plan(values)
