"""The chart of a rollout: one sentence for screen readers, lines that stop where nothing was counted."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from airflow_mcp.core.panel.rollout_chart import draw_rollout
from airflow_mcp.core.panel.words import Words
from airflow_mcp.core.rollout.state import Point

START = datetime(2026, 11, 30, 14, tzinfo=UTC)


def point(minute: int, weight: float, canary: tuple[float, float], champion: tuple[float, float]) -> Point:
    return Point(
        at=START + timedelta(minutes=minute),
        weight=weight,
        canary=canary[0],
        canary_failed=canary[1],
        champion=champion[0],
        champion_failed=champion[1],
    )


POINTS = (
    point(0, 0, (0, 0), (1000, 5)),
    point(10, 10, (100, 3), (900, 2)),
    point(20, 10, (0, 0), (0, 0)),
    point(30, 25, (250, 0), (750, 1)),
)


def test_the_sentence_says_what_the_lines_show() -> None:
    drawn = draw_rollout(POINTS, "8", Words())
    said = (
        "From 30 Nov 2026 14:00 to 30 Nov 2026 14:30 the weight went from 0 % to 25 %. Version 8 failed 3 of 350 "
        "answers, the champion 8 of 2650."
    )
    assert drawn.count(said) == 2
    assert not re.search(r"\s(style|on[a-z]+)=", drawn)


def test_a_rate_without_answers_is_a_gap_and_not_zero() -> None:
    drawn = draw_rollout(POINTS, "8", Words())
    (canary,) = re.findall(r'<path d="([^"]+)"[^>]*var\(--bad\)', drawn)
    assert canary.count("M") == 2
    (weight,) = re.findall(r'<path d="([^"]+)"[^>]*var\(--wait\)', drawn)
    assert weight.count("M") == 1
    (_, top), *_ = re.findall(r"M([\d.]+) ([\d.]+)", canary)
    (_, bottom) = re.findall(r"M([\d.]+) ([\d.]+)", canary)[1]
    assert float(top) < float(bottom), "3 of 100 is above 0 of 250"


def test_before_the_first_look_there_is_nothing_to_draw() -> None:
    assert draw_rollout((), "8", Words()) == ""
