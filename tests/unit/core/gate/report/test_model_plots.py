"""Plots of diagnostics: what is drawn is what was measured."""

from __future__ import annotations

import re

import pytest

from airflow_mcp.core.evaluation.diagnostics import Calibration, CalibrationBin, ConfusionMatrix, Histogram
from airflow_mcp.core.gate.report.model_plots import Mark, Series, draw_calibration, draw_confusions, draw_histograms

BAR = r'<rect x="([\d.]+)"[^>]*height="([\d.]+)" fill="var\(--NAME\)"'


def calibration(*bins: tuple[int, int]) -> Calibration:
    width = 1 / len(bins)
    parts = tuple(
        CalibrationBin(
            low=number * width,
            high=(number + 1) * width,
            rows=rows,
            positives=positives,
            mean_probability=(number + 0.5) * width if rows else None,
        )
        for number, (rows, positives) in enumerate(bins)
    )
    return Calibration(event="predicted_class", bins=parts, ece=0.1, brier=0.2)


def histogram(*counts: int, low: float = 0.0, high: float = 10.0, above: int = 0) -> Histogram:
    step = (high - low) / len(counts)
    edges = tuple(low + number * step for number in range(len(counts) + 1))
    return Histogram(edges=edges, counts=counts, above=above, minimum=low, maximum=high * (2 if above else 1))


def test_a_bin_without_rows_is_no_point_of_the_curve() -> None:
    html = draw_calibration(calibration((10, 2), (0, 0), (10, 10)), None)
    (points,) = re.findall(r'<polyline points="([^"]*)"', html)
    ends = [tuple(map(float, point.split(","))) for point in points.split()]
    assert ends == [pytest.approx((91.7, 220.0)), pytest.approx((298.3, 20.0))]
    assert html.count("<circle") == 2
    assert "probability of a right answer" in html


def test_the_champions_curve_is_told_apart_without_colour() -> None:
    html = draw_calibration(calibration((10, 2)), calibration((10, 3)))
    assert html.count("<polyline") == 2
    assert 'stroke-dasharray="5 3"' in html
    assert html.count("<circle") == 1


def test_both_histograms_have_one_axis() -> None:
    html = draw_histograms(
        "t", "ms", [Series("candidate", histogram(4, 0, 2)), Series("champion", histogram(1, 1, low=10, high=20))]
    )
    bars = {
        name: [tuple(map(float, found)) for found in re.findall(BAR.replace("NAME", name), html)]
        for name in ("candidate", "champion")
    }
    assert [height for _, height in bars["candidate"]] == [80, 40]
    assert max(x for x, _ in bars["candidate"]) < min(x for x, _ in bars["champion"])


@pytest.mark.parametrize(
    ("limit", "shown"),
    [(12.0, "limit"), (150.0, "limit \N{RIGHTWARDS ARROW}"), (-90.0, "\N{LEFTWARDS ARROW} limit")],
)
def test_a_limit_far_away_is_marked_at_the_edge_and_the_bars_stay_wide(limit: float, shown: str) -> None:
    html = draw_histograms("t", "ms", [Series("candidate", histogram(4, 2))], [Mark(limit, "limit", is_limit=True)])
    assert f">{shown}<" in html
    widths = [float(width) for width in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"', html)]
    assert min(widths) > 100


def test_values_outside_of_the_bins_are_counted_in_words() -> None:
    assert "candidate: 3 above, up to 20." in draw_histograms(
        "t", "ms", [Series("candidate", histogram(4, 2, above=3))]
    )


def test_a_cell_is_as_dark_as_its_share_of_the_true_class() -> None:
    html = draw_confusions("candidate", ConfusionMatrix(labels=("a", "b"), counts=((3, 1), (0, 0))))
    assert re.findall(r"--share: ([\d.]+)", html) == ["0.45", "0.15", "0.00", "0.00"]
    assert html.count('class="right"') == 2


def test_the_line_of_other_classes_counts_no_row_as_right() -> None:
    folded = ConfusionMatrix(labels=("a", "(other)"), counts=((3, 1), (2, 9)), folded=7)
    html = draw_confusions("candidate", folded)
    assert html.count('class="right"') == 1
    assert "stand for 7 smaller classes" in html


def test_a_long_name_is_cut_and_whole_in_the_hint() -> None:
    name = "n" * 500
    html = draw_confusions("candidate", ConfusionMatrix(labels=(name,), counts=((3,),)))
    assert f'title="{name}"' in html
    assert f">{name}" not in html
