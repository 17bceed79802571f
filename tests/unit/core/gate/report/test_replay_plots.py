"""A replay in the gate report: every count in words, every segment drawn, every text only text."""

from __future__ import annotations

from airflow_mcp.core.evaluation.diagnostics import Histogram
from airflow_mcp.core.evaluation.replay import (
    Deltas,
    FlipExample,
    ModelTroubles,
    Reason,
    Recorded,
    ReplaySegment,
    Transition,
    ValueAtStake,
)
from airflow_mcp.core.gate.report.replay_plots import render_replay
from tests.unit.core.gate.report.test_page import HOSTILE, Page
from tests.unit.core.gate.rules.test_replay import replayed

HISTOGRAM = Histogram(edges=(-0.5, 0.0, 0.5), counts=(30, 70), minimum=-0.5, maximum=0.5)


def full(name: str = "north") -> str:
    found = replayed(
        flips=20,
        compared=1_900,
        candidate_only_missing=60,
        first="2026-11-01",
        last="2026-11-02",
        source=name,
        candidate_troubles=ModelTroubles(unfit=60, failed=3, reasons=(Reason(reason=name, requests=63),)),
        transitions=(Transition(champion=name, candidate="no", requests=20, value=1234.5),),
        deltas=Deltas(
            of="probability", mean=0.01, total=19.0, mean_absolute=0.02, p95_absolute=0.3, histogram=HISTOGRAM
        ),
        segments=(
            ReplaySegment(column="region", value=name, compared=100, flips=10, candidate_only_missing=0),
            ReplaySegment(column="region", value="south", compared=0, flips=0),
        ),
        recorded=Recorded(requests=1_900, different=7),
        value=ValueAtStake(compared=99_000.0, flipped=1234.5, missing=2),
        examples=(FlipExample(request=name, champion="yes", candidate="no", delta=-0.5),),
    )
    return render_replay(found, 0.02)


def test_every_count_is_said() -> None:
    text = Page(full()).text
    for said in (
        "The newest 2000 of 9000 requests from 2026-11-01 to 2026-11-02",
        "20 flip",
        "the candidate does not answer 60 that the champion answers",
        "40 are unusable",
        "worth 1,234.5 of 99,000",
        "2 requests have no value",
        "7 of 1900 requests otherwise than production did",
        "63 times: north",
        "mean 0.01",
    ):
        assert said in text, said


def test_a_segment_is_drawn_with_its_interval_beside_the_limit() -> None:
    html = full()
    assert 'aria-label="candidate 0.1, interval 0.0552291 to 0.174366, bound 0.02"' in html
    assert 'fill="var(--failed)"' in html
    assert "candidate not measured, bound 0.02" in html


def test_hostile_names_are_only_text() -> None:
    page = Page(full(HOSTILE))
    assert not {"script", "img"} & set(page.elements)
    assert page.text.count(HOSTILE) == 5


def test_a_replay_of_nothing_has_words_and_no_plots() -> None:
    html = render_replay(replayed(requests=0, compared=0, flips=0), None)
    assert "The newest 0 of 9000 requests" in html
    assert "<svg" not in html
