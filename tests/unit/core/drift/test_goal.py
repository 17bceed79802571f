"""A sensor waits for the newest drift check, and takes no older one for it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.drift.goal import DriftGoal
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import InvalidArgumentError

ENDED = 1_795_312_800_000  # 2026-11-22T02:00:00Z


def check(verdict: str, ended: int | None = ENDED) -> Run:
    tags = {contract.TAG_DRIFT_VERDICT: verdict, contract.TAG_DATA_VERSION: "v2"}
    return Run("r", "1", "FINISHED", tags=tags, end_time=ended, metrics={"drift_share": 0.3})


@pytest.mark.parametrize(
    ("options", "run", "met"),
    [
        ({}, check("not_drifted"), True),
        ({}, check(""), False),
        ({"verdicts": ("drifted",)}, check("drifted"), True),
        ({"verdicts": ("drifted",)}, check("inconclusive"), False),
        ({"since": "2026-11-22T02:00:00+00:00"}, check("drifted"), True),
        ({"since": "2026-11-22T03:00:00+01:00"}, check("drifted"), True),
        ({"since": "2026-11-22T02:00:00.001+00:00"}, check("drifted"), False),
        ({"since": "2026-11-22T02:00:00+00:00"}, check("drifted", None), False),
    ],
)
def test_verdict_and_time_decide(options: dict[str, Any], run: Run, met: bool) -> None:
    assert DriftGoal("m", "e", **options).is_met_by(run) is met


def test_a_goal_survives_json_and_is_said_in_words() -> None:
    goal = DriftGoal("m", "e", verdicts=("drifted",), since="2026-11-22T02:00:00+00:00", data_version="v2")
    assert DriftGoal.from_json(goal.to_json()) == goal
    assert goal.describe() == (
        "newest drift check of model 'm' in experiment 'e' with verdict drifted, ended since "
        "2026-11-22T02:00:00+00:00, of data version v2"
    )
    assert goal.tags == {contract.TAG_DATA_VERSION: "v2"}
    assert goal.found(check("drifted"))["drift_share"] == 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verdicts": ()}, "must be one or more of drifted, not_drifted, inconclusive"),
        ({"verdicts": ("maybe",)}, r"got \['maybe'\]"),
        ({"since": "yesterday"}, "since must be a time with its time zone"),
        ({"since": "2026-11-22T02:00:00"}, "must be a time with its time zone"),
    ],
)
def test_what_can_never_be_met_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        DriftGoal("m", "e", **options)
