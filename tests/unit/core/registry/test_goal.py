"""What a sensor of the registry waits for."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
from airflow_mcp.core.registry.goal import ModelGoal


def version(number: int, status: str = "READY", **tags: str) -> ModelVersion:
    return ModelVersion("fraud", str(number), status, tags=tags)


@pytest.mark.parametrize(
    ("goal", "met", "not_met"),
    [
        ({}, version(1), version(1, "PENDING_REGISTRATION")),
        ({}, version(1), version(1, "FAILED_REGISTRATION")),
        ({"version": "2"}, version(2), version(3)),
        ({"version": "2"}, version(2), version(2, "PENDING_REGISTRATION")),
        ({"other_than": "2"}, version(1), version(2)),
        ({"newer_than": "9"}, version(10), version(9)),
        ({"newer_than": "10"}, version(11), version(9)),
        ({"tags": {"a": "x", "b": "y"}}, version(1, a="x", b="y", c="z"), version(1, a="x")),
        ({"tags": {"a": "x"}}, version(1, a="x"), version(1, a="y")),
        ({"newer_than": "1", "tags": {"a": "x"}}, version(2, a="x"), version(1, a="x")),
    ],
)
def test_a_goal_is_met_when_every_condition_is(goal: dict[str, Any], met: ModelVersion, not_met: ModelVersion) -> None:
    wanted = ModelGoal("fraud", **goal)
    assert wanted.is_met_by(met)
    assert not wanted.is_met_by(not_met)
    assert wanted.first_met([not_met, met]) == met
    assert wanted.first_met([not_met]) is None


def test_a_goal_is_the_same_after_the_way_through_json() -> None:
    goal = ModelGoal("fraud", alias="champion", other_than="3", tags={"a": "b"})
    assert ModelGoal(**goal.to_json()) == goal


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({}, "model 'fraud': a version, READY"),
        ({"alias": "champion", "other_than": "3"}, "alias 'champion' of model 'fraud': a version other than 3, READY"),
        ({"newer_than": "3", "tags": {"a": "b"}}, "model 'fraud': a version newer than 3 with tag a=b, READY"),
        ({"version": "3"}, "model 'fraud': version 3, READY"),
    ],
)
def test_a_goal_is_told_in_words(goal: dict[str, Any], words: str) -> None:
    assert ModelGoal("fraud", **goal).describe() == words


@pytest.mark.parametrize(
    ("goal", "may"),
    [
        ({}, True),
        ({"version": "3"}, True),
        ({"version": "5"}, False),
        ({"newer_than": "3"}, True),
        ({"newer_than": "4"}, False),
        ({"alias": "champion"}, True),
        ({"alias": "challenger"}, False),
        ({"alias": "champion", "version": "2"}, True),
        ({"alias": "champion", "version": "4"}, False),
        ({"alias": "champion", "other_than": "2"}, False),
        ({"alias": "champion", "other_than": "4"}, True),
    ],
)
def test_a_model_tells_whether_its_versions_are_worth_a_look(goal: dict[str, Any], may: bool) -> None:
    model = RegisteredModel("fraud", aliases={"champion": "2"}, latest_versions=(version(4), version(2)))
    assert ModelGoal("fraud", **goal).may_be_met_by(model) is may
    assert not ModelGoal("fraud", **goal).may_be_met_by(RegisteredModel("fraud"))
