from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from airflow_mcp.work.drift.category_counts import MAX_NAME, CategoryCounts, from_document


def counted(names: list[str], capacity: int) -> CategoryCounts:
    counts = CategoryCounts(capacity=capacity)
    for start in range(0, len(names), 100):
        counts.add(Counter(names[start : start + 100]))
    return counts


def test_within_its_capacity_counting_is_exact() -> None:
    counts = counted(["a", "b", "a"] * 500, 2)
    assert counts.counts == {"a": 1000, "b": 500}
    assert counts.is_exact
    assert counts.distinct == 2


@pytest.mark.parametrize("seed", range(4))
def test_beyond_its_capacity_no_category_is_farther_off_than_stated(seed: int) -> None:
    names = np.random.default_rng(seed).zipf(1.3, 5000).astype(str).tolist()
    counts, true = counted(names, 40), Counter(names)
    assert len(counts.counts) <= 40
    assert counts.rows == 5000
    assert counts.distinct is None
    assert 0 < counts.error <= 5000 / 41
    assert all(0 <= true[name] - counts.counts.get(name, 0) <= counts.error for name in true)


def test_merged_parts_are_within_the_stated_error_of_the_whole() -> None:
    names = np.random.default_rng(9).zipf(1.4, 6000).astype(str).tolist()
    merged, true = CategoryCounts(capacity=30), Counter(names)
    for start in range(0, 6000, 1500):
        merged.merge(counted(names[start : start + 1500], 30))
    assert merged.rows == 6000
    assert all(0 <= true[name] - merged.counts.get(name, 0) <= merged.error for name in true)


def test_what_is_not_kept_is_counted_as_other_and_bounds_the_error() -> None:
    counts = counted(["a"] * 60 + ["b"] * 30 + ["c"] * 10, 9)
    kept = counts.kept(1)
    assert (kept.counts, kept.other, kept.error, kept.distinct) == ({"a": 60}, 40, 30, 3)
    again = from_document(kept)
    again.merge(counted(["c"] * 5, 9))
    assert again.counts == {"a": 60, "c": 5}
    assert again.error == 30
    assert again.distinct is None


def test_texts_of_their_own_are_told_from_categories() -> None:
    assert counted([str(number) for number in range(300)], 1000).is_mostly_distinct
    assert counted([str(number) for number in range(300)], 20).is_mostly_distinct
    assert not counted([str(number % 100) for number in range(300)], 1000).is_mostly_distinct
    assert not counted(["a", "b"] * 200 + [str(number) for number in range(50)], 20).is_mostly_distinct


def test_of_texts_only_those_that_repeat_are_kept() -> None:
    counts = counted(["often"] * 3 + [str(number) for number in range(300)], 1000)
    assert counts.kept(50).counts == {"often": 3}


def test_long_names_are_shortened_and_stay_different() -> None:
    counts = counted(["x" * 500 + "a", "x" * 500 + "b", "x" * 500 + "a"], 9)
    assert sorted(counts.counts.values()) == [1, 2]
    assert all(len(name) <= MAX_NAME for name in counts.counts)
