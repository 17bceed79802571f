"""When something that is watched has changed, and how long a watch waits after errors."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.watermark import MAX_SEEN, Sighting, Watermark, backoff_seconds, look_at, read_watermark


def news(marks: list[str], *, once: bool) -> list[str]:
    """Look at one mark after the other; an empty one is nothing. Gives those that are news."""
    known, found = None, []
    for mark in marks:
        sighting = Sighting(mark, once=mark if once else "") if mark else None
        known, is_news = look_at(known, sighting)
        found += [mark] if is_news else []
    return found


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["a"], []),
        (["a", "a", "a"], []),
        (["a", "b", "b", "c"], ["b", "c"]),
        (["", "a"], ["a"]),
        (["a", "", "a"], []),
        (["a", "", "b"], ["b"]),
    ],
)
@pytest.mark.parametrize("once", [True, False])
def test_the_first_look_is_no_news_and_every_change_is(marks: list[str], expected: list[str], once: bool) -> None:
    assert news(marks, once=once) == expected


def test_what_may_be_news_once_is_not_when_it_comes_back() -> None:
    assert news(["a", "b", "a", "b", "c"], once=True) == ["b", "c"]
    assert news(["a", "b", "a", "b"], once=False) == ["b", "a", "b"]


def test_only_so_many_sightings_are_remembered() -> None:
    known = None
    for number in range(MAX_SEEN + 5):
        known, _ = look_at(known, Sighting(str(number), once=str(number)))
    assert known is not None
    assert (len(known.seen), known.seen[-1]) == (MAX_SEEN, str(MAX_SEEN + 4))


def test_a_watermark_survives_the_store() -> None:
    watermark = Watermark("b", ("a", "b"))
    assert read_watermark(watermark.to_json()) == watermark


@pytest.mark.parametrize("stored", [None, "x", 3, [], {}, {"mark": 1}])
def test_what_is_no_watermark_counts_as_none(stored: Any) -> None:
    assert read_watermark(stored) is None


def test_the_wait_after_errors_doubles_up_to_a_quarter_of_an_hour() -> None:
    assert [backoff_seconds(failures, 60, 0.5) for failures in (1, 2, 3, 9, 5000)] == [60, 120, 240, 900, 900]
    assert backoff_seconds(5, 3600, 0.5) == 3600
    assert (backoff_seconds(1, 60, 0.0), backoff_seconds(1, 60, 1.0)) == (45, 75)
