"""A tag that was moved is told from one that leads to the same data."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.core.data.tag_record import TagRecord, read_record, record_key

BEFORE = TagRecord("c1", "md5:1")


@pytest.mark.parametrize(
    ("before", "found", "same"),
    [
        (BEFORE, BEFORE, True),
        (BEFORE, TagRecord("c2", "md5:1"), True),
        (BEFORE, TagRecord("c2", "md5:2"), False),
        (BEFORE, TagRecord("c2", ""), False),
        (TagRecord("c1", ""), TagRecord("c2", ""), False),
    ],
)
def test_only_a_known_and_equal_hash_makes_another_commit_the_same_data(
    before: TagRecord, found: TagRecord, same: bool
) -> None:
    assert before.is_same_data(found) is same


@pytest.mark.parametrize("stored", [None, "c1", {}, {"commit": 1}])
def test_what_is_no_record_of_ours_is_none(stored: Any) -> None:
    assert read_record(stored) is None


def test_a_record_comes_back_from_a_store_under_a_key_of_its_own() -> None:
    assert read_record(BEFORE.to_json()) == BEFORE
    keys = {record_key(*given) for given in [("r", "t", "p"), ("r", "t", "q"), ("r", "u", "p"), ("s", "t", "p")]}
    assert len(keys) == 4
