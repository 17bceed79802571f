"""Reading a pod's log again gives only what is new."""

from __future__ import annotations

from airflow_mcp.workloads.kubernetes_log import FreshLines

FIRST = b"2026-01-01T00:00:00.100000000Z epoch 1\n"
SAME_TEXT_LATER = b"2026-01-01T00:00:00.200000000Z epoch 1\n"
LAST = b"2026-01-01T00:00:01.100000000Z trained\n"
CONTINUED = b"the rest of a very long line\n"


def test_lines_that_were_read_before_are_left_out() -> None:
    seen: dict[bytes, None] = {}
    assert list(FreshLines([FIRST, SAME_TEXT_LATER], seen)) == [FIRST, SAME_TEXT_LATER]
    assert list(FreshLines([FIRST, SAME_TEXT_LATER, LAST], seen)) == [LAST]


def test_lines_without_a_time_belong_to_the_line_before_and_stay() -> None:
    assert list(FreshLines([FIRST, CONTINUED, CONTINUED], {})) == [FIRST, CONTINUED, CONTINUED]


def test_only_so_many_lines_are_remembered() -> None:
    seen: dict[bytes, None] = {}
    lines = [f"2026-01-01T00:00:00.{number:09}Z line\n".encode() for number in range(25_000)]
    assert list(FreshLines(lines, seen)) == lines
    assert (len(seen), list(FreshLines(lines[-5_000:], seen))) == (20_000, [])
