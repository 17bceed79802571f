"""When load is shed: after a window that was too slow, until one is in time and nobody was refused in it."""

from __future__ import annotations

import pytest

from airflow_mcp.core.serving.shedding import sheds_after
from airflow_mcp.core.serving.windows import LATENCY_EDGES, Window

LIMIT = 0.1


def window(answered: int, slow: int, refused: int = 0) -> Window:
    counts = [0] * (len(LATENCY_EDGES) + 1)
    counts[0], counts[-1] = answered - slow, slow
    return Window(0.0, 10.0, answered, 0, refused, tuple(counts))


@pytest.mark.parametrize(
    ("latest", "is_shedding", "sheds"),
    [
        (window(100, 2), False, True),
        (window(100, 1), False, False),  # the 99th percentile is within the limit
        (window(19, 19), False, False),  # too few answers
        (window(100, 0, refused=5), False, False),  # the queue was full for another reason
        (window(100, 0, refused=1), True, True),  # a longer queue would only be slow again
        (window(100, 0), True, False),
        (window(0, 0, refused=9), True, True),
        (window(5, 5), True, False),
        (None, True, False),
        (None, False, False),
    ],
)
def test_what_follows_from_a_window(latest: Window | None, is_shedding: bool, sheds: bool) -> None:
    assert sheds_after(latest, LIMIT, is_shedding=is_shedding) is sheds
