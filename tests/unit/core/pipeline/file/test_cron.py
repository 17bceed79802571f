"""Time tables: what is one, and what is nonsense."""

from __future__ import annotations

import pytest

from airflow_mcp.core.pipeline.file.cron import check_cron


@pytest.mark.parametrize(
    "text",
    ["0 2 * * *", "*/15 * * * 1-5", "0 0 1,15 jan-mar MON", "5-50/5 0 29 2 *", "@daily", "0 0 31 */2 7", "0 0 31 4 1"],
)
def test_a_time_table_is_taken_as_it_is(text: str) -> None:
    assert check_cron(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("99 * * * *", "the minute must be \\*, 0 to 59.*; got '99' in"),
        ("* 24 * * *", "the hour must be .*; got '24' in"),
        ("* * 0 * *", "the day of month must be \\*, 1 to 31.*; got '0' in"),
        ("* * * 13 *", "the month must be \\*, 1 to 12 or jan to dec"),
        ("* * * * 8", "the day of week must be \\*, 0 to 7 or sun to sat"),
        ("* * * * monday", "the day of week must be"),
        ("*/0 * * * *", "the minute must be"),
        ("30-10 * * * *", "the minute must be"),
        ("1,,2 * * * *", "the minute must be"),
        ("*-5 * * * *", "the minute must be"),
        ("-1 * * * *", "the minute must be"),
        ("* * * *", "must have five fields .* got .* with 4"),
        ("* * * * * *", "got .* with 6"),
        ("daily", "got .* with 1"),
        ("@often", "or be one of @hourly"),
        ("0 0 30 2 *", "would never start: no such month has that day"),
        ("0 0 31 4,6 *", "would never start: no such month has that day"),
        ("٣ * * * *", "the minute must be"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_cron(text)
