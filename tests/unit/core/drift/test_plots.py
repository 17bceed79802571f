"""Pictures of two distributions show both in the same bins."""

from __future__ import annotations

import re

import pytest

from airflow_mcp.core.drift.plots import draw_distributions
from airflow_mcp.core.drift.result import ColumnHistogram


def heights(svg: str) -> list[float]:
    return [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]


def test_numbers_are_an_area_and_a_line_and_said_in_words() -> None:
    svg = draw_distributions("x", ColumnHistogram(edges=(0.0, 1.0, 2.0), reference=(0.25, 0.75), current=(0.5, 0.5)))
    assert svg.count("<path") == 2
    assert 'aria-label="x: reference mostly 1 to 2 (75%), current mostly 0 to 1 (50%)"' in svg


def test_bars_of_categories_are_as_high_as_their_shares() -> None:
    svg = draw_distributions("x", ColumnHistogram(labels=("a", "b"), reference=(0.8, 0.2), current=(0.4, 0.6)))
    found = heights(svg)
    assert [height / found[0] for height in found] == pytest.approx([1, 0.5, 0.25, 0.75], abs=0.01)


def test_all_others_together_do_not_dwarf_the_categories() -> None:
    shares = (0.02, 0.02, 0.02, 0.02, 0.92)
    svg = draw_distributions("x", ColumnHistogram(labels=(*"abcd", "(other)"), reference=shares, current=shares))
    assert len(set(heights(svg))) == 1, "the others' bar is cut"
    assert "4 most frequent, then all others" in svg


@pytest.mark.parametrize(
    "histogram", [None, ColumnHistogram(), ColumnHistogram(labels=("a",), reference=(0.0,), current=(0.0,))]
)
def test_without_shares_there_is_no_picture(histogram: ColumnHistogram | None) -> None:
    assert draw_distributions("x", histogram) == ""
