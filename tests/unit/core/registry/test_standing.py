"""What is wrong with a champion, from a registered model and what else was read; the rest is tested on real servers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_mcp.core.contract import TAG_DRIFT_VERDICT, TAG_GATE_VERDICT, TAG_LAST_MOVE
from airflow_mcp.core.doctor.mlflow_server import judge_rehearsals
from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Run
from airflow_mcp.core.registry.moves import MoveRecord
from airflow_mcp.core.registry.rehearsal import Rehearsal
from airflow_mcp.core.registry.standing import Facts, Standing, assess, worst_first

AT = "2026-11-21T02:00:00+00:00"
MOVE = MoveRecord("promote", "m1", "1", "2", AT, "churn.promote run-1", number=1, run_id="r2", gate_verdict="passed")
DONE = {TAG_LAST_MOVE: MOVE.to_tag(), MOVE.done_tag: MOVE.to_tag()}
ALIASES = {"champion": "2", "previous_champion": "1"}
JUDGED = {"r2": Run("r2", "0", "FINISHED", tags={TAG_GATE_VERDICT: "passed"})}


def standing(aliases: dict[str, str] | None = None, tags: dict[str, str] | None = None, **facts: Any) -> Standing:
    model = RegisteredModel(
        "churn", tags=DONE if tags is None else tags, aliases=ALIASES if aliases is None else aliases
    )
    return assess(model, Facts(**{"judged": JUDGED, **facts}))


def kinds(found: Standing) -> list[str]:
    return [concern.kind for concern in found.concerns]


def test_a_champion_that_airflow_mcp_promoted_has_no_concerns() -> None:
    found = standing()
    assert (found.champion, found.since, found.concerns) == ("2", AT, ())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"deleted": {("churn", "2")}}, ["champion_deleted"]),
        ({"deleted": {("churn", "1")}}, ["no_way_back"]),
        ({"deleted": {("churn", "1"), ("churn", "2")}}, ["champion_deleted", "no_way_back"]),
        ({"aliases": {}, "tags": {}}, ["never_promoted"]),
        ({"aliases": {}}, ["champion_missing"]),
        ({"aliases": {"champion": "7"}, "tags": {}}, []),  # airflow-mcp never moved it: nothing to compare with
        ({"aliases": {**ALIASES, "champion": "7"}}, ["moved_outside"]),
        ({"tags": {TAG_LAST_MOVE: MOVE.to_tag()}}, ["interrupted"]),
        ({"judged": {"r2": None}}, ["verdict_unknown"]),
        ({"judged": None}, []),  # not read, which is reported for all models together
    ],
)
def test_each_state_has_its_concern(given: dict[str, Any], expected: list[str]) -> None:
    found = standing(**given)
    assert kinds(found) == expected
    assert (found.champion is None) is ("champion_deleted" in expected or given.get("aliases") == {})


@pytest.mark.parametrize(("now", "is_concern"), [("passed", False), ("warned", False), ("failed", True), ("", False)])
def test_only_a_verdict_that_no_longer_accepts_is_taken_back(now: str, is_concern: bool) -> None:
    judged = {"r2": Run("r2", "0", "FINISHED", tags={TAG_GATE_VERDICT: now} if now else {})}
    assert kinds(standing(judged=judged)) == (["verdict_taken_back"] if is_concern else [])


@pytest.mark.parametrize(
    ("verdict", "hours", "expected"),
    [
        ("drifted", 1, ["drifted"]),
        ("drifted", -1, []),
        ("inconclusive", 1, ["drift_unknown"]),
        ("not_drifted", 1, []),
    ],
)
def test_drift_counts_until_a_champion_is_promoted_after_it(verdict: str, hours: int, expected: list[str]) -> None:
    ended = int(datetime.fromisoformat(AT).astimezone(UTC).timestamp() * 1000) + hours * 3_600_000
    check = Run("d1", "0", "FINISHED", end_time=ended, tags={TAG_DRIFT_VERDICT: verdict})
    assert kinds(standing(drift={"churn": check})) == expected


@pytest.mark.parametrize(("champion", "expected"), [("2", ["way_back_not_ready"]), ("3", [])])
def test_a_rehearsal_that_did_not_pass_counts_for_its_champion(champion: str, expected: list[str]) -> None:
    rehearsal = Rehearsal(
        model_name="churn",
        version="1",
        champion=champion,
        way="previous_champion",
        verdict="failed",
        reason="it took too long",
        seconds=9,
        budget_seconds=5,
        at=AT,
        run_id="r9",
    )
    version = ModelVersion("churn", "1", "READY", tags=rehearsal.to_tags())
    found = standing(not_ready={"churn": {"1": version}})
    assert kinds(found) == expected
    assert all(f"version 1 is not ready: its rehearsal failed at {AT}" in each.says for each in found.concerns)
    (*findings,) = judge_rehearsals([RegisteredModel("churn", aliases=ALIASES), RegisteredModel("other")], [version])
    assert [(each.level, each.subject) for each in findings] == [("warning", "MLflow way back of churn")] * len(
        expected
    )


def test_the_worst_concern_decides_the_order() -> None:
    ordered = worst_first(
        [
            standing(),
            standing(aliases={}, tags={}),
            standing(aliases={}),
            standing(deleted={("churn", "2")}),
            standing(judged={"r2": None}),
        ]
    )
    assert [kinds(each)[:1] for each in ordered] == [
        *(["champion_deleted"], ["champion_missing"], ["verdict_unknown"], ["never_promoted"], []),
    ]
    assert [concern.level for each in ordered for concern in each.concerns] == ["problem", "problem", "warning", "note"]
