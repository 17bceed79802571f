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
        ("99 * * * *", "'99' in .* is no minute; allowed: \\*, 0 to 59"),
        ("* 24 * * *", "'24' in .* is no hour"),
        ("* * 0 * *", "'0' in .* is no day of month; allowed: \\*, 1 to 31"),
        ("* * * 13 *", "is no month; allowed: \\*, 1 to 12 or jan to dec"),
        ("* * * * 8", "is no day of week; allowed: \\*, 0 to 7 or sun to sat"),
        ("* * * * monday", "is no day of week"),
        ("*/0 * * * *", "is no minute"),
        ("30-10 * * * *", "is no minute"),
        ("1,,2 * * * *", "is no minute"),
        ("*-5 * * * *", "is no minute"),
        ("-1 * * * *", "is no minute"),
        ("* * * *", "has 4 fields; allowed: five"),
        ("* * * * * *", "has 6 fields"),
        ("daily", "has 1 fields"),
        ("@often", "or one of @hourly"),
        ("0 0 30 2 *", "names a day that no such month has"),
        ("0 0 31 4,6 *", "names a day that no such month has"),
        ("٣ * * * *", "is no minute"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_cron(text)
