"""What a replay counts, for values of every kind that a log can hold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from airflow_mcp.core.evaluation.replay import ReplayRequest
from airflow_mcp.work.measures.replay_comparison import Tally, compare_predictions
from airflow_mcp.work.measures.replay_predictions import ANSWERED, Answers

ODD: list[Any] = [1, 1.0, "1", None, [1, 2], {"a": 1}, True, 10**400, np.array([1, 2]), Decimal("1.0")]


def tally(values: list[Any], champion: list[Any], candidate: list[Any], **options: Any) -> Tally:
    """Compare answers to requests of one column, "v"."""
    model_type = "regressor" if isinstance(champion[0], float) else "classifier"
    request = ReplayRequest(
        identity="i",
        run_id="r",
        candidate=ModelUnderTest(model_uri="models:/m-1"),
        champion=ModelUnderTest(model_uri="models:/m-2"),
        source="log.jsonl",
        model_type=model_type,
        tolerance=0.25 if model_type == "regressor" else 0.0,
        **options,
    )
    dtype: Any = float if model_type == "regressor" else object
    answers = tuple(
        Answers(np.array(given, dtype=dtype), None, np.full(len(given), ANSWERED)) for given in (candidate, champion)
    )
    frame = pd.DataFrame({"v": pd.Series(values, dtype=object)})
    found, counted = compare_predictions(request, answers[0], answers[1], (None, None)), Tally(request)
    counted.add(frame, [str(place) for place in range(len(values))], (answers[0], answers[1]), found)
    return counted


def test_values_are_summed_and_what_is_no_amount_counts_as_missing() -> None:
    counted = tally(
        [1, 2.5, Decimal("0.5"), "3", *ODD[3:6], 10**400, 1e308, float("nan")], [0] * 10, [1] * 10, value_column="v"
    )
    value = counted.summed_value()
    assert value is not None
    assert (value.compared, value.flipped, value.missing) == (7.0, 7.0, 6)


def test_ten_million_of_the_largest_amounts_still_have_a_sum() -> None:
    value = tally([1e300] * 4 + [1e301] * 4, [0] * 8, [1] * 8, value_column="v").summed_value()
    assert value is not None
    assert (value.compared, value.missing) == (4e300, 4)
    assert np.isfinite(value.compared / 4 * 10_000_000)


@pytest.mark.parametrize("answer", [1, 1.0])
def test_an_answer_of_production_may_be_anything(answer: Any) -> None:
    recorded = tally(ODD, [answer] * len(ODD), [answer] * len(ODD), prediction_column="v").summed_recorded()
    assert recorded is not None
    assert (recorded.requests, recorded.different) == (9, 5)


def test_a_segment_has_one_name_in_every_chunk() -> None:
    values: list[Any] = [1, 1.0, "1", 1.5, None, True, "\ud800", [1]]
    counted = tally(values, [0] * 8, [1] * 8, segments=("v",))
    assert {part.value: part.compared for part in counted.summed_segments()} == {
        "1": 3,
        "1.5": 1,
        "<missing>": 1,
        "True": 1,
        "\\ud800": 1,
        "[1]": 1,
    }


def test_a_change_too_large_for_a_double_is_a_flip_without_a_size() -> None:
    counted = tally([0, 0], [1e308, 1.0], [-1e308, 1.1])
    assert (counted.compared, counted.flips) == (2, 1)
    assert [example.delta for example in counted.examples] == [None]
    assert counted.summed_deltas() is None
