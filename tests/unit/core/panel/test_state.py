"""One word for each model: the worst that is known about it."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from airflow_mcp.core.panel.facts import ListRow
from airflow_mcp.core.panel.pages.models import ListQuery, select_rows
from airflow_mcp.core.panel.state import KINDS, ModelState, Situation, assess_state
from airflow_mcp.core.registry.standing import Concern, ConcernKind, Standing


def standing(*kinds: ConcernKind, name: str = "churn") -> Standing:
    return Standing(name, "7", "2026-11-26T02:12:00+00:00", tuple(Concern(kind, "said") for kind in kinds))


@pytest.mark.parametrize("kind", get_args(ConcernKind))
def test_every_concern_has_a_state_that_is_not_healthy(kind: ConcernKind) -> None:
    assert assess_state(Situation(standing(kind))).kind != "healthy"


STOPPED = {"stopped": True, "paused": None, "trainings": []}
TRAINING = {"stopped": False, "paused": None, "trainings": [{"outcome": None}]}
PAUSED = {"stopped": False, "paused": {"by": "olga"}, "trainings": [{"outcome": "promoted"}]}


@pytest.mark.parametrize(
    ("concerns", "given", "expected"),
    [
        ((), {}, "healthy"),
        (("champion_unusable", "drifted"), {"canary": "8"}, "champion_unusable"),
        (("moved_outside",), {"canary": "8"}, "moved_outside"),
        ((), {"approval": "8", "approval_is_late": True, "canary": "8"}, "approval_late"),
        ((), {"canary": "8", "rollout_trouble": "breaker"}, "rollout_failing"),
        ((), {"approval": "8", "canary": "8"}, "waits_for_approval"),
        (("drifted",), {"canary": "8"}, "rolling_out"),
        (("drifted",), {"retraining": STOPPED}, "drifted_stopped"),
        (("drifted",), {"retraining": TRAINING}, "drifted_retraining"),
        (("drifted",), {"retraining": PAUSED}, "drifted"),
        (("drifted",), {}, "drifted"),
        (("drift_unknown", "no_way_back"), {}, "not_judged"),
        (("no_way_back",), {"retraining": PAUSED}, "no_way_back"),
        ((), {"retraining": PAUSED}, "retraining_paused"),
        ((), {"retraining": STOPPED}, "healthy"),
    ],
)
def test_the_worst_state_that_applies_is_shown(
    concerns: tuple[ConcernKind, ...], given: dict[str, Any], expected: str
) -> None:
    assert assess_state(Situation(standing(*concerns), **given)).kind == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_can_be_written_out(kind: Any) -> None:
    values = {"version": "8", "canary": "8", "stable": "7", "weight": "10"}
    written = ModelState(kind, values).to_json()
    assert "{" not in written["word"] + written["next_step"]
    assert bool(written["next_step"]) is (kind != "healthy")


def row(name: str, *concerns: ConcernKind, owner: str = "") -> ListRow:
    found = standing(*concerns, name=name)
    state = assess_state(Situation(found))
    return ListRow(name, owner, "", "nightly", found, state, "7", "passed", "6", 2, ())


ROWS = [
    row("b"),
    row("a", owner="risk"),
    row("z", "champion_unusable"),
    row("m", "drifted"),
    row("n", "never_promoted"),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (ListQuery(), ["z", "m", "n", "a", "b"]),
        (ListQuery(sort="name"), ["a", "b", "m", "n", "z"]),
        (ListQuery(state="attention"), ["z", "m"]),
        (ListQuery(state="never"), ["n"]),
        (ListQuery(q="RISK"), ["a"]),
        (ListQuery(q="nightly risk"), ["a"]),
        (ListQuery(owner="risk"), ["a"]),
        (ListQuery(page=2), []),
    ],
)
def test_the_list_is_filtered_sorted_and_paged(query: ListQuery, names: list[str]) -> None:
    part = select_rows(ROWS, query)
    assert ([each.name for each in part.rows], part.total) == (names, 5)


def test_a_page_has_fifty_models() -> None:
    many = [row(f"model-{number:03}") for number in range(120)]
    part = select_rows(many, ListQuery(page=3))
    assert (len(part.rows), part.rows[0].name, part.matching) == (20, "model-100", 120)
