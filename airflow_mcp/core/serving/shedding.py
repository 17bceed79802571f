"""When a server lets fewer requests wait, because those that waited were answered too late."""

from __future__ import annotations

from airflow_mcp.core.serving.windows import Window

SLOW_SHARE = 0.01
"""The 99th percentile is above a latency when more than this share of the answers is slower."""
MIN_ANSWERS = 20
"""Answers in a window, below which nothing is concluded."""


def sheds_after(window: Window | None, limit: float, *, is_shedding: bool) -> bool:
    """Return whether a server sheds load after a window has closed.

    It begins when the 99th percentile of the window is above the limit, and ends with a window within the limit in
    which nobody was refused. As long as requests are refused, more arrive than the model can answer, and a longer queue
    would only make all of them late again.

    :param window: the latest window; None when it had no requests.
    :param limit: seconds; one of the edges of the window.
    :param is_shedding: whether the server sheds load now.
    """
    if window is None:
        return False
    if window.answered >= MIN_ANSWERS and window.slower_than(limit) > SLOW_SHARE:
        return True
    return is_shedding and window.refused > 0
