"""A log that is copied in parts, by several processes, is copied once."""

from __future__ import annotations

import pytest

from airflow_mcp.core.workload.container_log import ANNOTATION_LOG_POSITION, FreshLog, LogPosition

FIRST = b"2026-01-01T00:00:00.100000001Z epoch 1\n"
SAME_TIME = b"2026-01-01T00:00:00.100000001Z epoch 1, loss 3\n"
SECOND = b"2026-01-01T00:00:00.100000002Z epoch 2\n"
LATER = b"2026-01-01T00:00:01Z trained\n"
NOW = 1_767_225_601.0


def copy(text: bytes, start: LogPosition = LogPosition()) -> tuple[list[str], LogPosition]:  # noqa: B008  (frozen)
    log = FreshLog(start)
    lines = list(log.take(text))
    return lines, log.position(NOW)


@pytest.mark.parametrize("cut", range(1, 4))
def test_what_was_copied_before_is_left_out_also_where_times_are_equal(cut: int) -> None:
    written = [FIRST, SAME_TIME, SECOND, LATER]
    before, position = copy(b"".join(written[:cut]))
    after, end = copy(b"".join(written), LogPosition.of(position.annotation()))
    assert before + after == ["epoch 1", "epoch 1, loss 3", "epoch 2", "trained"]
    assert copy(b"".join(written), end)[0] == []


def test_a_line_that_comes_out_of_order_is_copied_once() -> None:
    lines, position = copy(SECOND + FIRST)
    assert lines == ["epoch 2", "epoch 1"]
    assert copy(SECOND + FIRST + LATER, position)[0] == ["trained"]


def test_a_line_without_its_end_waits_for_the_rest() -> None:
    log = FreshLog(LogPosition())
    assert list(log.take(FIRST[:-4])) == []
    assert log.position(NOW) == LogPosition(NOW)
    assert list(log.take(FIRST[-4:] + SECOND[:-1])) == ["epoch 1"]
    assert list(log.end()) == ["epoch 2"]


def test_the_rest_of_a_very_long_line_goes_with_its_beginning() -> None:
    _, position = copy(FIRST + b"and so on\n")
    assert copy(FIRST + b"and so on\n" + SECOND + b"xxxxxxxxxxT more\n", position)[0] == ["epoch 2", "xxxxxxxxxxT more"]


def test_the_clock_of_a_node_may_be_set_back_by_its_time_zone() -> None:
    _, position = copy(b"2026-10-25T02:59:59.000000000+02:00 summer\n")
    assert copy(b"2026-10-25T02:00:01.000000000+01:00 winter\n", position)[0] == ["winter"]


def test_bytes_that_are_no_text_are_shown_and_empty_lines_are_not() -> None:
    assert copy(b"2026-01-01T00:00:00Z \xff\n2026-01-01T00:00:00Z \n")[0] == ["\\xff"]


def test_a_log_is_read_on_from_a_little_before_the_last_look() -> None:
    assert LogPosition().since_seconds(NOW) is None
    assert LogPosition(NOW - 30, "2026-01-01T00:00:00Z", 1).since_seconds(NOW) == 40
    assert LogPosition(NOW + 60, "2026-01-01T00:00:00Z", 1).since_seconds(NOW) == 1


@pytest.mark.parametrize("text", ["", "now", "1 yesterday 1", "x 2026-01-01T00:00:00Z 1"])
def test_without_a_usable_position_the_log_is_copied_from_its_start(text: str) -> None:
    assert LogPosition.of({ANNOTATION_LOG_POSITION: text}) == LogPosition()
    assert LogPosition.of(None) == LogPosition()
