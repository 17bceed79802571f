"""Plots in small: every number has its place, and none can break the page."""

from __future__ import annotations

import re

import pytest

from airflow_mcp.core.html.drawing import Scale, Strip, draw_strip, legend, scale_over


def test_a_scale_holds_every_number_with_room_on_both_sides() -> None:
    scale = scale_over([3.0, None, 1.0, float("nan"), float("inf"), 2.0])
    assert scale is not None
    assert 0 < scale.share(1.0) < scale.share(2.0) < scale.share(3.0) < 1
    assert scale.share(2.0) == pytest.approx(0.5)


@pytest.mark.parametrize("number", [0.0, 5.0, -1e-300, 1e300, -1e308])
def test_one_number_alone_is_in_the_middle(number: float) -> None:
    scale = scale_over([number, number])
    assert scale is not None
    assert scale.share(number) == pytest.approx(0.5)


def test_no_number_has_no_scale() -> None:
    assert scale_over([None, float("nan")]) is None
    assert draw_strip(Strip(None), None, "passed") == ""


def test_numbers_at_the_ends_of_a_double_have_a_place_too() -> None:
    scale = scale_over([-1.7e308, 1.7e308], pad=0.0)
    assert scale is not None
    assert (scale.share(-1.7e308), scale.share(0.0), scale.share(1.7e308)) == pytest.approx((0.0, 0.5, 1.0))
    assert len(scale.ticks()) == 2


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1.0]), (2.1, 8.2, [4, 6, 8]), (-3, 3, [-2, 0, 2]), (0.99, 1.0, [0.99, 0.9925, 0.995])],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high).ticks()[: len(ticks)] == pytest.approx(ticks)


@pytest.mark.parametrize(("allowed", "start", "width"), [(">", 75.0, 25.0), ("<", 0.0, 75.0)])
def test_the_allowed_side_is_shaded(allowed: str, start: float, width: float) -> None:
    svg = draw_strip(Strip(0.5, 0.75, allowed=allowed), Scale(0.0, 1.0), "failed")
    found = re.search(r'<rect x="([\d.]+)%?" y="3" width="([\d.]+)%"', svg)
    assert found is not None
    assert (float(found[1]), float(found[2])) == (start, width)


def test_a_strip_says_in_words_what_it_shows() -> None:
    svg = draw_strip(Strip(0.5, 0.75, 0.4, 0.6, 0.7, ">"), Scale(0.0, 1.0), "failed")
    assert 'aria-label="candidate 0.5, interval 0.4 to 0.6, bound 0.75, champion 0.7"' in svg
    assert 'cx="50.00%"' in svg
    assert "candidate not measured, bound 0.75" in draw_strip(Strip(None, 0.75), Scale(0.0, 1.0), "none")


def test_a_number_beyond_the_scale_stays_on_the_page() -> None:
    assert 'cx="100.00%"' in draw_strip(Strip(7.0), Scale(0.0, 1.0), "none")


def test_a_legend_shows_texts_as_they_are() -> None:
    assert "&lt;b&gt;" in legend(("", "<b>"))
